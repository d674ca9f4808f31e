"""DRAM traffic by kind of tensor: its parts add up, and small steps by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft import fuse, trace
from weft.analysis.dram_tensors import TensorKind, dram_tensors, moved_by_op, tensor_records
from weft.analysis.energy import energy
from weft.dataflow.actions import Component
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.result import SimResult
from weft.simulator.step import simulate
from weft.workloads.catalog import open_model
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.phase import Use
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import UpdateOp, Workload

from .conftest import matrix, run, step


def moved(result: SimResult, pass_: Pass, kind: TensorKind) -> tuple[int, int]:
    rows = [row for row in dram_tensors(result) if (row.pass_, row.kind) == (pass_, kind)]
    return sum(row.read_bytes for row in rows), sum(row.write_bytes for row in rows)


def require_whole(result: SimResult) -> None:
    for r, kinds in zip(result.ops, moved_by_op(result), strict=True):
        assert sum(read for read, _ in kinds.values()) == r.counts.dram_read_bytes, r.op.name
        assert sum(write for _, write in kinds.values()) == r.counts.dram_write_bytes, r.op.name
    rows, counts = dram_tensors(result), result.counts
    assert sum(row.read_bytes for row in rows) == counts.dram_read_bytes
    assert sum(row.write_bytes for row in rows) == counts.dram_write_bytes


@given(
    m=st.integers(1, 300),
    k=st.integers(1, 300),
    n=st.integers(1, 300),
    groups=st.integers(1, 3),
    pass_=st.sampled_from([Pass.FF, Pass.BP, Pass.WU]),
    scheme=st.sampled_from(["dense", "srste", "sdgp", "bdwp"]),
)
def test_operands_add_up_to_what_a_product_moves(m: int, k: int, n: int, groups: int, pass_: Pass, scheme: str) -> None:
    work = Workload(model="one", batch=1, ops=(matrix("fc", pass_, Gemm(m=m, k=k, n=n, groups=groups)),))
    annotated = annotate(work, scheme, NMPattern.parse("2:8"))
    require_whole(simulate(schedule(annotated, load_spec("tiny"))))


@pytest.mark.parametrize("scheme", ["dense", "srste", "sdgp", "bdwp"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_parts_of_a_step_add_up(scheme: str, optimizer: str) -> None:
    result = run(scheme, workload=step(optimizer))
    require_whole(result)
    report = energy(result)
    spent = sum(row["energy_j"] for row in tensor_records(result, report))
    assert spent == pytest.approx(report.by_component[Component.DRAM], rel=1e-9)


def test_a_product_that_fits_moves_each_operand_once() -> None:
    work = Workload(model="one", batch=1, ops=(matrix("fc", Pass.FF, Gemm(m=2, k=8, n=3)),))
    result = simulate(schedule(work, load_spec("tiny")))

    assert moved(result, Pass.FF, TensorKind.WEIGHT) == (2 * 8 * 3, 0)
    assert moved(result, Pass.FF, TensorKind.ACTIVATION) == (2 * 2 * 8, 2 * 2 * 3)


def test_an_update_moves_masters_state_and_gradient() -> None:
    work = Workload(
        model="one",
        batch=1,
        optimizer="adam",
        ops=(matrix("w", Pass.WU, Gemm(m=2, k=8, n=3)), UpdateOp(name="w.weight", elements=6)),
    )
    result = simulate(schedule(work, load_spec("tiny")))

    # Master and two moments of 4 bytes each way; the gradient comes and the weight goes in 2.
    assert moved(result, Pass.OPT, TensorKind.MASTER) == (3 * 4 * 6, 3 * 4 * 6)
    assert moved(result, Pass.OPT, TensorKind.WEIGHT_GRADIENT) == (12, 0)
    assert moved(result, Pass.OPT, TensorKind.WEIGHT) == (0, 12)
    assert moved(result, Pass.WU, TensorKind.WEIGHT_GRADIENT) == (0, 12)


def perceptron() -> Workload:
    net = torch.nn.Sequential(torch.nn.Linear(16, 24), torch.nn.ReLU(), torch.nn.Linear(24, 8))
    return trace(net, torch.zeros(4, 16))


def test_vector_work_moves_the_tensors_of_the_trace() -> None:
    result = simulate(schedule(perceptron(), load_spec("tiny")))
    require_whole(result)
    relu = next(i for i, r in enumerate(result.ops) if r.op.kind == "vector" and "relu" in r.op.op)
    kinds = moved_by_op(result)[relu]

    assert kinds == {TensorKind.ACTIVATION: (2 * 4 * 24, 2 * 4 * 24)}
    behind = next(r for r in result.ops if r.op.kind == "vector" and "threshold_backward" in r.op.op)
    found = moved_by_op(result)[result.ops.index(behind)]
    assert found == {TensorKind.ACTIVATION: (2 * 4 * 24, 0), TensorKind.GRADIENT: (2 * 4 * 24, 2 * 4 * 24)}


@pytest.mark.parametrize("scheme", ["dense", "bdwp"])
def test_fused_vector_work_adds_up(scheme: str) -> None:
    fused = annotate(fuse(perceptron(), "full"), scheme, NMPattern.parse("2:8"))
    require_whole(simulate(schedule(fused, load_spec("tiny"))))


def test_without_a_trace_vector_work_is_not_told_apart() -> None:
    result = run("dense")
    assert moved(result, Pass.FF, TensorKind.UNTOLD)[0] == sum(
        r.counts.dram_read_bytes for r in result.ops if r.op.kind == "vector"
    )
    told = replace(result, ops=tuple(r for r in result.ops if r.op.kind != "vector"))
    assert all(row.kind is not TensorKind.UNTOLD for row in dram_tensors(told))


SMALL = """{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": %d, "vocab_size": 80,
"max_position_embeddings": 64}"""


@pytest.mark.parametrize(("heads", "use"), [(4, "decode"), (1, "decode"), (4, "prefill")])
def test_keys_and_values_are_told_apart(tmp_path: Path, heads: int, use: Use) -> None:
    file = tmp_path / "config.json"
    file.write_text(SMALL % heads)
    result = simulate(schedule(open_model(str(file), use=use, context=13, batch=2), load_spec("tiny")))
    require_whole(result)
    found = {i: kinds[TensorKind.CACHE] for i, kinds in enumerate(moved_by_op(result)) if TensorKind.CACHE in kinds}
    words = {i: result.ops[i].op.op for i in found}
    tokens, size = 14 if use == "decode" else 13, 2 * 2 * 16

    # A layer appends to keys and to values, then reads either in a product: of 16 elements a head, of 2 bytes.
    assert list(words.values()).count("aten.copy_") == 2
    products = [found[i] for i, word in words.items() if word == "aten.bmm"]
    times = 4 if use == "prefill" else 1  # the prompt's scores are so many rows that they are cut
    assert [write for _, write in products] == [0, 0]
    assert all(read % (tokens * size * 4) == 0 and read // (tokens * size * 4) in (1, times) for read, _ in products)
    # One head is repeated for the four that ask.
    repeated = [found[i] for i, word in words.items() if word == "aten.clone"]
    assert repeated == ([] if heads == 4 else [(tokens * size, 4 * tokens * size)] * 2)
