"""Rows opened again and whole lines: what the DRAM model spends on short pieces, over a step that is added up twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

import weft
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.dataflow.actions import BEYOND, Actions, Component
from weft.dataflow.problem import RATE
from weft.dataflow.schedule import Schedule
from weft.simulator.dram import activate_pj, run_memory, steady
from weft.simulator.dram_requests import lines_of, nest
from weft.simulator.dram_spec import IddPower, MemorySpec, load_memory
from weft.simulator.row_misses import row_misses
from weft.simulator.step import simulate
from weft.simulator.system import simulate_system
from weft.simulator.tasks import product_transfers
from weft.simulator.transfers import OneRate, by_shape
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import Role
from weft.workloads.step import Workload

from ..dataflow.problems import make_op

SAT = weft.machine("sat-vcu1525")


def _plan(*gemms: Gemm, spec: weft.AcceleratorSpec = SAT) -> Schedule:
    """Backward products: of the weights a tile takes parts of rows."""
    ops = []
    for i, gemm in enumerate(gemms):
        op = replace(make_op(gemm, pass_=Pass.BP), name=f"fc{i}")
        a, b = replace(op.a, role=Role.GRADIENT), replace(op.b, role=Role.WEIGHT)
        ops.append(replace(op, a=a, b=b))
    return weft.schedule(Workload(model="products", batch=1, ops=tuple(ops)), spec)


def _pj_per_bit(memory: MemorySpec, piece: int, pitch: int) -> float:
    """Of pieces that are really read, by the devices' currents."""
    pieces = 1_280_000 // max(piece, 64)
    line = nest(0, (pieces,), (pitch,), piece, memory.organization.line_bytes) % memory.organization.lines
    return run_memory(memory, lines_of(line, False), "channel-hashed").energy_pj / (8 * pieces * piece)


@pytest.mark.parametrize("kind", ["ddr4-2400-x4", "ddr4-2400-x8", "hbm2"])
def test_a_row_beyond_a_stream_is_what_short_pieces_cost_more(kind: str) -> None:
    """To half a per cent where pieces come as fast as a stream; where the memory waits, standby comes on top."""
    whole = load_memory(kind)
    memory = replace(whole, organization=replace(whole.organization, channels=1))
    assert isinstance(memory.power, IddPower)
    stream, base = steady(memory, 1, 1, False, "channel-hashed"), _pj_per_bit(memory, 64, 64)
    for piece, pitch in ((64, 4160), (128, 8256), (1024, 8192), (4096, 69632)):
        found = steady(memory, piece, pitch, False, "channel-hashed")
        rows = float(found.activates - stream.activates) * activate_pj(memory, memory.power) / 8
        ours, theirs = base * float(found.moved) + rows, _pj_per_bit(memory, piece, pitch)

        assert base < ours <= 1.005 * theirs
        if found.share > 0.98 * stream.share:
            assert ours == pytest.approx(theirs, rel=0.005)


@pytest.mark.parametrize("kind", ["ddr4-2400-x4", "ddr4-2400-x8", "hbm2"])
def test_the_tables_row_is_that_of_the_memorys_currents(kind: str) -> None:
    memory = load_memory(kind)
    assert isinstance(memory.power, IddPower)
    figure = load_table("asic-16nm").dram_of(kind).activate
    assert figure is not None
    assert figure.value == pytest.approx(activate_pj(memory, memory.power), rel=1e-6)


def test_transfers_of_products_add_up_to_their_bytes() -> None:
    """At one rate a transfer takes as long as it has bytes: each op's are those that the step level counts."""
    plan = _plan(Gemm(m=700, k=96, n=130), Gemm(m=64, k=2000, n=512), Gemm(m=9, k=33, n=65, groups=3))
    step = simulate(plan)

    assert product_transfers(plan, OneRate()) == [RATE * r.counts.dram_bytes for r in step.ops]
    assert all(found == (0, 0, 0) for found in row_misses(plan, OneRate()))


def test_what_lies_in_one_piece_costs_what_the_step_level_says_and_short_pieces_cost_more() -> None:
    whole, parts = _plan(Gemm(m=64, k=512, n=32)), _plan(Gemm(m=4096, k=4096, n=4096))
    for plan in (whole, parts):
        overlapped = simulate_system(plan)
        ours, plain = (energy(of, load_table("asic-16nm")) for of in (overlapped, overlapped.step))
        rows = {row.action: row for row in ours.rows}
        more = sum(rows[action].joules for action in BEYOND if action in rows)
        dram = [of.by_component[Component.DRAM] for of in (ours, plain)]

        assert dram[0] - dram[1] == pytest.approx(more, rel=1e-9, abs=1e-18)
        assert (more > 0) is (plan is parts)
        opened = sum(found.activates for found in overlapped.beyond())
        assert opened == (rows[Actions.ACTIVATE].count if plan is parts else 0)
        # No more rows than lines of 64 bytes.
        assert opened < overlapped.step.counts.dram_bytes / 64


def test_a_memory_without_a_figure_for_rows_charges_lines_alone() -> None:
    spec = replace(SAT, dram=replace(SAT.dram, kind="lpddr4-2400"))
    overlapped = simulate_system(_plan(Gemm(m=4096, k=4096, n=4096), spec=spec))

    assert sum(found.activates for found in overlapped.beyond()) > 0
    assert Actions.ACTIVATE not in {row.action for row in energy(overlapped, load_table("asic-16nm")).rows}


def test_pieces_of_part_of_a_line_move_the_line() -> None:
    """Three columns of 16 bits of a matrix of 4,099: a line each, of two where they begin at its end."""
    found = steady(by_shape(SAT).memory, 6, 8198, False, "channel-hashed")
    assert 64 / 6 <= found.moved <= 128 / 6
