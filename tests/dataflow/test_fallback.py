"""Layers that N:M does not help run dense: never slower than the dense step, and never slower than any other choice."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.analysis.scheduling import scheduled
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.actions import Component
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import place
from weft.dataflow.fallback import DOES_NOT_HELP
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import Schedule, schedule
from weft.simulator.step import simulate
from weft.simulator.system import step_time
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes.annotate import annotate, weight_copies
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, UpdateOp, Workload
from weft.workloads.update_rule import UPDATE_RULES

from ..examples_drawn import examples
from .problems import machines, step_of_layers

SAT = load_spec("sat-vcu1525")
TWO_OF_EIGHT = NMPattern(keep=2, group=8)


def cycles(workload: Workload, spec: AcceleratorSpec, objective: Objective = Objective.CYCLES) -> int:
    return simulate(schedule(workload, spec, objective)).cycles.total


def test_a_head_with_a_narrow_output_runs_dense_and_says_why():
    """32,768 x 8 x 2: as pairs its weight flows into 2 of 32 columns; dense, the roles change places."""
    dense = step_of_layers((32768, 8, 2))
    sparse = annotate(dense, "srste", TWO_OF_EIGHT)
    plan = schedule(sparse, SAT)
    (ff,) = (op for op in plan.as_run.matrix_ops if op.pass_ is Pass.FF)

    assert ff.sparse is None
    assert ff.kept_dense == f"{DOES_NOT_HELP}: narrow output, 2 columns on 32"
    assert plan.workload is sparse, "what was asked for is kept"
    assert simulate(plan).cycles == simulate(schedule(dense, SAT)).cycles
    (update,) = (op for op in plan.as_run.ops if isinstance(op, UpdateOp))
    assert (update.dense_copy, update.copies) == (True, ())


def test_a_layer_that_gains_keeps_its_patterns():
    plan = schedule(annotate(step_of_layers((512, 512, 512)), "bdwp", TWO_OF_EIGHT), SAT)

    assert plan.fallback is None
    assert plan.as_run is plan.workload


def test_a_pass_may_run_dense_while_another_is_sparse():
    """FF of a layer with few inputs has a contraction of one group; BP a long one."""
    plan = schedule(annotate(step_of_layers((4096, 8, 512)), "bdwp", TWO_OF_EIGHT), SAT)
    found = {op.pass_: op.sparse is not None for op in plan.as_run.matrix_ops}
    (update,) = (op for op in plan.as_run.ops if isinstance(op, UpdateOp))

    assert found == {Pass.FF: False, Pass.BP: True, Pass.WU: False}
    assert update.dense_copy and len(update.copies) == 1


def test_the_system_level_runs_the_same_ops():
    sparse = annotate(step_of_layers((32768, 8, 2)), "srste", TWO_OF_EIGHT)
    assert step_time(schedule(sparse, SAT)) == step_time(schedule(step_of_layers((32768, 8, 2)), SAT))


SCHEMES = st.sampled_from(("bdwp", "bdwp-x", "srste", "sdgp", "sdwp", "transposable-mvue"))
SIZES = st.tuples(*(st.sampled_from((1, 2, 5, 8, 16, 33, 64, 200)) for _ in range(3)))


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_no_step_is_slower_than_the_same_step_dense(data):
    """On any machine, under any scheme, for either objective of time, at both levels' ops."""
    spec = data.draw(st.sampled_from([load_spec(name) for name in ("sat-vcu1525", "tiny", "sat-ecp5")]) | machines())
    dense = step_of_layers(
        *data.draw(st.lists(SIZES, min_size=1, max_size=3)), optimizer=data.draw(st.sampled_from(tuple(UPDATE_RULES)))
    )
    objective = data.draw(st.sampled_from((Objective.CYCLES, Objective.THRIFT)))
    group = min(8, spec.pe.max_group)
    pattern = NMPattern(keep=max(1, group // data.draw(st.sampled_from((2, 4)))), group=group)
    try:
        sparse = annotate(dense, data.draw(SCHEMES), pattern)
        found, least = cycles(sparse, spec, objective), cycles(dense, spec, objective)
    except InputError:
        assume(False)

    assert found <= least


@settings(max_examples=examples(40), deadline=None)
@given(st.data())
def test_no_other_choice_of_dense_passes_is_faster(data):
    """The witness: every set of dense passes of one layer, written into the workload by hand and simulated."""
    spec = data.draw(st.sampled_from([load_spec(name) for name in ("sat-vcu1525", "tiny", "sat-ecp5")]))
    sparse = annotate(step_of_layers(data.draw(SIZES)), data.draw(SCHEMES), TWO_OF_EIGHT)
    passes = [op.pass_ for op in sparse.matrix_ops if op.sparse]
    every = chain.from_iterable(combinations(passes, n) for n in range(len(passes) + 1))
    fixed = [_without(sparse, dense) for dense in every]
    held = [(simulate(_as_it_stands(w, spec)).cycles.total, w) for w in fixed]

    assert cycles(sparse, spec) == min(total for total, _ in held)


def _without(workload: Workload, dense: tuple[Pass, ...]) -> Workload:
    ops = [replace(op, sparse=None) if isinstance(op, MatrixOp) and op.pass_ in dense else op for op in workload.ops]
    copies = weight_copies(op for op in ops if isinstance(op, MatrixOp))
    return replace(
        workload,
        ops=tuple(
            replace(op, dense_copy=copies[op.name][0], copies=copies[op.name][1]) if isinstance(op, UpdateOp) else op
            for op in ops
        ),
    )


def _as_it_stands(workload: Workload, spec: AcceleratorSpec) -> Schedule:
    """A schedule in which nothing falls back."""
    placements = tuple(place(op, spec, Objective.CYCLES) if isinstance(op, MatrixOp) else None for op in workload.ops)
    return Schedule(workload=workload, spec=spec, objective=Objective.CYCLES, placements=placements)


@pytest.mark.parametrize("machine", ["sat-vcu1525", "tiny"])
@pytest.mark.parametrize("sizes", [(32768, 8, 2), (64, 8, 8), (512, 512, 512)])
def test_under_the_objective_energy_the_products_take_no_more_than_dense(machine, sizes):
    spec, dense = load_spec(machine), step_of_layers(sizes)
    table = load_table(spec.technology)

    def products(workload: Workload) -> int:
        found = simulate(scheduled(workload, spec, "energy"))
        each = energy(found, table).op_parts
        of_products = [parts for parts, op in zip(each, found.ops, strict=True) if isinstance(op.op, MatrixOp)]
        # The objective weighs actions, and what an FPGA draws whatever it does; not the leakage of a chip.
        left_out = () if table.fabric else (Component.STATIC,)
        return sum(zj for parts in of_products for part, zj in parts.items() if part not in left_out)

    assert products(annotate(dense, "bdwp", TWO_OF_EIGHT)) <= products(dense)
