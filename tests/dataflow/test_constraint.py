"""Mappings that users restrict: the search against all mappings one by one, rules by layer, and what is refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import weft
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.constraint import Constraint, MappingFile, parse_mapping
from weft.dataflow.engines import evaluate, place
from weft.dataflow.mapping import COMPACT, Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.placement import Placement
from weft.dataflow.stce.mapping import ArrayMapping, Dataflow
from weft.simulator.memory import memory_need
from weft.simulator.system import simulate_system
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Workload

from ..examples_drawn import examples
from .problems import machines, make_op, matrix_ops

LISTS = {"interleave": (1, 2, 3, 4), "pairs": (1, 2, 3), "tile_rows": (1, 5, 8, 12, "all"), "tile_cols": (2, 7, "all")}


@st.composite
def constraints(draw: st.DrawFn) -> Constraint:
    """Any that does not contradict itself."""
    single = {
        "dataflow": list(Dataflow),
        "n2s": ["a", "b"],
        "resident": [True, False],
        "order": ["mn", "nm"],
        "compact": list(COMPACT),
    }
    given = {name: draw(st.none() | st.sampled_from(values)) for name, values in single.items()}
    for name, values in LISTS.items():
        several = st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True).map(tuple)
        given[name] = draw(st.none() | st.sampled_from(values) | several)
    try:
        return Constraint(**given)
    except InputError:
        assume(False)
        raise


def listed(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def allowed(mapping: Mapping, wanted: Constraint, dense: bool) -> bool:
    """By the words of its documentation."""
    array, m = mapping.array, mapping
    has = {
        "dataflow": array.dataflow,
        "interleave": array.interleave,
        "n2s": m.n2s,
        "resident": m.resident,
        "order": m.order,
        "compact": m.compact,
        "tile_rows": m.tile_rows,
        "tile_cols": m.tile_cols,
    }
    whole = {"tile_rows": m.gemm.m, "tile_cols": m.gemm.n}
    if dense and array.dataflow is Dataflow.WS and wanted.pairs and array.pattern.keep not in listed(wanted.pairs):
        return False
    return all(
        have in [whole[name] if value == "all" else value for value in listed(asked)]
        for name, have in has.items()
        if (asked := getattr(wanted, name)) is not None
    )


def extents(unit: int, size: int, asked: object) -> list[int]:
    """Those of the space, or those asked for that there are."""
    if asked is None:
        steps = sorted({2**i for i in range(8)} | {3 * 2**i for i in range(7)})
        return [s * unit for s in steps if s * unit < size] + [size]
    return [e for e in {size if e == "all" else e for e in listed(asked)} if e <= size]


def every(op: MatrixOp, spec: AcceleratorSpec, wanted: Constraint) -> Iterator[Placement]:
    """All that are allowed, one by one."""
    asked = {
        "n2s": ("a", "b"),
        "dataflow": tuple(Dataflow),
        "order": ("mn", "nm"),
        "resident": (True, False),
        "interleave": range(1, spec.pe.accumulators + 1),
        "compact": COMPACT if op.sparse else ("remade",),
    }
    of = {
        name: [v for v in values if getattr(wanted, name) is None or v in listed(getattr(wanted, name))]
        for name, values in asked.items()
    }
    held_in_ws = range(1, spec.pe.weight_pairs + 1)
    for n2s, dataflow, held, interleave in itertools.product(of["n2s"], of["dataflow"], held_in_ws, of["interleave"]):
        ws, gemm = dataflow is Dataflow.WS, op.gemm if n2s == "b" else op.gemm.transposed
        usual = held == 1 or (ws and held in ((2, 4, 8, 16, 32) if wanted.pairs is None else listed(wanted.pairs)))
        if (held > 1 if op.sparse else not usual) or (op.sparse and op.sparse.operand != n2s):
            continue
        pattern = op.sparse.pattern if op.sparse else NMPattern(keep=held, group=held)
        array = ArrayMapping(dataflow=dataflow, pattern=pattern, interleave=interleave)
        rows = extents(interleave if ws else spec.array.rows, gemm.m, wanted.tile_rows)
        cols = extents(spec.array.cols * (1 if ws else interleave), gemm.n, wanted.tile_cols)
        for r, c, resident, order, compact in itertools.product(rows, cols, of["resident"], of["order"], of["compact"]):
            try:
                mapping = Mapping(
                    array=array,
                    gemm=gemm,
                    n2s=n2s,
                    tile_rows=r,
                    tile_cols=c,
                    resident=resident,
                    order=order,
                    compact=compact,
                )
                if allowed(mapping, wanted, op.sparse is None):
                    yield evaluate(op, spec, mapping)
            except InputError:
                continue


@settings(max_examples=12)
@given(st.data())
def test_the_best_that_is_allowed_is_found(data: st.DataObject) -> None:
    spec = data.draw(machines())
    op, wanted = data.draw(matrix_ops(spec, size=24)), data.draw(constraints())
    placements = list(every(op, spec, wanted))
    if not placements:
        with pytest.raises(InputError, match=r"cannot have|fits the buffers"):
            place(op, spec, Objective.CYCLES, wanted=wanted)
        return

    best = place(op, spec, Objective.CYCLES, wanted=wanted)
    assert allowed(best.mapping, wanted, op.sparse is None)
    assert best.cycles.total == min(p.cycles.total for p in placements)
    thrifty = place(op, spec, Objective.THRIFT, wanted=wanted)
    assert allowed(thrifty.mapping, wanted, op.sparse is None)
    assert thrifty.counts.dram_bytes <= best.counts.dram_bytes


@settings(max_examples=examples(25))
@given(st.data())
def test_what_is_said_to_be_possible_is(data: st.DataObject) -> None:
    """The refusal names one field whose value lets the others stand."""
    spec = data.draw(machines())
    op, wanted = data.draw(matrix_ops(spec, size=24)), data.draw(constraints())
    try:
        place(op, spec, Objective.CYCLES, wanted=wanted)
        assume(False)
    except InputError as error:
        found = re.search(r"possible with (\w+) = (\w+)$", str(error))
        assume(found is not None)
        assert found is not None
    name, text = found[1], found[2]
    value = {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)
    changed = replace(wanted, **{name: value})
    assert allowed(place(op, spec, Objective.CYCLES, wanted=changed).mapping, changed, op.sparse is None)


def test_the_empty_constraint_is_no_constraint() -> None:
    spec, op = load_spec("tiny"), make_op(Gemm(m=100, k=64, n=48))
    for objective in (Objective.CYCLES, Objective.THRIFT):
        assert place(op, spec, objective, wanted=Constraint()).mapping == place(op, spec, objective).mapping


# --- rules by layer


def step() -> Workload:
    return Workload(
        model="m",
        batch=1,
        ops=tuple(
            replace(make_op(Gemm(m=64, k=32, n=48)), name=name, pass_=pass_, parameter=f"{name}.weight")
            for name in ("body.0", "body.1", "head")
            for pass_ in (Pass.FF, Pass.BP, Pass.WU)
        ),
    )


RULES = """
[[op]]
layers = "body.*"
dataflow = "ws"
interleave = [1, 2]

[[op]]
layers = "body.1.weight"
pass = "WU"
dataflow = "os"
tile_rows = "all"
"""


def rules(text: str) -> MappingFile:
    return parse_mapping(text, "rules.toml")


def test_the_last_rule_that_gives_a_field_holds_for_it() -> None:
    plan = weft.schedule(step(), "tiny", mapping=rules(RULES))
    asked = [None if p is None or p.constrained is None else p.constrained.asked for p in plan.placements]
    assert asked == [
        *["dataflow = ws, interleave = 1 or 2"] * 5,
        "dataflow = os, interleave = 1 or 2, tile_rows = all",
        *[None] * 3,
    ]
    free = weft.schedule(step(), "tiny")
    for placement, without in zip(plan.placements, free.placements, strict=True):
        assert placement is not None and without is not None
        if placement.constrained is None:
            assert placement == without
        else:
            assert placement.constrained.free_cycles == without.cycles.total
            assert placement.constrained.free_dram_bytes == without.counts.dram_bytes


def test_every_level_runs_what_is_asked_for() -> None:
    """Forms that the free search never takes, stepped, equal their closed form; the system takes them too."""
    sparse = NMOperand(operand="b", pattern=NMPattern(keep=2, group=4), online=True)
    op = replace(make_op(Gemm(m=64, k=32, n=48), sparse=sparse), name="a")
    for order, resident, compact in itertools.product(("mn", "nm"), ("true", "false"), COMPACT):
        if compact == "buffer" and (resident, order) != ("false", "nm"):
            continue
        text = (
            f'[[op]]\norder = "{order}"\nresident = {resident}\ncompact = "{compact}"\ntile_rows = 16\ntile_cols = 8\n'
        )
        plan = weft.schedule(Workload(model="m", batch=1, ops=(op,)), "tiny", mapping=rules(text))
        result = weft.simulate(plan)
        assert result.ops[0].mapping is not None and result.ops[0].mapping.compact == compact
        assert simulate_system(plan).cycles > 0
        assert memory_need(plan.workload, plan.spec).total > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "key 'op' is missing"),
        ("op = []", "holds no rule"),
        ("[[op]]\nlayers = 'head'\n", "a mapping rule for 'head' asks for nothing: give it one of dataflow"),
        ("[[op]]\nlayers = 'heat'\norder = 'mn'\n", "op.0: layers = 'heat' matches no product: did you mean 'head'"),
        ("[[op]]\nordr = 'mn'\n", "unknown key 'op.0.ordr'; did you mean 'order'"),
        ("[[op]]\npass = 'OPT'\norder = 'mn'\n", "pass of a mapping rule must be FF, BP or WU"),
        ("[[op]]\ninterleave = []\n", "interleave of a mapping rule allows no value"),
        ("[[op]]\ninterleave = 99\n", "the nearest valid value is 64"),
        ("[[op]]\ntile_rows = 0\n", "the nearest valid value is 1"),
        ("[[op]]\ncompact = 'buffer'\norder = 'mn'\n", "needs resident = false and order = 'nm'"),
        ("[[op]]\ncompact = 'buffer'\n\n[[op]]\norder = 'mn'\n", "the rules for 'body.0' contradict each other"),
        ("[[op]]\ninterleave = 64\n", "'body.0' in FF cannot have interleave = 64: interleave must be .*possible with"),
        ("[[op]]\ntile_rows = 1000\n", "tile_rows = 1000 is more than the product 64 x 32 x 48 has; possible with"),
        ("[[op]]\ncompact = 'memory'\n", "SORE reduces no operand of it.*possible with compact = remade"),
        ("[[op]]\ndataflow = 'ws'\npairs = 8\n", "ws with pattern 8:8 holds 8 pairs a PE.*possible with pairs = 4"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        weft.schedule(step(), "tiny", mapping=rules(text))
    assert str(caught.value).startswith("rules.toml: ")


def test_a_sparse_operand_flows_north_to_south() -> None:
    work = weft.sparsify(step(), "bdwp", "2:4")
    with pytest.raises(InputError, match=r"its operand b is 2:4 and flows N2S; possible with n2s = b"):
        weft.schedule(work, "tiny", mapping=rules("[[op]]\npass = 'FF'\nn2s = 'a'\n"))


def test_a_folder_of_results_keeps_its_rules(tmp_path: Path) -> None:
    from weft.analysis.save import save_run
    from weft.analysis.saved import saved_run

    path = tmp_path / "rules.toml"
    path.write_bytes(b"\xef\xbb\xbf" + RULES.replace("\n", "\r\n").encode())
    result = weft.simulate(weft.schedule(step(), "tiny", mapping=path))
    save_run(result, tmp_path / "run", "weft run")
    again = saved_run(tmp_path / "run").simulated()
    assert [r.constrained for r in again.ops] == [r.constrained for r in result.ops]  # type: ignore[union-attr]
    assert (tmp_path / "run" / "mapping.toml").read_text() == RULES
