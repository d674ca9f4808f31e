"""What cocotb runs inside the simulator: the accelerator's buses against the models of cocotbext-axi."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import (
    AxiBus,
    AxiLiteBus,
    AxiLiteMaster,
    AxiMaster,
    AxiRamRead,
    AxiRamWrite,
    AxiReadBus,
    AxiResp,
    AxiSlaveRead,
    AxiSlaveWrite,
    AxiWriteBus,
)

from weft.dataflow.program.control import CONTROL, MAGIC, Access, MachineError, control
from weft.dataflow.program.instruction import End, Go, Loop, Next, Set, encode
from weft.dataflow.program.isa import REGISTERS, Unit
from weft.dataflow.program.spaces import PLACE_ADDRESS_BITS, Form, Space
from weft.hdl.top.banks import READ

from .bus_machines import MEMORY_BEATS
from .commands import TARGET, as_command, drawn, places, usual
from .loads import loaded, words_of
from .transfers import BEAT, DEPTH, LANES

BASE = 0x5A_0003_F000
"""Of the window: above 32 bits, and no multiple of more than 4 KiB."""
SIZE = DEPTH * BEAT


FIELDS = {
    **dict.fromkeys(("ar", "aw"), ("id", "addr", "len", "size", "burst", "lock", "cache", "prot", "qos")),
    "w": ("data", "strb", "last"),
    "r": ("id", "data", "resp", "last"),
    "b": ("id", "resp"),
}
"""Of the channels, as the specification spells them."""


def pauses(rng: random.Random) -> Any:
    """Any channel stands still in so many cycles, at a rate of its own."""
    rate = rng.choice((0.0, 0.3, 0.8))
    while True:
        yield rng.random() < rate


def pause(rng: random.Random, *channels: Any) -> None:
    for channel in channels:
        channel.set_pause_generator(pauses(rng))


class Watch:
    """Holds a bus to the rules of its channels: what is valid stays as it is until it is taken (A3.2.1)."""

    def __init__(self, dut: Any, prefix: str, channels: tuple[str, ...]) -> None:
        self.moved: Counter[str] = Counter()
        for channel in channels:
            start = f"{prefix}_{channel}"
            names = [n for n in dir(dut) if n.startswith(start) and n not in (f"{start}valid", f"{start}ready")]
            names = [n for n in names if n[len(start) :] in FIELDS[channel]]
            assert len(names) > 0, start
            cocotb.start_soon(self._watch(dut, start, names, channel))

    async def _watch(self, dut: Any, start: str, names: list[str], channel: str) -> None:
        valid, ready = getattr(dut, f"{start}valid"), getattr(dut, f"{start}ready")
        stood: list[int] | None = None
        while True:
            await RisingEdge(dut.clk)
            if int(dut.rst.value):
                stood = None
                continue
            now = [int(getattr(dut, n).value) for n in names]
            if stood is not None:
                assert int(valid.value), f"{start}valid was withdrawn"
                assert now == stood, f"{start}: changed while it stood"
            taken = int(valid.value) and int(ready.value)
            self.moved[channel] += bool(taken)
            stood = now if int(valid.value) and not taken else None


async def reset(dut: Any) -> None:
    """A clock, inputs at 0, and a reset of some cycles."""
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    for name in dir(dut):
        handle = getattr(dut, name, None)
        if name.startswith(("command", "base", "size", "start", "stop", "count_", "hold_", "watchdog")):
            handle.value = 0
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    await ClockCycles(dut.clk, 5)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


class Refusing:
    """A memory of cocotbext-axi's slave that fails at some addresses."""

    def __init__(self, refused: range) -> None:
        self.refused = refused
        self.written: dict[int, int] = {}

    async def read(self, address: int, length: int, **_: Any) -> bytes:
        if any(address + i in self.refused for i in range(length)):
            raise IndexError(address)
        return bytes(length)

    async def write(self, address: int, data: bytes, **_: Any) -> None:
        if any(address + i in self.refused for i in range(len(data))):
            raise IndexError(address)
        self.written.update({address + i: byte for i, byte in enumerate(data)})


async def command(dut: Any, unit: Unit, registers: dict[str, int]) -> None:
    """Hand a command over as the sequencer does."""
    dut.command__payload.value = as_command(unit, registers)
    dut.command__valid.value = 1
    while True:
        await RisingEdge(dut.clk)
        if int(dut.command__ready.value):
            break
    dut.command__valid.value = 0


async def ended(dut: Any, within: int, seen: Any = lambda: None) -> str:
    """How the command ends: "done" or the error's name."""
    for _ in range(within):
        await RisingEdge(dut.clk)
        seen()
        if int(dut.done.value):
            return "done"
        if int(dut.error.value):
            return MachineError(int(dut.error.value)).name
    raise AssertionError(f"neither done nor wrong within {within} cycles")


def own(space: Space, form: Form) -> dict[str, int]:
    if space == Space.N2S and form == Form.OPERAND:
        return {"group": 4, "run": 8}
    return {}


def always(registers: dict[str, int]) -> Callable[[np.random.Generator], dict[str, int]]:
    return lambda _: registers


LOADS = (
    (Space.W2E, Form.OPERAND),
    (Space.N2S, Form.OPERAND),
    (Space.N2S, Form.PAIR),
    (Space.WEIGHTS, Form.FP32),
    (Space.BIAS, Form.OPERAND),
)


@cocotb.test()
async def load_unit__brings_what_the_memory_holds(dut: Any) -> None:
    """Loads of every form from the model's memory, every channel paused at random, bit for bit."""
    rng = random.Random(cocotb.RANDOM_SEED)
    memory = AxiRamRead(AxiReadBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=2**40)
    watch = Watch(dut, "m_axi", ("ar", "r"))
    contents = np.random.default_rng(rng.randrange(2**32)).integers(0, 2**16, DEPTH * LANES).astype("<u2")
    contents = np.where(contents & 0x7C00 == 0x7C00, contents ^ 0x0400, contents).astype(
        "<u2"
    )  # no NaN, as in loads.py
    memory.write(BASE, contents.tobytes())
    await reset(dut)
    dut.base.value, dut.size.value = BASE, SIZE
    for space, form in LOADS:
        pause(rng, memory.ar_channel, memory.r_channel)
        seed = np.random.default_rng(rng.randrange(2**32))
        r = drawn(seed, Unit.LOAD, space, form, always(own(space, form)))
        found: list[Any] = []

        def look(found: list[Any] = found) -> None:
            if int(dut.writes.value):
                payload = int(dut.write.value)
                found.extend(
                    words_of(np.array([payload >> 32 * i & 0xFFFFFFFF for i in range(-(-len(dut.write) // 32))]))
                )

        await command(dut, Unit.LOAD, r)
        assert await ended(dut, 400_000, look) == "done"
        assert found == loaded(r, contents.tobytes(), TARGET), (space, form)
    assert watch.moved["ar"] > 20
    assert watch.moved["r"] > watch.moved["ar"]


async def lengths(dut: Any, channel: str, into: list[int]) -> None:
    """Beats of every burst that is asked for."""
    valid, ready, length = (getattr(dut, f"m_axi_{channel}{x}") for x in ("valid", "ready", "len"))
    while True:
        await RisingEdge(dut.clk)
        if int(valid.value) and int(ready.value):
            into.append(int(length.value) + 1)


@cocotb.test()
@cocotb.parametrize(at=[0, 8 * 49, 8 * 199])
async def load_unit__ends_at_an_error_and_takes_what_it_asked_for(dut: Any, at: int) -> None:
    """The first beat, one between, the last of all: READ, with the burst's offset; no beat is left on the bus."""
    rng = random.Random(cocotb.RANDOM_SEED)
    slave = AxiSlaveRead(
        AxiReadBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=Refusing(range(BASE + at, BASE + at + 8))
    )
    pause(rng, slave.ar_channel, slave.r_channel)
    watch = Watch(dut, "m_axi", ("ar", "r"))
    asked: list[int] = []
    cocotb.start_soon(lengths(dut, "ar", asked))
    await reset(dut)
    dut.base.value, dut.size.value = BASE, SIZE
    lines = {"words": 200, "count3": 4, "step3": 400, "inner2": 200, "inner2_step": 0}
    await command(dut, Unit.LOAD, usual(Unit.LOAD, space=Space.W2E, form=Form.OPERAND, **lines))
    assert await ended(dut, 20_000) == "READ"
    assert 0 <= at - int(dut.value.value) < 128
    await ClockCycles(dut.clk, 6000)
    assert watch.moved["r"] == sum(asked)
    assert not int(dut.m_axi_arvalid.value)
    assert not int(dut.done.value)


def number(seed: int) -> int:
    """Any number for a place, another one for each."""
    return seed * 0x9E3779B1 % 2**32


async def spaces(dut: Any) -> None:
    """What lies on chip: a number made of its place, in the cycle after it was asked for."""
    while True:
        await RisingEdge(dut.clk)
        if not int(dut.busy.value):
            continue
        ask = READ.from_bits(int(dut.read.value))
        bank = ask["place"] >> PLACE_ADDRESS_BITS
        for x in range(LANES):
            behind = (x - bank if ask["across"] else x - ask["place"]) % LANES
            step = behind << PLACE_ADDRESS_BITS if ask["across"] else behind
            at = (ask["place"] + step) % 2**32
            getattr(dut, f"lanes_read__{x}").value = number(at ^ ask["half"] << 31 ^ int(dut.space.value) << 27)


@cocotb.test()
async def store_unit__writes_each_word_and_nothing_else(dut: Any) -> None:
    """Stores of FP32 words into the model's memory, every channel paused at random; all other bytes stay."""
    rng = random.Random(cocotb.RANDOM_SEED)
    memory = AxiRamWrite(AxiWriteBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=2**40)
    watch = Watch(dut, "m_axi", ("aw", "w", "b"))
    cocotb.start_soon(spaces(dut))
    expected = bytearray(rng.randbytes(SIZE))
    memory.write(BASE, bytes(expected))
    await reset(dut)
    dut.base.value, dut.size.value = BASE, SIZE
    for space in (Space.OUTPUT, Space.RESULTS, Space.UPDATED):
        pause(rng, memory.aw_channel, memory.w_channel, memory.b_channel)
        while True:
            r = drawn(np.random.default_rng(rng.randrange(2**32)), Unit.STORE, space, Form.FP32, lambda _: {})
            offsets = np.array([offset + 4 * word for offset, word, *_ in places(r)])
            if len(set(offsets)) == len(offsets):
                break
        for offset, word, bank, address in places(r):
            value = number(bank << PLACE_ADDRESS_BITS ^ address ^ r["half"] << 31 ^ space << 27)
            expected[offset + 4 * word : offset + 4 * word + 4] = value.to_bytes(4, "little")
        await command(dut, Unit.STORE, r)
        assert await ended(dut, 400_000) == "done"
        await ClockCycles(dut.clk, 2)
        assert memory.read(BASE, SIZE) == bytes(expected), space
    assert watch.moved["aw"] == watch.moved["b"] > 10
    assert watch.moved["w"] > watch.moved["aw"]


@cocotb.test()
@cocotb.parametrize(at=[0, 8 * 97, 8 * 399])
async def store_unit__ends_at_an_error_and_every_burst_that_began(dut: Any, at: int) -> None:
    """Refused at the first burst, at one between, at the last: never done; bursts that had begun are whole."""
    rng = random.Random(cocotb.RANDOM_SEED)
    slave = AxiSlaveWrite(
        AxiWriteBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=Refusing(range(BASE + at, BASE + at + 8))
    )
    pause(rng, slave.aw_channel, slave.w_channel, slave.b_channel)
    watch = Watch(dut, "m_axi", ("aw", "w", "b"))
    asked: list[int] = []
    cocotb.start_soon(lengths(dut, "aw", asked))
    cocotb.start_soon(spaces(dut))
    await reset(dut)
    dut.base.value, dut.size.value = BASE, SIZE
    lines = {"words": 200, "count3": 4, "step3": 800, "inner2": 200, "inner2_step": 0}
    await command(dut, Unit.STORE, usual(Unit.STORE, space=Space.OUTPUT, form=Form.FP32, **lines))
    assert await ended(dut, 20_000) == "WRITE"
    assert 0 <= at - int(dut.value.value) < 128
    await ClockCycles(dut.clk, 6000)
    assert watch.moved["w"] == sum(asked)
    assert watch.moved["b"] == watch.moved["aw"] == len(asked)
    assert not int(dut.m_axi_awvalid.value)
    assert not int(dut.done.value)


@cocotb.test()
@cocotb.parametrize(wrong=["place", "window"])
async def store_unit__leaves_no_burst_half_written(dut: Any, wrong: str) -> None:
    """A word outside of its space in the middle of a burst, a line outside of the window behind others."""
    rng = random.Random(cocotb.RANDOM_SEED)
    memory = AxiRamWrite(AxiWriteBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=2**40)
    pause(rng, memory.aw_channel, memory.w_channel, memory.b_channel)
    watch = Watch(dut, "m_axi", ("aw", "w", "b"))
    asked: list[int] = []
    cocotb.start_soon(lengths(dut, "aw", asked))
    cocotb.start_soon(spaces(dut))
    await reset(dut)
    dut.base.value, dut.size.value = BASE, SIZE if wrong == "place" else 1200
    step = 1 if wrong == "place" else 0
    depth = TARGET.size(Space.OUTPUT).depth
    lines = {"words": 100, "count3": 4, "step3": 400, "inner2": 100, "inner2_step": step, "outer0_step": step * 100}
    at = {"place": max(0, depth - 41)} if wrong == "place" else {}
    await command(dut, Unit.STORE, usual(Unit.STORE, space=Space.OUTPUT, form=Form.FP32, **lines, **at))
    assert await ended(dut, 20_000) == wrong.upper()
    await ClockCycles(dut.clk, 6000)
    assert watch.moved["w"] == sum(asked)
    assert watch.moved["b"] == len(asked) > 0
    zeros = memory.read(BASE + (4 * 41 if wrong == "place" else 1200), 400)
    assert zeros == bytes(400), "written beyond what was wrong"


async def unit(dut: Any, took: list[int], lasts: int) -> None:
    """A load unit that does nothing for some cycles; the cycles in which it took a command."""
    dut.load__ready.value = 1
    left = now = 0
    while True:
        await RisingEdge(dut.clk)
        now += 1
        dut.load_done.value = left == 2
        left = max(0, left - 1)
        if int(dut.load__valid.value) and left == 0:
            took.append(now)
            left = lasts


def program() -> list[int]:
    """Two loops of commands; every turn is a jump, with instructions behind it that were fetched in vain."""
    registers = [Set(Unit.LOAD, r.number, r.least) for r in REGISTERS[Unit.LOAD] if r.reset is None]
    inner = [Loop(3), Go(Unit.LOAD, 0, 0), Next()]
    return [encode(i) for i in [*registers, Loop(4), *inner, Next(), End()]]


@cocotb.test()
async def sequencer__runs_a_program_out_of_the_models_memory(dut: Any) -> None:
    rng = random.Random(cocotb.RANDOM_SEED)
    memory = AxiRamRead(AxiReadBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=2**40)
    watch, took = Watch(dut, "m_axi", ("ar", "r")), list[int]()
    words = program()
    memory.write(BASE + 8, b"".join(word.to_bytes(8, "little") for word in words))
    await reset(dut)
    cocotb.start_soon(unit(dut, took, 5))
    dut.address.value, dut.length.value, dut.watchdog.value = BASE + 8, len(words), 5000
    for turn in range(1, 4):
        pause(rng, memory.ar_channel, memory.r_channel)
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        await ClockCycles(dut.clk, 2)
        while int(dut.busy.value):
            await RisingEdge(dut.clk)
        assert not int(dut.error.value)
        assert len(took) == 12 * turn
    assert watch.moved["ar"] > 3 * len(words)


@cocotb.test()
async def sequencer__a_fetch_that_fails_is_an_error_and_the_bus_is_left_clean(dut: Any) -> None:
    rng = random.Random(cocotb.RANDOM_SEED)
    slave = AxiSlaveRead(AxiReadBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=Refusing(range(BASE, BASE + 8)))
    pause(rng, slave.ar_channel, slave.r_channel)
    watch = Watch(dut, "m_axi", ("ar", "r"))
    await reset(dut)
    dut.address.value, dut.length.value, dut.watchdog.value = BASE, 60, 5000
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
    await ClockCycles(dut.clk, 2)
    while int(dut.busy.value):
        await RisingEdge(dut.clk)
    assert MachineError(int(dut.error.value)) == MachineError.FETCH
    await ClockCycles(dut.clk, 2000)
    assert watch.moved["ar"] == watch.moved["r"] > 0
    assert not int(dut.m_axi_arvalid.value)


@cocotb.test()
async def axi_memory__keeps_what_the_models_manager_writes(dut: Any) -> None:
    """Unaligned writes and reads of any length, channels paused on both sides; beyond the memory a decode error."""
    rng = random.Random(cocotb.RANDOM_SEED)
    manager = AxiMaster(AxiBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
    Watch(dut, "s_axi", ("ar", "r", "aw", "w", "b"))
    channels = (manager.write_if.aw_channel, manager.write_if.w_channel, manager.write_if.b_channel)
    await reset(dut)
    cocotb.start_soon(holding(dut, rng))
    size = MEMORY_BEATS * BEAT
    held = bytearray(size)
    whole = await manager.write(0, bytes(held), awid=0)
    assert whole.resp == AxiResp.OKAY
    for _ in range(20):
        pause(rng, *channels, manager.read_if.ar_channel, manager.read_if.r_channel)
        at = rng.randrange(size)
        data = rng.randbytes(rng.randint(1, min(300, size - at)))
        held[at : at + len(data)] = data
        assert (await manager.write(at, data, awid=0)).resp == AxiResp.OKAY
        begin = rng.randrange(size)
        read = await manager.read(begin, rng.randint(1, size - begin), arid=0)
        assert read.resp == AxiResp.OKAY
        assert bytes(read.data) == bytes(held[begin : begin + len(read.data)])
    assert (await manager.write(size, bytes(64), awid=0)).resp == AxiResp.DECERR
    assert (await manager.write(size - 8, bytes(16), awid=0)).resp == AxiResp.DECERR
    held[-8:] = bytes(8)
    assert (await manager.read(size - 8, 16, arid=0)).resp == AxiResp.DECERR
    assert bytes((await manager.read(0, size, arid=0)).data) == bytes(held)


async def holding(dut: Any, rng: random.Random) -> None:
    while True:
        await RisingEdge(dut.clk)
        for channel in ("ar", "r", "aw", "w", "b"):
            getattr(dut, f"hold_{channel}").value = rng.random() < 0.2


@cocotb.test()
async def control_registers__are_those_of_the_table(dut: Any) -> None:
    """Reads, writes and strobed writes by a manager of AXI4-Lite, paused at random; what is none is a slave error."""
    rng = random.Random(cocotb.RANDOM_SEED)
    manager = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
    Watch(dut, "s_axi", ("ar", "r", "aw", "w", "b"))
    channels = (manager.write_if.aw_channel, manager.write_if.w_channel, manager.write_if.b_channel)
    await reset(dut)
    for name in ("busy", "nonfinite", "error", "error_instruction", "error_value", "instruction"):
        getattr(dut, name).value = 0
    assert await manager.read_dword(control("identity").address) == MAGIC
    held = {r.address: r.reset or 0 for r in CONTROL if r.access == Access.BOTH}
    for _ in range(60):
        pause(rng, *channels, manager.read_if.ar_channel, manager.read_if.r_channel)
        address, low = rng.choice([*held]), rng.randrange(4)
        data = rng.randbytes(rng.randint(1, 4 - low))
        assert (await manager.write(address + low, data)).resp == AxiResp.OKAY
        was = bytearray(held[address].to_bytes(4, "little"))
        was[low : low + len(data)] = data
        held[address] = int.from_bytes(was, "little")
        other = rng.choice([*held])
        assert await manager.read_dword(other) == held[other]
    answers = [manager.init_read(address, 4) for address in held]
    for answer, value in zip(answers, held.values(), strict=True):
        await answer.wait()
        assert int.from_bytes(answer.data.data, "little") == value
    for address in (0x7C, 0xFFC):
        assert (await manager.read(address, 4)).resp == AxiResp.SLVERR
        assert (await manager.write(address, bytes(4))).resp == AxiResp.SLVERR
