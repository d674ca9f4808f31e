"""What transfers mean, word by word, and a reader and a writer before a memory in co-simulation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.axi import ADDRESS_BITS
from weft.hdl.top.axi_memory import AxiMemory
from weft.hdl.top.lines import OFFSET_BITS, WORD, transfer_layout
from weft.hdl.top.reader import Reader, read_layout
from weft.hdl.top.writer import Writer

BEAT, DEPTH, LATENCY = 8, 2048, 6
"""Bytes a beat, beats of the memory, cycles until it answers."""
LANES = BEAT // 2
TRANSFER = transfer_layout(WORD)
CHANNELS = ("ar", "r", "aw", "w", "b")


@dataclass(frozen=True)
class Transfer:
    """A transfer of 16-bit words."""

    address: int
    words: int
    counts: tuple[int, int, int, int] = (1, 1, 1, 1)
    steps: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def bits(self) -> int:
        fields = {"address": self.address, "words": self.words, "counts": self.counts, "steps": self.steps}
        return TRANSFER.const(fields).as_value().value

    @property
    def lines(self) -> Iterator[int]:
        """Byte addresses."""
        for place in itertools.product(*map(range, self.counts)):
            yield self.address + sum(i * step for i, step in zip(place, self.steps, strict=True))

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Word addresses, in order."""
        return np.concatenate([line // 2 + np.arange(self.words) for line in self.lines])

    @property
    def beats(self) -> int:
        """Beats that the lines lie in, each line by itself."""
        return sum((line + 2 * self.words - 1) // BEAT - line // BEAT + 1 for line in self.lines)


class ReaderBench(wiring.Component):
    """A reader before a memory that holds ``contents``."""

    def __init__(self, contents: npt.NDArray[np.uint16]) -> None:
        self.reader = Reader(BEAT)
        self.memory = AxiMemory(BEAT, DEPTH, latency=LATENCY, init=as_beats(contents))
        super().__init__(
            {
                "transfer": In(stream.Signature(TRANSFER)),
                "base": In(ADDRESS_BITS),
                "size": In(OFFSET_BITS),
                "beats": Out(stream.Signature(read_layout(BEAT))),
                **{f"hold_{channel}": In(1) for channel in CHANNELS},
                **{name: Out(1) for name in ("outside", "failed")},
                "address": Out(OFFSET_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.reader, m.submodules.memory = reader, memory = self.reader, self.memory
        for name in ("ar", "r"):
            wiring.connect(m, getattr(reader, name), getattr(memory.bus, name))
        wiring.connect(m, wiring.flipped(self.transfer), reader.transfer)
        wiring.connect(m, reader.beats, wiring.flipped(self.beats))
        m.d.comb += [getattr(memory, f"hold_{x}").eq(getattr(self, f"hold_{x}")) for x in CHANNELS]
        m.d.comb += [getattr(reader, x).eq(getattr(self, x)) for x in ("base", "size")]
        m.d.comb += [getattr(self, x).eq(getattr(reader, x)) for x in ("outside", "failed", "address")]
        return m


class WriterBench(wiring.Component):
    """A writer whose beats are counted up, before a memory that is then read back through `Reader`."""

    def __init__(self) -> None:
        self.writer, self.reader = Writer(BEAT), Reader(BEAT)
        self.memory = AxiMemory(BEAT, DEPTH, latency=LATENCY)
        super().__init__(
            {
                "transfer": In(stream.Signature(TRANSFER)),
                "source": In(stream.Signature(8 * BEAT)),
                "base": In(ADDRESS_BITS),
                "size": In(OFFSET_BITS),
                "taken": Out(1),
                "done": Out(1),
                **{f"hold_{channel}": In(1) for channel in CHANNELS},
                **{name: Out(1) for name in ("outside", "failed")},
                "address": Out(OFFSET_BITS),
                "back": In(stream.Signature(TRANSFER)),
                "beats": Out(stream.Signature(read_layout(BEAT))),
                "asks": Out(stream.Signature(self.writer.asks.payload.shape())),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.writer, m.submodules.reader, m.submodules.memory = writer, reader, memory = (
            self.writer,
            self.reader,
            self.memory,
        )
        for name in ("ar", "r"):
            wiring.connect(m, getattr(reader, name), getattr(memory.bus, name))
        for name in ("aw", "w", "b"):
            wiring.connect(m, getattr(writer, name), getattr(memory.bus, name))
        wiring.connect(m, wiring.flipped(self.transfer), writer.transfer)
        wiring.connect(m, wiring.flipped(self.source), writer.beats)
        wiring.connect(m, wiring.flipped(self.back), reader.transfer)
        wiring.connect(m, reader.beats, wiring.flipped(self.beats))
        wiring.connect(m, writer.asks, wiring.flipped(self.asks))
        m.d.comb += [getattr(memory, f"hold_{x}").eq(getattr(self, f"hold_{x}")) for x in CHANNELS]
        m.d.comb += [getattr(unit, x).eq(getattr(self, x)) for unit in (writer, reader) for x in ("base", "size")]
        m.d.comb += [getattr(self, x).eq(getattr(writer, x)) for x in ("outside", "failed", "address", "done")]
        m.d.comb += self.taken.eq(writer.beats.ready & self.source.valid)
        return m


def as_beats(words: npt.NDArray[np.uint16]) -> list[int]:
    """The memory's beats that hold ``words``, little-endian."""
    return [int.from_bytes(beat.tobytes(), "little") for beat in words.astype("<u2").reshape(-1, LANES)]


def contents() -> npt.NDArray[np.uint16]:
    """Of the memory before a reader: no two words alike in any window that a test could mistake."""
    return np.random.default_rng(7).permutation(DEPTH * LANES).astype(np.uint16)


@cache
def reader() -> Cosim:
    return Cosim(ReaderBench(contents()))


@cache
def writer() -> Cosim:
    return Cosim(WriterBench())


def wide(values: list[int], cycles: int, words: int) -> npt.NDArray[np.uint32]:
    """Wide numbers, one a cycle from the first on, as `Cosim` takes them; 0 from then on."""
    out = np.zeros((cycles, words), np.uint32)
    for t, value in enumerate(values):
        out[t] = [value >> 32 * i & 0xFFFFFFFF for i in range(words)]
    return out


def holds(seed: int | None, cycles: int) -> dict[str, npt.NDArray[np.uint32]]:
    """Each channel held in some cycles by chance, each at a rate of its own; never without a seed."""
    if seed is None:
        return {}
    rng = np.random.default_rng(seed)
    return {f"hold_{x}": (rng.random(cycles) < rng.random() * 0.8).astype(np.uint32) for x in CHANNELS}


def lanes_of(payload: npt.NDArray[np.uint32]) -> tuple[list[int], dict[str, int]]:
    """Words of the lanes that count of a beat that was read, and its marks."""
    number = sum(int(word) << 32 * i for i, word in enumerate(payload))
    view = read_layout(BEAT).from_bits(number)
    of = view["of"]
    words = [int(view["data"]) >> 16 * i & 0xFFFF for i in range(LANES)]
    return words[of["first"] : of["end"] + 1], {"line_end": of["line_end"], "last": of["last"]}
