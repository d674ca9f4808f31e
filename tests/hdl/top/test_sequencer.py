"""The sequencer in RTL: every command in its cycle, every illegal word stopped with its error; nothing hangs."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.program.commands import Command, ProgramError, commands
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.instruction import Add, End, Go, Instruction, Loop, Next, Set, encode
from weft.dataflow.program.isa import REGISTERS, Unit, most_of, register
from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.axi import Axi4
from weft.hdl.top.axi_memory import AxiMemory
from weft.hdl.top.command import command_layout
from weft.hdl.top.sequencer import Sequencer
from weft.simulator.machine.sequencer import timeline

LATENCY, DEPTH = 4, 512
LASTS = {
    **{Unit.LOAD: "words", Unit.STORE: "words", Unit.PRODUCT: "parts", Unit.VECTOR: "rows", Unit.UPDATE: "tiles"},
    **{Unit.XNOR: "words"},
}
"""The register by which a unit of the bench knows how many cycles its command takes."""
NAMES = {unit: unit.name.lower() for unit in Unit}


class SequencerBench(wiring.Component):
    """A sequencer before a memory, with units that do nothing for as long as a register of their command says."""

    def __init__(self) -> None:
        self.sequencer = Sequencer()
        self.memory = AxiMemory(8, DEPTH, latency=LATENCY)
        bus = Axi4(8).members
        seen = [f"{name}_{what}" for name in NAMES.values() for what in ("takes", "done", "queue_stall", "event_stall")]
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "length": In(32),
                "watchdog": In(32),
                "break_unit": In(1),
                "aw": In(bus["aw"].signature),
                "w": In(bus["w"].signature),
                **{name: Out(1) for name in ("busy", "fetch_stall", *seen)},
                **{f"{name}_command": Out(command_layout(REGISTERS[unit])) for unit, name in NAMES.items()},
                "error": Out(4),
                "error_instruction": Out(32),
                "error_value": Out(32),
                "instruction": Out(32),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.sequencer, m.submodules.memory = sequencer, memory = self.sequencer, self.memory
        for name in ("ar", "r"):
            wiring.connect(m, getattr(sequencer, name), getattr(memory.bus, name))
        for name in ("aw", "w"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(memory.bus, name))
        m.d.comb += memory.bus.b.ready.eq(1)
        m.d.comb += [getattr(sequencer, x).eq(getattr(self, x)) for x in ("start", "stop", "length", "watchdog")]
        for name in ("busy", "fetch_stall", "error", "error_instruction", "error_value", "instruction"):
            m.d.comb += getattr(self, name).eq(getattr(sequencer, name))
        for unit, name in NAMES.items():
            port, left = getattr(sequencer, name), Signal(24, name=f"{name}_left")
            takes, done = getattr(self, f"{name}_takes"), getattr(self, f"{name}_done")
            m.d.comb += [
                port.ready.eq(left == 0),
                getattr(self, f"{name}_command").eq(port.payload),
                takes.eq(port.valid & port.ready),
                done.eq(left == 1),
                getattr(sequencer, f"{name}_done").eq(done),
                *(
                    getattr(self, f"{name}_{what}").eq(getattr(sequencer, f"{name}_{what}"))
                    for what in ("queue_stall", "event_stall")
                ),
            ]
            m.d.sync += left.eq(Mux(takes, port.payload[LASTS[unit]], left - (left != 0)))
        m.d.comb += [
            sequencer.store_error.eq(Mux(self.break_unit & sequencer.store_runs, MachineError.WRITE, 0)),
            sequencer.store_value.eq(0x1234),
        ]
        return m


@cache
def machine() -> Cosim:
    return Cosim(SequencerBench())


def ran(words: list[int], cycles: int, length: int | None = None, **given: Any) -> dict[str, Any]:
    """What a program of 64-bit words does, from the cycle of its start on."""
    bench, n = machine(), len(words)
    bench.reset()
    address = 8 * np.minimum(np.arange(n + 8), n).astype(np.uint64)
    beats = np.zeros((n + 8, bench.inputs["w__payload"].words), np.uint32)
    for i, word in enumerate(words):
        beats[i + 1, :3] = [word & 0xFFFFFFFF, word >> 32, 0x1FF]
    t = np.arange(n + 8)
    bench.run({"aw__valid": t < n, "aw__payload": address, "w__valid": (t >= 1) & (t <= n), "w__payload": beats}, n + 8)
    fed = {"length": n if length is None else length, "watchdog": 2000} | given
    return bench.run(fed | {"start": np.arange(cycles) < 1}, cycles)


def require_equal(instructions: list[Instruction], lasting: dict[int, int]) -> None:
    """Every command in the cycles of the model; ``lasting`` by how many instructions were executed before it."""
    said = timeline(instructions, lambda command: lasting[command.executed], LATENCY)
    seen = ran([encode(i) for i in instructions], said.cycles + 20)
    assert not seen["error"].any(), MachineError(seen["error"].max())
    for unit, name in NAMES.items():
        own = [r for r in said.ran if r.command.unit == unit]
        assert np.flatnonzero(seen[f"{name}_takes"]).tolist() == [r.took for r in own]
        assert np.flatnonzero(seen[f"{name}_done"]).tolist() == [r.last for r in own]
        assert seen[f"{name}_queue_stall"].sum() == said.queue_stalls[unit]
        assert seen[f"{name}_event_stall"].sum() == said.event_stalls[unit]
    assert seen["fetch_stall"].sum() == said.fetch_stalls - 1  # the cycle of the start itself is nobody's
    assert np.flatnonzero(seen["busy"]).tolist() == list(range(1, said.cycles))


def lasting(unit: Unit, cycles: int) -> list[Instruction]:
    """What makes the next command of a unit last so long, and legal."""
    known = [Set(unit, r.number, r.least) for r in REGISTERS[unit] if r.reset is None]
    return [*known, Set(unit, register(unit, LASTS[unit]).number, cycles)]


def chain(rng: random.Random) -> tuple[list[Instruction], dict[int, int]]:
    """Units that tell and wait for each other round a ring of halves, in loops."""
    units = rng.sample(list(Unit), rng.randint(1, 4))
    program: list[Instruction] = []
    for unit in units:
        program += lasting(unit, rng.randint(1, 30))
    for i in range(1, len(units)):
        program += [Go(units[i], 0, 1 << 2 * i - 1) for _ in range(rng.randint(1, 2))]
    program += [Loop(rng.randint(1, 3)), Loop(rng.randint(1, 4))]
    for i, unit in enumerate(units):
        more = i + 1 < len(units)
        wait = (1 << 2 * i - 2 if i else 0) | (1 << 2 * i + 1 if more else 0)
        notify = (1 << 2 * i if more else 0) | (1 << 2 * i - 1 if i else 0)
        if rng.random() < 0.5:
            program.append(Add(unit, register(unit, LASTS[unit]).number, rng.randint(0, 2)))
        program.append(Go(unit, wait, notify))
    program += [Next(), Next(), End()]
    return program, durations(program)


def durations(program: list[Instruction]) -> dict[int, int]:
    """Of each command, by its register."""
    return {c.executed: getattr(c, LASTS[c.unit]) for c in commands(program) if isinstance(c, Command)}


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_every_command_runs_in_the_cycles_of_the_model(seed: int) -> None:
    program, lasts = chain(random.Random(seed))
    try:
        timeline(program, lambda _: 1, LATENCY)
    except ProgramError:
        return  # stands still for ever: the watchdog's
    require_equal(program, lasts)


def test_loops_within_loops_and_their_registers() -> None:
    words = register(Unit.LOAD, "words").number
    body: list[Instruction] = [Go(Unit.LOAD, 0, 0), Add(Unit.LOAD, words, 1)]
    for turns in (1, 2, 1, 2, 1, 2, 1, 3):
        body = [Loop(turns), *body, Next()]
    program = [*lasting(Unit.LOAD, 1), *body, End()]
    assert len(durations(program)) == 24
    require_equal(program, durations(program))


def changing(rng: random.Random) -> list[Instruction]:
    """Registers set and added to by chance, beyond their widths too; commands that are legal with them."""
    units = rng.sample(list(Unit), rng.randint(1, 3))
    program = [i for unit in units for i in lasting(unit, 1)]
    for _ in range(rng.randint(1, 40)):
        unit = rng.choice(units)
        r = rng.choice([r for r in REGISTERS[unit] if r.name != LASTS[unit]])
        value = rng.choice((r.least, r.most, rng.randint(r.least, r.most)))
        change = (
            Set(unit, r.number, value) if rng.random() < 0.4 else Add(unit, r.number, rng.randint(-(2**31), 2**31 - 1))
        )
        tried = [*program, change, Go(unit, 0, 0)]
        program = tried if is_legal(tried) else [*program, change, Set(unit, r.number, value), Go(unit, 0, 0)]
    return [*program, End()]


def is_legal(program: list[Instruction]) -> bool:
    *_, command, _ = commands([*program, End()])
    assert isinstance(command, Command)
    limits = [(r.least, most_of(r, tuple(Unit))) for r in REGISTERS[command.unit]]
    return all(least <= value <= most for (least, most), value in zip(limits, command.registers, strict=True))


def number_of(command: Command) -> int:
    """Its registers side by side, the first lowest."""
    found = at = 0
    for r, value in zip(REGISTERS[command.unit], command.registers, strict=True):
        found |= (value & (1 << r.bits) - 1) << at
        at += r.bits
    return found


def require_commands(program: list[Instruction], seen: dict[str, Any]) -> None:
    said = [c for c in commands(program) if isinstance(c, Command)]
    assert not seen["error"].any(), MachineError(seen["error"].max())
    for unit, name in NAMES.items():
        taken = seen[f"{name}_command"][seen[f"{name}_takes"] != 0]
        own = [sum(int(word) << 32 * i for i, word in enumerate(np.atleast_1d(words))) for words in taken]
        assert own == [number_of(c) for c in said if c.unit == unit]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_a_command_has_what_was_set_and_added_and_a_start_forgets_it(seed: int) -> None:
    program = changing(random.Random(seed))
    cycles = timeline(program, lambda _: 1, LATENCY).cycles + 20
    require_commands(program, ran([encode(i) for i in program], cycles))

    again = machine().run({"length": len(program), "watchdog": 2000, "start": np.arange(cycles) < 1}, cycles)
    require_commands(program, again)


LOAD = lasting(Unit.LOAD, 3)
FIRST = [encode(x) for x in LOAD]
N = len(FIRST)


@pytest.mark.parametrize(
    ("words", "error", "at", "value"),
    [
        ([6 << 56], MachineError.INSTRUCTION, 0, 0),
        ([1], MachineError.INSTRUCTION, 0, 0),
        ([*FIRST, encode(Go(Unit.LOAD, 0, 0)) | 1 << 40], MachineError.INSTRUCTION, N, 0),
        ([5 << 56 | 1], MachineError.INSTRUCTION, 0, 0),
        ([4 << 56 | 1 << 33 | 1], MachineError.INSTRUCTION, 0, 0),
        ([1 << 56 | 6 << 48], MachineError.UNIT, 0, 0),
        ([3 << 56 | 9 << 48], MachineError.UNIT, 0, 0),
        ([1 << 56 | len(REGISTERS[0]) << 32], MachineError.REGISTER, 0, len(REGISTERS[0])),
        ([2 << 56 | 200 << 32], MachineError.REGISTER, 0, 200),
        ([1 << 56 | 1 << 32 | 2], MachineError.REGISTER, 0, 1),
        ([4 << 56], MachineError.LOOP, 0, 0),
        ([5 << 56], MachineError.LOOP, 0, 0),
        ([encode(Loop(1))] * 9, MachineError.LOOP, 8, 0),
        ([encode(Go(Unit.LOAD, 0, 0))], MachineError.COMMAND, 0, 0),
        (FIRST, MachineError.FETCH, N, 0),
        ([*FIRST, encode(Go(Unit.LOAD, 1, 0)), encode(End())], MachineError.WATCHDOG, N + 2, 0),
        (
            [*FIRST, encode(Loop(256)), encode(Go(Unit.LOAD, 0, 2)), encode(Next()), encode(End())],
            MachineError.EVENT,
            None,
            1,
        ),
    ],
)
def test_what_is_illegal_stops_the_machine(words: list[int], error: MachineError, at: int | None, value: int) -> None:
    seen = ran(words, 4000)
    assert MachineError(seen["error"][-1]) == error
    assert seen["error_value"][-1] == value
    if at is not None:
        assert seen["error_instruction"][-1] == at
    assert not seen["busy"][-1]
    stopped = np.flatnonzero(seen["error"])[0]
    assert not any(seen[f"{name}_takes"][stopped:].any() for name in NAMES.values())


def test_a_fetch_beyond_the_memory_is_an_error_of_its_instruction() -> None:
    seen = ran([encode(Add(Unit.LOAD, 0, 0))] * DEPTH, DEPTH + 60, length=DEPTH + 9)
    assert (seen["error"][-1], seen["error_instruction"][-1]) == (MachineError.FETCH, DEPTH)


def test_a_unit_that_fails_is_told_with_the_instruction_of_its_command() -> None:
    program = [*lasting(Unit.STORE, 20), Go(Unit.STORE, 0, 0), End()]
    seen = ran([encode(i) for i in program], 100, break_unit=(np.arange(100) > 30).astype(np.uint32))
    found = (seen["error"][-1], seen["error_instruction"][-1], seen["error_value"][-1])
    assert found == (MachineError.WRITE, len(program) - 2, 0x1234)


def test_the_host_stops_it() -> None:
    program = [*LOAD, Loop(1000), Go(Unit.LOAD, 0, 0), Next(), End()]
    seen = ran([encode(i) for i in program], 200, stop=(np.arange(200) == 100).astype(np.uint32))
    assert seen["error"][-1] == MachineError.STOPPED
    assert not seen["busy"][101:].any()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_no_stream_of_words_hangs(seed: int) -> None:
    """Instructions by chance, some with a bit turned: they end, or stop with an error."""
    rng = random.Random(seed)
    words = []
    for _ in range(rng.randint(1, 60)):
        unit = rng.choice(list(Unit))
        r = rng.choice(REGISTERS[unit])
        at = rng.choice(
            [
                Set(unit, r.number, rng.randint(max(0, r.least), min(r.most, 60))) if r.least <= 60 else Loop(2),
                Add(unit, r.number, rng.randint(-3, 3)),
                Go(unit, rng.choice((0, 0, 1)), rng.choice((0, 1, 2))),
                Loop(rng.randint(1, 3)),
                Next(),
            ]
        )
        words.append(encode(at) ^ (1 << rng.randrange(64) if rng.random() < 0.03 else 0))
    words.append(encode(End()))
    seen = ran(words, 2_000, watchdog=500)
    if seen["busy"][-1]:
        seen = machine().run({"length": len(words), "watchdog": 500}, 58_000)
    assert not seen["busy"][-1]
