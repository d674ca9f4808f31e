"""The cycles of control against a machine that is stepped; the order of commands against their events."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.dataflow.program.commands import Command, ProgramError, commands
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.instruction import Add, End, Go, Instruction, Loop, Next, Set, encode
from weft.dataflow.program.isa import JUMP, START, Unit, register
from weft.simulator.machine.sequencer import Timeline, run_commands, timeline
from weft.simulator.reference.sequencer import step_control

HALF = register(Unit.LOAD, "half").number


def stepped(instructions: list[Instruction], durations: list[int], latency: int = 4, limit: int = 100_000):
    return step_control([encode(i) for i in instructions], durations, START + latency, JUMP + latency, limit)


def predicted(instructions: list[Instruction], durations: list[int], latency: int = 4) -> Timeline:
    """``durations`` by the order of `go`s, which is known by how many instructions were executed before."""
    order = [c.executed for c in commands(instructions) if isinstance(c, Command)]
    by = dict(zip(order, durations, strict=False))
    return timeline(instructions, lambda command: by[command.executed], latency)


def require_equal(instructions: list[Instruction], durations: list[int], latency: int = 4) -> None:
    ran, cycles, counters = stepped(instructions, durations, latency)
    said = predicted(instructions, durations, latency)

    assert [(r.instruction, r.entered, r.took, r.first, r.last) for r in ran] == [
        (r.command.instruction, r.entered, r.took, r.first, r.last) for r in said.ran
    ]
    assert said.cycles == cycles
    assert list(said.queue_stalls.values()) == counters["queue"]
    assert list(said.busy.values()) == counters["busy"]
    assert list(said.event_stalls.values()) == counters["events"]


@st.composite
def programs(draw) -> list[Instruction]:
    """Units in a chain, each telling the next one and being told by it, as double buffers are; loops of some turns.

    Event 2 i: unit i has filled a half, event 2 i + 1: unit i + 1 has emptied one. ``halves`` are there from the start,
    told by commands of their own.
    """
    chain = draw(st.permutations(Unit))[: draw(st.integers(1, 4))]
    idle = st.lists(st.just(Add(Unit.LOAD, HALF, 1)), max_size=4)
    halves = draw(st.integers(1, 3))
    program: list[Instruction] = [Set(Unit.LOAD, HALF, 0)]
    for i in range(1, len(chain)):
        program += [Go(chain[i], 0, 1 << 2 * i - 1) for _ in range(halves)]
    body: list[Instruction] = []
    for i, unit in enumerate(chain):
        wait = (1 << 2 * i - 2 if i else 0) | (1 << 2 * i + 1 if i + 1 < len(chain) else 0)
        notify = (1 << 2 * i if i + 1 < len(chain) else 0) | (1 << 2 * i - 1 if i else 0)
        body += [*draw(idle), Go(unit, wait, notify), *draw(idle)]
    turns, outer = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return [*program, Loop(outer), Loop(turns), *body, Next(), *draw(idle), Next(), *draw(idle), End()]


lengths = st.lists(st.one_of(st.integers(1, 4), st.integers(1, 40)), min_size=64, max_size=64)


@given(programs(), lengths, st.integers(0, 9))
def test_every_cycle_is_that_of_the_stepped_machine(program, durations, latency):
    require_equal(program, durations, latency)


@st.composite
def told(draw) -> list[Instruction]:
    """Any commands of three units; an event has one unit that tells it and one that takes it."""
    units = st.sampled_from([Unit.LOAD, Unit.STORE, Unit.PRODUCT])
    roles = [(draw(units), draw(units)) for _ in range(3)]
    program: list[Instruction] = []
    for _ in range(draw(st.integers(1, 9))):
        unit = draw(units)
        tells, takes = (sum(1 << e for e, role in enumerate(roles) if role[i] == unit) for i in (0, 1))
        program.append(Go(unit, draw(st.integers(0, 7)) & takes, draw(st.integers(0, 7)) & tells))
    return [*program, End()]


@given(told(), lengths)
def test_any_program_whose_events_have_one_teller_and_one_taker(program, durations):
    try:
        timeline(program, lambda _: 1, 0)
    except ProgramError as error:
        assert error.error == MachineError.WATCHDOG
        with pytest.raises(RuntimeError, match="has not ended"):
            stepped(program, durations, limit=40 * len(program) + 100)
    else:
        require_equal(program, durations)


def test_cycles_by_hand():
    """load, 3 cycles, tells product, 5 cycles, which waits; then a load behind the first."""
    program = [Go(Unit.LOAD, 0, 1), Go(Unit.PRODUCT, 1, 0), Go(Unit.LOAD, 0, 0), End()]
    said = predicted(program, [3, 5, 2], latency=2)

    load, product, again = said.ran
    assert (load.entered, load.took, load.first, load.last) == (4, 5, 6, 8)
    assert (product.entered, product.took, product.first, product.last) == (5, 9, 10, 14)
    assert (again.entered, again.took, again.first, again.last) == (6, 9, 10, 11)
    assert said.cycles == 15
    assert said.event_stalls[Unit.PRODUCT] == 3
    assert said.queue_stalls[Unit.LOAD] == 0
    require_equal(program, [3, 5, 2], latency=2)


def test_a_full_queue_holds_up_what_comes_after():
    program = [*[Go(Unit.LOAD, 0, 0)] * 4, Go(Unit.STORE, 0, 0), End()]
    said = predicted(program, [10, 10, 10, 10, 1], latency=2)

    # The second leaves the queue when the first has ended, in cycle 16; the fourth finds its room a cycle later.
    assert [r.entered for r in said.ran] == [4, 5, 6, 17, 18]
    assert said.queue_stalls[Unit.LOAD] == 10
    require_equal(program, [10, 10, 10, 10, 1], latency=2)


def test_units_are_called_in_order_and_after_what_they_wait_for():
    program = [Go(Unit.PRODUCT, 1, 2), Go(Unit.LOAD, 0, 1), Set(Unit.LOAD, HALF, 1), Go(Unit.LOAD, 2, 0), End()]
    called: list[tuple[Unit, int]] = []
    units = {unit: lambda command: called.append((command.unit, command.instruction)) for unit in Unit}

    assert run_commands(program, units) == 3
    assert called == [(Unit.LOAD, 1), (Unit.PRODUCT, 0), (Unit.LOAD, 3)]


def test_commands_hold_the_registers_of_their_time():
    program = [Set(Unit.LOAD, HALF, 0), Loop(3), Add(Unit.LOAD, HALF, 1), Go(Unit.LOAD, 0, 0), Next(), End()]
    halves: list[int] = []

    run_commands(program, {Unit.LOAD: lambda command: halves.append(command.half)})

    assert halves == [1, 0, 1]


def test_a_program_that_stands_still_is_an_error():
    with pytest.raises(
        ProgramError, match="instruction 0: deadlock: go load of instruction 0 waits for event 3"
    ) as found:
        run_commands([Go(Unit.LOAD, 8, 0), End()], {})

    assert found.value.error == MachineError.WATCHDOG
    with pytest.raises(RuntimeError, match="has not ended"):
        stepped([Go(Unit.LOAD, 8, 0), End()], [1], limit=1000)


def test_the_drawn_programs_stall_for_every_cause():
    """Otherwise the witness would have nothing to say."""
    found: Counter[str] = Counter()

    @given(programs(), lengths)
    def draw(program, durations):
        said = predicted(program, durations)
        found["queue"] += sum(said.queue_stalls.values()) > 0
        found["events"] += sum(said.event_stalls.values()) > 0

    draw()
    assert min(found["queue"], found["events"]) >= 5
