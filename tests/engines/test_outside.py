"""An engine of somebody else's, that of the examples, through the suite and in a step beside the array."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import strategies as st

import weft
from weft.analysis.energy import energy
from weft.analysis.records import op_records
from weft.dataflow import engines
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.engines import evaluate, place, register_engine
from weft.dataflow.mapping import Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.outside import OutsideMapping
from weft.simulator.system import require_same, simulate_system
from weft.workloads.errors import InputError
from weft.workloads.step import MatrixOp

from ..dataflow.problems import machines, matrix_ops
from .conformance import Conformance

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_engine.py"


def example() -> ModuleType:
    described = importlib.util.spec_from_file_location("own_engine", EXAMPLE)
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    import sys

    sys.modules["own_engine"] = module  # dataclasses look there
    described.loader.exec_module(module)
    return module


OWN = example()


def forget() -> None:
    engines._OUTSIDE.pop("dot unit", None)
    engines.engines_of.cache_clear()


@pytest.fixture
def registered() -> Iterator[None]:
    register_engine("dot unit", OWN.DotUnit)
    yield
    forget()


class TestDotUnit(Conformance):
    kind = "outside"
    # It has no array that could be stepped on values, and takes no rules.
    test_every_implementation_has_the_same_bits_and_cycles = None  # type: ignore[assignment]
    test_a_placement_is_what_its_mapping_costs_and_no_rule_makes_it_faster = None  # type: ignore[assignment]

    @classmethod
    def setup_class(cls) -> None:
        register_engine("dot unit", OWN.DotUnit)

    @classmethod
    def teardown_class(cls) -> None:
        forget()

    def machines(self) -> st.SearchStrategy[AcceleratorSpec]:
        return machines()

    def ops(self, spec: AcceleratorSpec) -> st.SearchStrategy[MatrixOp]:
        return matrix_ops(spec).map(lambda op: replace(op, sparse=None))

    def mappings(self, spec: AcceleratorSpec, op: MatrixOp) -> st.SearchStrategy[Mapping]:
        return st.sampled_from(list(OWN.mappings(op)))


def test_a_step_runs_on_both_engines_at_both_levels(registered):
    step, machine = weft.trace("lstm_lm", batch=1), weft.machine("tiny")
    schedule = weft.schedule(step, machine)
    result = weft.simulate(schedule, witness=True)
    names = {placement.engine for placement in schedule.placements if placement is not None}

    assert names == {"STCE", "dot unit"}
    system = simulate_system(schedule)
    require_same(system, simulate_system(schedule, witness=True))
    assert set(system.engines) == {"STCE", "dot unit", "vector", "WUVE", "DRAM", "SORE"}
    assert system.engines["dot unit"].busy > 0
    assert energy(result).joules > 0
    forget()
    assert result.cycles.total < weft.simulate(weft.schedule(step, machine)).cycles.total


def test_its_records_leave_empty_what_it_has_not(registered):
    result = weft.simulate(weft.schedule(weft.trace("lstm_lm", batch=1), weft.machine("tiny")))
    own = [r for r, op in zip(op_records(result), result.ops, strict=True) if is_own(op.mapping)]

    assert own
    assert {(r["dataflow"], r["interleave"], r["order"]) for r in own} == {(None, None, "mn")}


def is_own(mapping: Mapping | None) -> bool:
    return mapping is not None and isinstance(mapping.array, OutsideMapping)


def test_a_sparse_product_stays_on_the_array_and_rules_are_for_the_array(registered):
    step, machine = weft.sparsify(weft.trace("resnet9", batch=1), "bdwp", "2:8"), weft.machine("tiny")
    sparse = next(op for op in step.matrix_ops if op.sparse)
    mapping = next(iter(OWN.mappings(sparse)))

    assert place(sparse, machine, Objective.CYCLES).engine == "STCE"
    with pytest.raises(InputError, match="'dot unit' is dense"):
        evaluate(sparse, machine, mapping)


def test_two_of_one_name_are_refused(registered):
    with pytest.raises(InputError, match="engine 'dot unit' exists already; choose another name"):
        weft.register_engine("dot unit", OWN.DotUnit)


def test_a_mapping_of_an_engine_that_is_not_there_is_refused():
    op = weft.trace("resnet9", batch=1).matrix_ops[0]

    with pytest.raises(InputError, match="'tiny' has no engine of kind 'outside'"):
        evaluate(op, weft.machine("tiny"), next(iter(OWN.mappings(op))))
