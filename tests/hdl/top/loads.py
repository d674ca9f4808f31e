"""What a load means, word by word, and a load unit before a memory in co-simulation."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from weft.dataflow.program.spaces import PLACE_ADDRESS_BITS, Form, Space, Target
from weft.hdl.blocks.sorter import Sore, drive_sore
from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.axi import ADDRESS_BITS
from weft.hdl.top.axi_memory import AxiMemory
from weft.hdl.top.lines import OFFSET_BITS
from weft.hdl.top.load import LoadUnit, write_layout

from .commands import BANK, TARGET, inner, starts
from .transfers import BEAT, CHANNELS, DEPTH, LANES, LATENCY, as_beats

Word = tuple[int, int, int, int, int, int, int]
"""Space, half, bank, address, bits, index, whether a bubble."""


def loaded(r: dict[str, int], memory: bytes, target: Target) -> list[Word]:
    """What a load writes, in order: each word out of its bits, placed by the odometers' own definition."""
    written: list[Word] = []
    index_bits = target.pattern.index_bits if target.pattern else 0
    for number, (offset, first) in enumerate(starts(r)):
        bits = int.from_bytes(memory[offset : offset + 4 * r["words"] + 4], "little")
        for word in range(r["words"]):
            at = (first + inner(r, word)) % 2**32
            index = bubble = 0
            match Form(r["form"]):
                case Form.OPERAND:
                    value = bits >> 16 * word & 0xFFFF
                    if r["space"] == Space.N2S:
                        along = number if r["across"] else word
                        index = along % r["run"] % r["group"]
                    elif r["space"] != Space.W2E:
                        value = int(np.uint16(value).view(np.float16).astype(np.float32).view(np.uint32))
                case Form.FP32:
                    value = bits >> 32 * word & 0xFFFFFFFF
                case Form.PAIR:
                    pair = bits >> (16 + index_bits) * word
                    value, index = pair & 0xFFFF, pair >> 16 & (1 << index_bits) - 1
                case Form.BLANK:
                    bubble = int(r["space"] == Space.N2S)
                    value = 0x8000 if r["space"] in (Space.N2S, Space.W2E) else 0x80000000
            bank, address = at >> PLACE_ADDRESS_BITS, at & BANK - 1
            written.append((r["space"], r["half"], bank, address, value, index, bubble))
    return written


class LoadBench(wiring.Component):
    """A load unit, with SORE beside it, before a memory that holds ``contents``."""

    def __init__(self, contents: npt.NDArray[np.uint16], target: Target = TARGET) -> None:
        assert target.pattern is not None
        self.load, self.sore = LoadUnit(target, BEAT), Sore(target.spec, target.pattern, blackbox=True)
        self.memory = AxiMemory(BEAT, DEPTH, latency=LATENCY, init=as_beats(contents))
        super().__init__(
            {
                "command": In(stream.Signature(self.load.command.payload.shape())),
                "base": In(ADDRESS_BITS),
                "size": In(OFFSET_BITS),
                "write": Out(write_layout(LANES)),
                **{name: Out(1) for name in ("writes", "done", "busy")},
                "error": Out(4),
                "value": Out(32),
                **{f"hold_{channel}": In(1) for channel in CHANNELS},
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        return self.sore.parts

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.load, m.submodules.memory = load, memory = self.load, self.memory
        m.submodules.sore = self.sore
        m.d.comb += drive_sore(load.sore, self.sore)
        for name in ("ar", "r"):
            wiring.connect(m, getattr(load, name), getattr(memory.bus, name))
        wiring.connect(m, wiring.flipped(self.command), load.command)
        m.d.comb += [getattr(memory, f"hold_{x}").eq(getattr(self, f"hold_{x}")) for x in CHANNELS]
        m.d.comb += [getattr(load, x).eq(getattr(self, x)) for x in ("base", "size")]
        m.d.comb += [
            getattr(self, x).eq(getattr(load, x)) for x in ("write", "writes", "done", "busy", "error", "value")
        ]
        return m


def contents() -> npt.NDArray[np.uint16]:
    """Any words, no NaN among them: a NaN is widened to the one that the machine makes, which other tests hold."""
    words = np.random.default_rng(3).integers(0, 2**16, DEPTH * LANES).astype(np.uint16)
    return np.where(words & 0x7C00 == 0x7C00, words ^ 0x0400, words).astype(np.uint16)


@cache
def machine() -> Cosim:
    bench = LoadBench(contents())
    return Cosim(bench, bench.parts)


def words_of(payload: npt.NDArray[np.uint32]) -> list[Word]:
    """The words of one write, in order."""
    w = write_layout(LANES).from_bits(sum(int(word) << 32 * i for i, word in enumerate(payload)))
    bank, address = w["place"] >> PLACE_ADDRESS_BITS, w["place"] & BANK - 1
    found = []
    for i in range(w["words"]):
        at, of = (bank + i, address) if w["across"] else (bank, address + i)
        lane = (at if w["across"] else of) % LANES
        bits = w["values"][lane]
        pairs = w["space"] == Space.N2S and not w["bubble"]
        index = w["indices"][lane] if pairs else 0
        found.append((w["space"], w["half"], at, of, bits, index, w["bubble"] if w["space"] == Space.N2S else 0))
    return found
