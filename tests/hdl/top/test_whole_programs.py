"""Any stream of instructions on the whole machine: it ends, with an error and its instruction or without, and nothing
outside of the window or of a space is touched. What the checker lets pass does what the models say."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weft.analysis.verify.rtl_difference import require_cycles
from weft.dataflow.program.checker import check
from weft.dataflow.program.compiler import CompiledStep, compile_step
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.instruction import Add, End, Go, Instruction, Loop, Next, Set, decode, encode
from weft.dataflow.program.isa import BEAT_BYTES, LATENCY, REGISTERS, Unit, register
from weft.dataflow.program.program import Program
from weft.dataflow.program.spaces import PLACE_ADDRESS_BITS, Space
from weft.hdl.drivers.accelerator import AcceleratorRun
from weft.hdl.top.load import write_layout
from weft.simulator.machine.chip import Chip
from weft.simulator.machine.program_time import program_time
from weft.workloads.errors import InputError
from weft.workloads.tracing.graph import step_graph

from ...analysis.verify.rtl_networks import machine_of, target_of
from ...examples_drawn import examples

pytestmark = pytest.mark.slow

TARGET = target_of()
WINDOW, BASE = 1 << 14, 1 << 12
SEEN = BASE + WINDOW + (1 << 12)
"""Bytes of memory that are looked at."""
WATCHDOG, LIMIT = 1500, 25_000
GO, ADDRESS = 3 << 56, 4
END = encode(End())


@cache
def steps() -> tuple[CompiledStep, ...]:
    """Programs that use every unit, one with images and one without."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 5))
    image = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5)
    )
    graphs = [
        step_graph(model, torch.empty(shape), name="drawn")
        for model, shape in ((plain, (3, 3, 2, 2)), (image, (2, 1, 4, 4)))
    ]
    made = tuple(compile_step(graph, TARGET) for graph in graphs)
    assert all(step.window <= WINDOW for step in made)
    return made


def words_of(program: Program) -> list[int]:
    return [word for (word,) in struct.iter_unpack("<Q", program.words)]


@st.composite
def changed(draw: st.DrawFn) -> list[int]:
    """A program of the compiler, with some changes."""
    step = draw(st.sampled_from(steps()))
    words = words_of(draw(st.sampled_from((step.forward, step.backward))))
    for _ in range(draw(st.integers(0, 3))):
        at, other = draw(st.integers(0, len(words) - 1)), draw(st.integers(0, len(words) - 1))
        match draw(st.sampled_from(("bit", "cut", "swap", "again", "lose", "waits", "moved", "value"))):
            case "bit":
                words[at] ^= 1 << draw(st.integers(0, 63))
            case "cut":
                words = words[: max(at, 1)]
            case "swap":
                words[at], words[other] = words[other], words[at]
            case "again":  # loops inside loops, halves used twice, events told too often
                words[at:at] = words[min(at, other) : min(at, other) + draw(st.integers(1, 40))]
            case "lose":
                words = [*words[: max(at, 1)], *words[at + draw(st.integers(1, 20)) :]]
            case "waits":  # commands that no longer wait for each other meet in the same halves and bytes
                words = [word & ~0xFFFF_FFFF if word >> 56 == GO >> 56 else word for word in words]
            case "moved":  # everything to the same bytes
                to = 4 * draw(st.integers(0, WINDOW // 4 + 8))
                words = [set_address(word, to) for word in words]
            case "value":
                words[at] = words[at] & ~0xFFFF_FFFF | draw(st.integers(0, 2**32 - 1))
    return words


def set_address(word: int, to: int) -> int:
    is_address = word >> 56 == 1 and word >> 48 & 0xFF in (Unit.LOAD, Unit.STORE) and word >> 32 & 0xFFFF == ADDRESS
    return word & ~0xFFFF_FFFF | to if is_address else word


@st.composite
def invented(draw: st.DrawFn) -> list[int]:
    """Instructions by chance, most of them legal one by one."""
    found: list[int] = []
    for unit in draw(st.permutations(list(Unit))):
        for r in REGISTERS[unit]:
            if r.reset is None or draw(st.integers(0, 9)) == 0:
                most = min(r.most, draw(st.sampled_from((3, 40, WINDOW, r.most))))
                value = draw(st.integers(min(max(0, r.least), most), most))
                found.append(encode(Set(unit, r.number, value)))
    for _ in range(draw(st.integers(1, 40))):
        unit = draw(st.sampled_from(list(Unit)))
        r = draw(st.sampled_from(REGISTERS[unit]))
        masks = st.sampled_from((0, 0, 0, 1, 2, 3))
        own: Instruction = draw(
            st.one_of(
                st.builds(Go, st.just(unit), masks, masks),
                st.builds(Add, st.just(unit), st.just(r.number), st.integers(-9, 9)),
                st.builds(Loop, st.integers(1, 4)),
                st.just(Next()),
            )
        )
        found.append(encode(own))
    return [*found, END]


def require_safe(words: list[int]) -> AcceleratorRun | None:
    """Run it; None if it was still at work at `LIMIT`, and the host stopped it."""
    own = machine_of()
    own.reset(window=WINDOW, base=BASE, watchdog=WATCHDOG)
    before = np.random.default_rng(len(words)).integers(0, 256, SEEN, np.uint8)
    before[1::2] &= 0x3B  # FP16 of no more than 1, so that values stay finite
    own.write(0, before)
    try:
        run = own.run_words(struct.pack(f"<{len(words)}Q", *words), LIMIT)
    except RuntimeError:
        own._set("control", 2)
        assert MachineError(own.get("error")) == MachineError.STOPPED
        assert own.get("status") & 0b111 == 0b100
        run = None
    own.drain()
    quiet = own._run({}, 200)
    assert not any(quiet[f"seen_{name}"].any() for name in ("ar", "aw", "w"))
    after = own.read(0, SEEN)
    assert (after[:BASE] == before[:BASE]).all()
    assert (after[BASE + WINDOW :] == before[BASE + WINDOW :]).all()
    if run is not None:
        for bursts in (run.reads, np.stack([run.writes.address, run.writes.address + 8], axis=1)):
            assert (bursts[:, 0] >= BASE).all() and (bursts[:, 1] <= BASE + WINDOW).all()
        require_in_spaces(run.placed)
        if run.stopped is not None:
            assert run.stopped.error in list(MachineError)[1:]
            assert 0 <= run.stopped.instruction <= len(words)
        require_as_said(words, run, before[BASE : BASE + WINDOW].copy(), after[BASE : BASE + WINDOW])
    return run


def require_in_spaces(placed: np.ndarray[Any, Any]) -> None:
    """What load wrote on chip lies in its space."""
    layout = write_layout(4)
    for row in placed:
        number = int.from_bytes(row.tobytes(), "little")
        field = {name: number >> f.offset & (1 << f.width) - 1 for name, f in layout}
        size = TARGET.size(Space(field["space"]))
        bank, address = field["place"] >> PLACE_ADDRESS_BITS, field["place"] & (1 << PLACE_ADDRESS_BITS) - 1
        if field["words"]:
            last = field["words"] - 1
            assert bank + (last if field["across"] else 0) < size.banks
            assert address + (0 if field["across"] else last) < size.depth


def require_as_said(words: list[int], run: AcceleratorRun, memory: Any, found: Any) -> None:
    """A program that the checker lets pass ends without an error, in the cycles of the models and, in all that
    hangs on what it has written, in their bits."""
    try:
        program = Program(tuple(decode(word) for word in words), TARGET.hash)
        check(program, TARGET, WINDOW)
    except InputError:
        return
    assert run.stopped is None
    require_cycles(program_time(program, TARGET, BEAT_BYTES, LATENCY), run)
    said, known = memory_after(program, memory)
    assert (said == found)[known].all()


def memory_after(program: Program, memory: Any) -> tuple[Any, Any]:
    """By the model, and which bytes do not hang on words on chip that nothing has written, as a changed load may leave
    between those that it writes: a machine has there what was there before; the checker sees how far a load reaches."""
    said = []
    for fill in (None, 0, np.random.default_rng(1)):
        chip = Chip(TARGET, memory.copy())
        for words in chip.values.values() if fill is not None else ():
            words[...] = fill if isinstance(fill, int) else fill.integers(0, np.iinfo(words.dtype).max, words.shape)
        chip.run(program.instructions)
        said.append(chip.memory)
    return said[0], (np.array(said) == said[0]).all(axis=0)


@settings(max_examples=examples(120), deadline=None)
@given(changed())
def test_a_program_with_changes_ends_and_stays_in_its_window(words: list[int]) -> None:
    require_safe(words)


def test_a_load_that_leaves_holes_is_known_by_them() -> None:
    """Found by the test above: words of a line three apart instead of two, of which a product reads every one."""
    apart = register(Unit.LOAD, "inner2_step").number
    close, wide = (encode(Set(Unit.LOAD, apart, step)) for step in (2, 3))
    whole = next(
        words for step in steps() for words in (words_of(step.forward), words_of(step.backward)) if close in words
    )
    holed = [*whole[: whole.index(close)], wide, *whole[whole.index(close) + 1 :]]
    memory = np.random.default_rng(1).integers(0, 0x3C, WINDOW, np.uint8)
    before, after = (Program(tuple(map(decode, words)), TARGET.hash) for words in (whole, holed))

    check(after, TARGET, WINDOW)
    assert memory_after(before, memory)[1].all()
    assert not memory_after(after, memory)[1].all()
    require_safe(holed)


@settings(max_examples=examples(60), deadline=None)
@given(invented())
def test_instructions_by_chance_end_and_stay_in_their_window(words: list[int]) -> None:
    require_safe(words)


def test_programs_of_the_compiler_run_as_said() -> None:
    """The comparison with the models is one: these pass the checker."""
    for step in steps():
        for program in (step.forward, step.backward):
            run = require_safe(words_of(program))
            assert run is not None and run.stopped is None
            check(program, TARGET, WINDOW)


def test_a_store_that_overtakes_its_load_is_no_error_of_the_machine() -> None:
    """Without a wait a store reads what lies there: an end, and no word outside."""
    forward = [word & ~0xFFFF_FFFF if word >> 56 == GO >> 56 else word for word in words_of(steps()[0].forward)]
    run = require_safe(forward)
    assert run is not None and run.stopped is None


def test_an_endless_loop_is_the_hosts_to_stop() -> None:
    assert require_safe([encode(Loop(2**32 - 1)), encode(Next()), END]) is None
