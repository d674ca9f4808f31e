"""Rows that a step does not read: how many a batch keeps, what finds them out, and what the step then moves."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.workloads.errors import InputError
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.recorded import Recorded
from weft.workloads.row_forms import FORMS, AskedRows
from weft.workloads.rows import Alike, Rows, alike_of
from weft.workloads.skip_rows import skip_rows
from weft.workloads.step import MatrixOp, VectorOp, Workload

from ..examples_drawn import examples
from .test_recorded import ABOUT


@pytest.fixture(scope="module")
def token() -> Workload:
    """A token of eight samples of the small OPT: three networks of 128 x 512."""
    return weft.trace("characters", use="decode", context=32, batch=8)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 12))
@settings(max_examples=examples(60))
def test_a_union_is_that_of_beta_binomial_tokens(a: int, b: int, tokens: int) -> None:
    # Of a beta distribution of whole parameters the chance that none of the tokens keeps a line is a ratio of
    # binomial coefficients: (a + b - 1)! (b + m - 1)! / ((b - 1)! (a + b + m - 1)!).
    none = Fraction(comb(b + tokens - 1, tokens), comb(a + b + tokens - 1, tokens))
    alike = Alike(density=a / (a + b), correlation=1 / (a + b + 1))
    assert alike.union(tokens) == pytest.approx(1 - float(none), rel=1e-12)


def test_a_union_by_hand() -> None:
    assert Alike(density=0.1).lines(1000, 2) == 190  # 1 - 0.9^2
    assert Alike(density=0.1, correlation=1).lines(1000, 64) == 100
    assert Alike(density=1).lines(7, 3) == 7
    assert Alike(density=1e-9).lines(7, 1) == 1
    assert Alike(density=0.5, correlation=0.5).union(2) == pytest.approx(0.625)  # a = b = 1/2: none 1/2 x 3/4
    assert Alike(density=0.5).union(10**6) == 1


def test_density_and_correlation_of_a_mask_are_over_all_pairs_of_tokens() -> None:
    random = np.random.default_rng(3)
    mask = random.random((9, 40)) < random.beta(0.4, 1.2, 40)
    found = alike_of(mask)
    pairs = [float(mask[i, j] and mask[k, j]) for j in range(40) for i in range(9) for k in range(9) if i != k]
    p = sum(map(float, mask.ravel())) / 360
    assert found.density == pytest.approx(p)
    assert found.correlation == pytest.approx((sum(pairs) / len(pairs) - p * p) / (p * (1 - p)))
    assert alike_of(np.ones((2, 3), bool)).correlation == 1
    with pytest.raises(InputError, match="says nothing of rows"):
        alike_of(np.zeros((2, 3), bool))


def test_many_tokens_of_a_beta_distribution_are_as_alike_as_was_asked() -> None:
    random = np.random.default_rng(5)
    asked = Alike(density=0.1, correlation=0.3)
    s = 1 / 0.3 - 1
    rates = random.beta(0.1 * s, 0.9 * s, 20_000)
    mask = random.random((16, 20_000)) < rates
    found = alike_of(mask)
    assert found.density == pytest.approx(0.1, abs=0.01)
    assert found.correlation == pytest.approx(0.3, abs=0.02)
    assert float(mask.any(0).mean()) == pytest.approx(asked.union(16), abs=0.01)


def layers(step: Workload) -> dict[str, MatrixOp]:
    return {op.name.removeprefix("model.decoder.layers."): op for op in step.matrix_ops if "layers." in op.name}


@pytest.mark.parametrize(
    ("form", "first", "second", "predictor"),
    [
        ("relu", (8, 128, 512), (8, 292, 128), {}),
        ("teal", (8, 73, 512), (8, 292, 128), {}),
        ("spark", (8, 112, 292), (8, 292, 128), {"first inputs": (8, 16, 512)}),
        ("lowrank", (8, 128, 292), (8, 292, 128), {"low rank in": (8, 128, 16), "low rank out": (8, 16, 512)}),
        ("sign", (8, 128, 292), (8, 292, 128), {"product of signs": (8, 128, 512)}),
    ],
)
def test_what_is_left_of_a_network(
    token: Workload, form: str, first: Any, second: Any, predictor: dict[str, Any]
) -> None:
    # Of 512 neurons eight tokens keep 512 (1 - 0.9^8) = 291.6, of 128 inputs 72.9.
    step = skip_rows(token, f"{form}@0.1")
    found = {name: (op.gemm.m, op.gemm.k, op.gemm.n) for name, op in layers(step).items()}
    for layer in range(3):
        assert (found[f"{layer}.fc1"], found[f"{layer}.fc2"]) == (first, second)
        for name, gemm in predictor.items():
            assert found[f"{layer}.fc1.{name}"] == gemm
    assert len(step.matrix_ops) == len(token.matrix_ops) + 3 * len(predictor)
    assert step.matrix_ops[-1] == token.matrix_ops[-1]  # the scores of the letters
    assert loads_workload(dumps_workload(step), "memory") == step


def test_a_product_of_low_rank_stands_for_the_inputs_that_are_left_out(token: Workload) -> None:
    step = skip_rows(token, "rsparse@0.1")
    found = {name: (op.gemm.m, op.gemm.k, op.gemm.n) for name, op in layers(step).items()}
    assert found["1.fc2"] == (8, 292, 128)
    assert (found["1.fc2.low rank in"], found["1.fc2.low rank out"]) == ((8, 512, 16), (8, 16, 128))
    assert len(step.matrix_ops) == len(token.matrix_ops) + 2 * 18
    # Both results are read and their sum is written, of eight tokens of 128; the next op reads that.
    (i,) = (i for i, op in enumerate(step.ops) if op.name.endswith("1.fc2") and getattr(op, "op", "") == "add the rest")
    op = step.ops[i]
    assert isinstance(op, VectorOp)
    assert (op.elements, op.read_bytes, op.write_bytes) == (1024, 2 * 4096, 4096)
    assert {step.ops[j].name.rpartition(".")[2] for j in step.after[i]} == {"fc2", "low rank out"}
    assert any(i in before for before in step.after[i + 1 :])
    held = {frozen.name: frozen.elements for frozen in step.frozen}
    assert held["model.decoder.layers.1.fc2.low rank in"] == 512 * 16


def test_experts_are_kept_whole_and_routed(token: Workload) -> None:
    """Of 512 neurons in experts of 13 eight tokens keep 512 (1 - 0.8^8) = 426, in 33 experts 429."""
    step = skip_rows(token, "blockffn@0.2")
    found = {name: (op.gemm.m, op.gemm.k, op.gemm.n) for name, op in layers(step).items()}
    assert (found["2.fc1"], found["2.fc2"]) == ((8, 128, 429), (8, 429, 128))
    assert found["2.fc1.router"] == (8, 128, 40)
    routed = [op for op in step.ops if isinstance(op, VectorOp) and op.op == "route"]
    scores, scaled = 8 * 40, 8 * 429
    assert [(op.elements, op.read_bytes, op.write_bytes, op.wide_write) for op in routed] == 3 * [
        (3 * scores + scaled, 4 * (scores + scaled), 4 * (scores + scaled), 4 * 33)
    ]
    i = next(i for i, op in enumerate(step.ops) if op.name.endswith("2.fc1"))
    assert any(getattr(step.ops[j], "op", "") == "route" for j in step.after[i])
    whole = skip_rows(token, "blockffn@0.99")
    assert layers(whole)["0.fc2"].gemm.k == 512


def test_what_has_not_changed_is_in_the_sums_that_are_kept(token: Workload) -> None:
    """A difference and a comparison of 512 inputs of eight tokens and of those before, which are read too; the changes
    packed, and what is new in the inputs kept; then sums are read and written."""
    step = skip_rows(token, "delta@0.1")
    found = [
        (op.op, op.elements, op.read_bytes, op.write_bytes, op.wide_write)
        for op in step.ops
        if isinstance(op, VectorOp) and op.name.endswith("1.fc2")
    ]
    assert found == [
        ("select rows", 8192, 4 * 2 * 4096, 4 * 2 * 8 * 292, 4 * 292),
        ("add to the sums", 1024, 4 * 2 * 1024, 4 * 1024, 0),
    ]
    assert len(step.matrix_ops) == len(token.matrix_ops)
    assert weft.skip_rows(weft.trace("vit_s@32", use="infer"), "delta@0.3").matrix_ops
    with pytest.raises(InputError, match="one token behind another, but a prompt's are read at once"):
        skip_rows(weft.trace("characters", use="prefill", context=8), "delta@0.5")


def test_an_order_of_ops_lists_rows_before_they_are_read(token: Workload) -> None:
    for form in ("relu", "teal", "spark", "lowrank", "sign"):
        step = skip_rows(token, f"{form}@0.2")
        for i, op in enumerate(step.ops):
            if isinstance(op, MatrixOp) and op.rows is not None:
                asked, lists = [i], []
                while asked:
                    for j in step.after[asked.pop()]:
                        lists += [step.ops[j].op] if isinstance(step.ops[j], VectorOp) else []  # type: ignore[union-attr]
                        asked.append(j)
                assert "select rows" in lists
        kept = [op for op in step.ops if not (isinstance(op, VectorOp) and op.op in ADDED)]
        assert [op.name for op in kept if getattr(op, "op", "") != "predictor"] == [op.name for op in token.ops]


ADDED = ("select rows", "mean and variance", "signs")


def test_finding_rows_is_never_free(token: Workload) -> None:
    def added(form: str) -> list[tuple[int, int, int, int]]:
        step = skip_rows(token, f"{form}@0.1")
        mine = [op for op in step.ops if isinstance(op, VectorOp) and op.op in ADDED]
        return [(op.elements, op.read_bytes, op.write_bytes, op.wide_write) for op in mine if op.name.endswith("fc2")]

    # Eight tokens of 512 neurons in float32: read, the kept ones written, and four bytes of place for each row.
    assert added("relu") == 3 * [(4096, 4 * 4096, 4 * 8 * 292, 4 * 292)]
    # Times 512 norms, in two operations.
    assert added("wina") == 3 * [(8192, 4 * (4096 + 512), 4 * 8 * 292, 4 * 292)]
    # Sums of scores and of their squares, then the threshold: mean + q deviation is a constant of the token.
    assert added("spark") == 3 * [(8192, 4 * 4096, 0, 0), (8192, 4 * 4096, 0, 4 * 292)]
    dense, skipped = (weft.simulate(weft.schedule(x, "tiny")) for x in (token, skip_rows(token, "relu@1")))
    assert skipped.cycles.vector > dense.cycles.vector


def test_a_step_is_that_of_the_smaller_products_and_moves_their_rows(token: Workload) -> None:
    step = skip_rows(token, "relu@0.1")
    plain = replace(step, ops=tuple(replace(op, rows=None) if isinstance(op, MatrixOp) else op for op in step.ops))
    found, same = (weft.simulate(weft.schedule(x, "hbm-asic")) for x in (step, plain))
    assert found.cycles == same.cycles
    assert found.counts == same.counts
    dense = weft.simulate(weft.schedule(token, "hbm-asic"))
    left = {r.op.name: r.counts.dram_read_bytes for r in found.ops if isinstance(r.op, MatrixOp)}
    whole = {r.op.name: r.counts.dram_read_bytes for r in dense.ops if isinstance(r.op, MatrixOp)}
    name = "model.decoder.layers.0.fc2"
    # 220 rows of 128 outputs, and 220 inputs of eight tokens, of two bytes each.
    assert whole[name] - left[name] == 2 * 220 * (128 + 8)


def test_a_record_says_what_each_layer_keeps(token: Workload, tmp_path: Path) -> None:
    masks = np.zeros((3, 64, 512), bool)
    for layer, mask in enumerate(masks):
        mask[:, : 100 * (layer + 1)] = True  # all tokens keep the same
    about = ABOUT | {"model": "characters", "data": "pydoc", "scheme": "dense", "said": "relu", "shape": ()}
    named = [(f"model.decoder.layers.{i}.fc2", "input", mask) for i, mask in enumerate(masks)]
    path = tmp_path / "rows.npz"
    Recorded.made(named, **about).save(path)  # type: ignore[arg-type]
    step = layers(skip_rows(token, f"relu@{path}"))
    assert [step[f"{i}.fc2"].gemm.k for i in range(3)] == [100, 200, 300]
    assert "measured" in str(step["0.fc2"].rows)
    with pytest.raises(InputError, match="recorded as relu, not as teal"):
        skip_rows(token, f"teal@{path}")
    Recorded.made(named[:1], **about).save(path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no input of layer 'model.decoder.layers.1.fc2': did you mean"):
        skip_rows(token, f"relu@{path}")
    Recorded.made([(named[0][0], "input", masks[0][:, :500])], **about).save(path)
    with pytest.raises(InputError, match="is 500 wide, but its layer has 512"):
        skip_rows(token, f"relu@{path}")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("teel@0.5", "form 'teel' is unknown: did you mean 'teal'"),
        ("teal", "not of the form teal@0.5"),
        ("teal@half", "not of the form teal@0.5"),
        ("teal@0.5:0.1:3", "not of the form teal@0.5"),
        ("teal@0", "density of rows must be above 0 to 1, not 0.0"),
        ("teal@1.5", "density of rows must be above 0 to 1, not 1.5"),
        ("teal@nan", "density of rows must be above 0 to 1, not nan"),
        ("teal@0.5:-1", "correlation of rows must be from 0 to 1, not -1.0"),
        ("cats@0.5", "cats looks at a gate, and the network of 'model.decoder.layers.0.fc2' has none"),
    ],
)
def test_what_is_no_form_is_refused(token: Workload, asked: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        skip_rows(token, asked)


def test_steps_that_leave_out_nothing_are_refused(token: Workload) -> None:
    with pytest.raises(InputError, match="are left out in use"):
        skip_rows(weft.trace("mobilenet_v2@32", batch=2), "relu@0.5")
    with pytest.raises(InputError, match="leaves out rows already"):
        skip_rows(skip_rows(token, "relu@0.5"), "teal@0.5")
    sparse = weft.sparsify(token, "bdwp", "2:8")
    with pytest.raises(InputError, match="so relu skips nothing"):
        skip_rows(sparse, "relu@0.5")
    op = next(op for op in sparse.matrix_ops if op.sparse is not None)
    rows = Rows(along="inputs", of=op.gemm.k, form="teal", alike=Alike(density=0.5))
    with pytest.raises(InputError, match="one of both"):
        replace(op, rows=rows)
    with pytest.raises(InputError, match="which keeps rows of 100, must be an integer from 1 to 100"):
        replace(op, sparse=None, rows=replace(rows, of=100))


def test_a_gate_decides_for_both_other_layers() -> None:
    step = skip_rows(weft.trace("llama2_7b", use="decode", context=8, batch=1), "chess@0.25")
    found = {op.name: op.gemm for op in step.matrix_ops if ".layers.3.mlp." in op.name}
    gate, up, down = (found[f"model.layers.3.mlp.{name}_proj"] for name in ("gate", "up", "down"))
    assert (gate.k, gate.n, up.k, up.n, down.k, down.n) == (4096, 11008, 4096, 2752, 2752, 4096)
    names = [getattr(op, "op", "") + op.name for op in step.ops if ".layers.3.mlp" in op.name]
    selects = names.index("select rowsmodel.layers.3.mlp.down_proj")
    assert (
        names.index("aten.silumodel.layers.3.mlp.act_fn") < selects < names.index("aten.mmmodel.layers.3.mlp.up_proj")
    )


def test_every_form_is_described() -> None:
    assert all(form.title and name == form.name for name, form in FORMS.items())
    assert AskedRows.read("spark@0.08:0.5").alike == Alike(density=0.08, correlation=0.5)
