"""Joules of a step on many machines at once against `energy` of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.analysis.energy import energy, total_amounts
from weft.analysis.energy_table import load_table
from weft.analysis.explore.energy import Priced, joules
from weft.analysis.scheduling import evaluated, scheduled
from weft.analysis.tariff import prices, shared_prices, tariff, tariff_key
from weft.dataflow.accelerator import AcceleratorSpec, VectorSpec
from weft.dataflow.batch.amounts import ACTIONS
from weft.dataflow.batch.evaluate import Status, evaluate
from weft.dataflow.batch.front import front
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.workloads.errors import InputError
from weft.workloads.schemes.annotate import annotate
from weft.workloads.step import Workload

from ...dataflow.test_batch import (
    LARGE,
    MACHINES,
    SAT,
    TWO_ENGINES,
    few_layers,
    layers,
    levels_anywhere,
    machine,
    with_room,
    workload,
)
from ...examples_drawn import examples

CHIPS = ("asic-45nm", "asic-28nm", "asic-16nm", "asic-7nm")
FPGA = "fpga-ultrascale-plus"
COUNTED = replace(SAT, technology=FPGA)
"""Its blocks are in the table that ships."""
OBJECTIVES = st.sampled_from(("cycles", "thrift", "energy", "edp"))
RESNET9 = ("resnet9", 4, "bdwp", "2:8")
DENSE = ("resnet9", 4, "dense", "")


def one_by_one(step: Workload, specs: Sequence[AcceleratorSpec], objective: str) -> list[tuple[float | None, str]]:
    """Joules of each machine that runs the step and has a tariff, and why it has none."""
    found = list[tuple[float | None, str]]()
    for spec in specs:
        try:
            result = simulate(scheduled(step, spec, objective))
        except InputError:
            found.append((None, "does not run"))
            continue
        try:
            found.append((energy(result).joules, ""))
        except InputError as refused:
            found.append((None, str(refused)))
    return found


def check(step: Workload, specs: Sequence[AcceleratorSpec], objective: str) -> Priced:
    found = evaluated(step, specs, objective, amounts=True)
    priced = joules(found, specs)

    wanted = one_by_one(step, specs, objective)
    assert [None if np.isnan(j) else j for j in priced.joules.tolist()] == [j for j, _ in wanted]
    reasons = [r for r, status in zip(priced.reasons, found.status, strict=True) if status == Status.RUNS]
    assert reasons == [reason for _, reason in wanted if reason != "does not run"]
    return priced


def technology(spec: AcceleratorSpec, draw: Random) -> AcceleratorSpec:
    return replace(spec, technology=draw.choice(CHIPS))


@given(
    step=layers(),
    specs=st.lists(st.builds(technology, MACHINES, st.randoms(use_true_random=False)), min_size=1, max_size=4),
    objective=OBJECTIVES,
)
@settings(max_examples=examples(240), deadline=None)
def test_is_the_energy_of_each_machine(step, specs, objective):
    check(step, specs, objective)


@given(
    step=few_layers() | levels_anywhere(),
    specs=st.lists(st.builds(technology, TWO_ENGINES, st.randoms(use_true_random=False)), min_size=1, max_size=4),
    objective=OBJECTIVES,
)
@settings(max_examples=examples(150), deadline=None)
def test_is_the_energy_of_each_machine_with_two_engines(step, specs, objective):
    check(step, specs, objective)


@pytest.mark.parametrize("objective", ["cycles", "energy"])
def test_is_the_energy_of_an_fpga_with_two_engines(objective):
    """Its LUTs are in the table that ships."""
    spec, step = replace(load_spec("bnn-vu9p"), technology=FPGA), annotate(workload(DENSE), "bireal", None)

    priced = check(step, [spec, replace(spec, vector=VectorSpec(lanes=8)), COUNTED], objective)

    assert np.isfinite(priced.joules).all()


def test_an_engine_that_a_table_cannot_charge_takes_nothing():
    """Without a price of bits that are counted all products stand on the STCE, without one of signs all but those."""
    table, spec = load_table("asic-16nm"), load_spec("bnn-vu9p")
    step = annotate(workload(DENSE), "bireal", None)
    for name in ("popcount_bit", "sign_flip"):
        poor = replace(table, spare={known: price for known, price in table.spare.items() if known != name})
        try:
            made = simulate(schedule(step, spec, "energy", prices(spec, poor)))
        except InputError:
            wanted = (Status.UNPRICED, 0)
        else:
            wanted = (Status.RUNS, made.cycles.total)

        found = evaluate(step, [spec], "energy", lambda machine, poor=poor: prices(machine, poor))

        assert (found.status[0], found.cycles[0]) == wanted
        assert (wanted[0] == Status.RUNS) == (name == "popcount_bit")


@pytest.mark.parametrize("objective", ["thrift", "energy", "edp"])
def test_is_the_energy_of_traced_steps(objective):
    draw = Random(0)
    priced = check(workload(RESNET9), [technology(machine(Random(seed)), draw) for seed in range(60)], objective)

    assert np.count_nonzero(np.isfinite(priced.joules)) > 10


def fabric(draw: Random) -> AcceleratorSpec:
    """Machines on an FPGA whose blocks are counted, with other buffers, registers of memory and lanes beside them."""
    buffers = with_room(COUNTED, draw).buffers
    dram = replace(SAT.dram, bytes_per_second=draw.choice((10, 77, 200)) * 10**9)
    wuve = replace(SAT.wuve, pregenerate=draw.random() < 0.5)
    return replace(COUNTED, buffers=buffers, dram=dram, wuve=wuve, vector=VectorSpec(lanes=draw.randint(1, 200)))


@given(step=layers(), draw=st.randoms(use_true_random=False), objective=OBJECTIVES)
@settings(max_examples=examples(60), deadline=None)
def test_is_the_energy_on_an_fpga(step, draw, objective):
    check(step, [fabric(draw) for _ in range(6)], objective)


def test_a_machine_without_a_tariff_has_a_reason():
    uncounted = replace(COUNTED, pe=replace(COUNTED.pe, add_latency=5))
    nowhere, nobody = replace(SAT, technology="asic-3nm"), replace(SAT, technology="tea")

    priced = check(workload(RESNET9), [SAT, uncounted, COUNTED, nowhere, nobody], "cycles")

    assert np.isnan(priced.joules).tolist() == [False, True, False, True, True]
    assert "weft area --target xcup" in priced.reasons[1]
    assert "tea" in priced.reasons[4]


def test_amounts_are_those_of_energy():
    step = workload(RESNET9)
    found = evaluate(step, [SAT, COUNTED], amounts=True)

    assert found.amounts is not None
    for spec, row in zip((SAT, COUNTED), found.amounts, strict=True):
        table = load_table(spec.technology)
        amounts = total_amounts(simulate(schedule(step, spec)), table)
        priced = tariff(table, spec)
        assert {a: n for a, n in amounts.items() if a in priced} == {
            a: n for a, n in zip(ACTIONS, row.tolist(), strict=True) if a in priced and n
        }


def test_an_objective_with_prices_needs_a_tariff():
    step, uncounted = workload(RESNET9), replace(COUNTED, pe=replace(COUNTED.pe, add_latency=5))

    found = evaluated(step, [SAT, uncounted], "edp")

    assert found.status.tolist() == [Status.RUNS, Status.UNPRICED]
    best = front(step, [uncounted, SAT, SAT], [1.0, 2.0, 2.0], "edp", shared_prices())
    assert best.best.tolist() == [1, 2]
    assert best.status.tolist() == [Status.UNPRICED, Status.RUNS, Status.RUNS]
    assert best.cycles[1] == simulate(scheduled(step, SAT, "edp")).cycles.total


def test_what_is_not_asked_for_is_not_there():
    step = workload(RESNET9)

    assert evaluate(step, [SAT]).amounts is None
    with pytest.raises(InputError, match="amounts=True"):
        joules(evaluate(step, [SAT]), [SAT])
    with pytest.raises(InputError, match=r"2 machines need.*those of 1"):
        joules(evaluate(step, [SAT], amounts=True), [SAT, SAT])


@given(one=MACHINES, other=MACHINES, name=st.sampled_from((*CHIPS, FPGA)), draw=st.randoms(use_true_random=False))
@settings(max_examples=examples(150), deadline=None)
def test_machines_of_equal_keys_have_equal_tariffs(one, other, name, draw):
    """Mixed machines, so that keys are equal now and then."""
    table = load_table(name)
    fields = ("clock_hz", "array", "pe", "buffers", "sore", "wuve", "vector", "dram")
    mixed = replace(COUNTED, **{field: getattr(draw.choice((one, COUNTED)), field) for field in fields})

    for spec in (other, mixed, replace(mixed, buffers=one.buffers, vector=one.vector)):
        if tariff_key(table, spec) == tariff_key(table, COUNTED):
            assert dict(tariff(table, spec)) == dict(tariff(table, COUNTED))


@pytest.mark.slow
@pytest.mark.parametrize("asked", LARGE, ids=str)
@pytest.mark.parametrize("objective", ["cycles", "thrift", "energy", "edp"])
def test_thousands_are_the_energy_of_each(objective, asked):
    draw = Random(1)
    priced = check(workload(asked), [technology(machine(Random(seed)), draw) for seed in range(500)], objective)

    assert np.count_nonzero(np.isfinite(priced.joules)) > 100
