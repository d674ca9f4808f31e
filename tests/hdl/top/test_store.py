"""The unit that stores: every word where its registers say, with bias and ReLU, in a known time."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.program.control import MachineError
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.spaces import PLACE_ADDRESS_BITS, Form, Space, place
from weft.dataflow.program.transfer_time import store_cycles
from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.axi import ADDRESS_BITS
from weft.hdl.top.axi_memory import AxiMemory
from weft.hdl.top.lines import OFFSET_BITS, WORD, transfer_layout
from weft.hdl.top.reader import Reader, read_layout
from weft.hdl.top.store import StoreUnit

from .commands import TARGET, as_command, drawn, places, starts, usual
from .transfers import BEAT, CHANNELS, DEPTH, LANES, LATENCY, Transfer, holds, lanes_of, wide

pytestmark = pytest.mark.slow  # its RTL is compiled for half a minute and more

SEEDS = st.none() | st.integers(0, 2**16)
MIX = 0x9E3779B1


def mixed(seed: Any) -> Any:
    """A number for a place: every pattern of bits comes, in Python and in RTL alike."""
    return (seed * MIX)[:32] ^ (seed * MIX)[5:32]


class StoreBench(wiring.Component):
    """A store unit whose spaces hold a number made of each place, before a memory that is then read back."""

    def __init__(self) -> None:
        self.store, self.reader = StoreUnit(TARGET, BEAT), Reader(BEAT)
        self.memory = AxiMemory(BEAT, DEPTH, latency=LATENCY)
        super().__init__(
            {
                "command": In(stream.Signature(self.store.command.payload.shape())),
                "base": In(ADDRESS_BITS),
                "size": In(OFFSET_BITS),
                **{name: Out(1) for name in ("done", "busy", "nonfinite")},
                "error": Out(4),
                "value": Out(32),
                **{f"hold_{channel}": In(1) for channel in CHANNELS},
                "back": In(stream.Signature(transfer_layout(WORD))),
                "beats": Out(stream.Signature(read_layout(BEAT))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.store, m.submodules.reader, m.submodules.memory = store, reader, memory = (
            self.store,
            self.reader,
            self.memory,
        )
        for unit, names in ((reader, ("ar", "r")), (store, ("aw", "w", "b"))):
            for name in names:
                wiring.connect(m, getattr(unit, name), getattr(memory.bus, name))
        wiring.connect(m, wiring.flipped(self.command), store.command)
        wiring.connect(m, wiring.flipped(self.back), reader.transfer)
        wiring.connect(m, reader.beats, wiring.flipped(self.beats))
        m.d.comb += [getattr(memory, f"hold_{x}").eq(getattr(self, f"hold_{x}")) for x in CHANNELS]
        m.d.comb += [store.base.eq(self.base), store.size.eq(self.size), reader.size.eq(DEPTH * BEAT)]
        m.d.comb += [getattr(self, x).eq(getattr(store, x)) for x in ("done", "busy", "nonfinite", "error", "value")]
        read, bank = store.read, store.read.place[PLACE_ADDRESS_BITS:]
        for x in range(LANES):
            behind, at = Signal(range(LANES), name=f"behind_{x}"), Signal(32, name=f"at_{x}")
            m.d.comb += [behind.eq(x - bank), at.eq(read.place + Mux(read.across, behind << PLACE_ADDRESS_BITS, 0))]
            m.d.sync += store.lanes_read[x].eq(mixed(at ^ (read.half << 31) ^ (store.space << 27)))
            m.d.sync += store.bias_read[x].eq(mixed((store.bias_place + x) ^ (store.bias_half << 30) ^ 0x5A5A))
        return m


def number(seed: int) -> int:
    """`mixed` of Python."""
    product = seed * MIX
    return (product & 0xFFFFFFFF) ^ ((product & 0xFFFFFFFF) >> 5)


@cache
def machine() -> Cosim:
    return Cosim(StoreBench())


def drawn_store(rng: np.random.Generator) -> dict[str, int]:
    """Any store that may be, without two words in one place of memory."""
    space = Space(rng.choice(TARGET.stored))

    def own(rng: np.random.Generator) -> dict[str, int]:
        r = {"watch": int(rng.integers(2)), "bias_place": int(rng.integers(100)), "bias_half": int(rng.integers(2))}
        return r | ({name: int(rng.integers(2)) for name in ("bias", "relu")} if space == Space.OUTPUT else {})

    while True:
        forms = (Form.PAIR,) if space == Space.PAIRS else (Form.OPERAND, Form.FP32)
        r = drawn(rng, Unit.STORE, space, Form(rng.choice(forms)), own)
        size = {Form.FP32: 4 * r["words"], Form.OPERAND: 2 * r["words"], Form.PAIR: (19 * r["words"] + 15) // 16 * 2}
        if (np.diff(sorted(offset for offset, _ in starts(r))) >= size[Form(r["form"])]).all():
            return r


def stored(r: dict[str, int]) -> tuple[bytes, bool]:
    """Memory after a store, by its definition, and whether an Inf or NaN was written; NumPy rounds."""
    memory, broken = bytearray(DEPTH * BEAT), False
    if r["form"] == Form.PAIR:
        for offset, line in itertools.groupby(places(r), lambda x: x[0]):
            made = [number((place(b, a) ^ r["half"] << 31 ^ r["space"] << 27) & 0xFFFFFFFF) for *_, b, a in line]
            bits = sum((pair & 0x7FFFF) << 19 * i for i, pair in enumerate(made))
            size = (19 * len(made) + 15) // 16 * 2
            memory[offset : offset + size] = bits.to_bytes(size, "little")
        return bytes(memory), False
    for offset, word, bank, address in places(r):
        value = np.uint32(number((place(bank, address) ^ r["half"] << 31 ^ r["space"] << 27) & 0xFFFFFFFF))
        if r["bias"]:
            bias = np.uint32(number((r["bias_place"] + word) ^ r["bias_half"] << 30 ^ 0x5A5A))
            value = (value.view(np.float32) + bias.view(np.float32)).view(np.uint32)
            value = np.uint32(0x7FC00000) if np.isnan(value.view(np.float32)) else value
        if r["relu"] and not (value.view(np.float32) > 0 or np.isnan(value.view(np.float32))):
            value = np.uint32(0)
        if r["form"] == Form.FP32:
            memory[offset + 4 * word : offset + 4 * word + 4] = value.tobytes()
            broken |= not np.isfinite(value.view(np.float32))
        else:
            with np.errstate(over="ignore"):
                half = value.view(np.float32).astype(np.float16)
            half = np.uint16(0x7E00).view(np.float16) if np.isnan(half) else half
            memory[offset + 2 * word : offset + 2 * word + 2] = half.tobytes()
            broken |= not np.isfinite(half)
    return bytes(memory), bool(broken)


def ran(r: dict[str, int], cycles: int, seed: int | None = None, size: int = DEPTH * BEAT) -> dict[str, Any]:
    bench = machine()
    bench.reset()
    words = bench.inputs["command__payload"].words
    command = wide([as_command(Unit.STORE, r)], cycles, words)
    fed = {"command__valid": np.arange(cycles) < 1, "command__payload": command, "size": size}
    return bench.run(fed | holds(seed, cycles), cycles)


@np.errstate(invalid="ignore", over="ignore")
@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), SEEDS)
def test_a_store_writes_each_word_in_its_place_and_nothing_else(drawing: int, seed: int | None) -> None:
    r = drawn_store(np.random.default_rng(drawing))
    memory, broken = stored(r)
    seen = ran(r, 60 * len(list(places(r))) + 400, seed)
    assert not seen["error"].any()
    assert seen["done"].sum() == 1
    assert not seen["busy"][np.flatnonzero(seen["done"])[0] + 1 :].any()
    assert seen["nonfinite"].any() == (broken and r["watch"])
    whole = Transfer(0, 4 * 64, (1, 1, 1, DEPTH // 64), (0, 0, 0, 64 * BEAT))
    cycles = DEPTH + 60
    back = machine().run(
        {"back__valid": np.arange(cycles) < 1, "back__payload": wide([whole.bits], cycles, 8), "beats__ready": 1},
        cycles,
    )
    words = [w for x in back["beats__payload"][back["beats__valid"] == 1] for w in lanes_of(x)[0]]
    assert np.array(words, np.uint16).tobytes() == memory


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_a_store_takes_the_cycles_that_are_said(drawing: int) -> None:
    r = drawn_store(np.random.default_rng(drawing))
    cycles = store_cycles(r, TARGET, BEAT, LATENCY)
    assert np.flatnonzero(ran(r, cycles + 20)["done"]).tolist() == [cycles]


def _plain(**given: int) -> dict[str, int]:
    form = {"space": Space.OUTPUT, "form": Form.OPERAND, "words": 4, "inner2": 4, "inner2_step": 1}
    return usual(Unit.STORE, **form | given)


OUTPUT = TARGET.size(Space.OUTPUT)


@pytest.mark.parametrize(
    ("registers", "error", "value"),
    [
        (_plain(space=Space.W2E), MachineError.COMMAND, 0),
        (_plain(form=Form.BLANK), MachineError.COMMAND, 0),
        (_plain(space=Space.RESULTS, bias=1), MachineError.COMMAND, 0),
        (_plain(form=Form.PAIR), MachineError.COMMAND, 0),
        (_plain(space=Space.PAIRS), MachineError.COMMAND, 0),
        (_plain(address=1), MachineError.ALIGNMENT, 1),
        (_plain(form=Form.FP32, step1=2), MachineError.ALIGNMENT, 0),
        (_plain(place=place(OUTPUT.banks)), MachineError.PLACE, place(OUTPUT.banks)),
        (_plain(place=place(0, OUTPUT.depth - 3)), MachineError.PLACE, place(0, OUTPUT.depth)),
        (_plain(address=DEPTH * BEAT - 6), MachineError.WINDOW, DEPTH * BEAT - 6),
    ],
)
def test_an_error_stops_the_unit(registers: dict[str, int], error: MachineError, value: int) -> None:
    seen = ran(registers, 80)
    assert (seen["error"][-1], seen["value"][-1]) == (error, value)
    assert not seen["done"].any()


def test_a_bus_that_fails_is_told_with_its_offset() -> None:
    seen = ran(_plain(address=DEPTH * BEAT), 80, size=2 * DEPTH * BEAT)
    assert (seen["error"][-1], seen["value"][-1]) == (MachineError.WRITE, DEPTH * BEAT)
