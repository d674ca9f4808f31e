"""SORE proved at M = 4: for all words, in all cycles, a lane yields exactly the pairs and the flag of the contract."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from weft.hdl.blocks import batcher
from weft.hdl.blocks.sorter import NetworkLane, SerialLane
from weft.workloads.sparsity import NMPattern

from ..proof import proved

GROUP = 4
STEPS = 2 * GROUP + 2
"""Enough for the induction: by then a lane has let go whatever it held and taken in a whole group."""


def pattern(keep: int) -> NMPattern:
    return NMPattern(keep=keep, group=GROUP)


def delayed(m: Module, value: Value, cycles: int) -> Value:
    for _ in range(cycles):
        later = Signal(len(value))
        m.d.sync += later.eq(value)
        value = later
    return value


def kept_by_count(m: Module, keep: int, words: list[Value], valid: list[Value]) -> list[Value]:
    """The contract: an element stays if fewer than ``keep`` are ahead of it. Its pair, one-hot; 0 if it goes."""
    slots: list[Value] = []
    slot = C(1, keep)
    for j, word in enumerate(words):
        beaten_by = [words[i][:15] >= word[:15] if i < j else words[i][:15] > word[:15] for i in range(GROUP)]
        ahead = sum((valid[i] & beaten_by[i] for i in range(GROUP) if i != j), C(0, 3))
        stays = Signal(name=f"stays_{j}")
        m.d.comb += stays.eq(valid[j] & (ahead < keep))
        slots.append(Mux(stays, slot, 0))
        slot = Mux(stays, slot << 1, slot)[:keep]
    return slots


def require_pair(m: Module, when: Value, p: int, pair: Any, words: list[Value], slots: list[Value]) -> None:
    """Pair ``p`` is the element of that slot to the bit, and there only if there is one."""
    m.d.comb += Assert(~when | (pair.valid == Cat(slot[p] for slot in slots).any()))
    for j, word in enumerate(words):
        m.d.comb += Assert(~(when & slots[j][p]) | ((pair.index == j) & (pair.value == word)))


def require_flag(m: Module, when: Value, nan: Value, words: list[Value], valid: list[Value]) -> None:
    is_nan = [word[10:15].all() & word[:10].any() & exists for word, exists in zip(words, valid, strict=True)]
    m.d.comb += Assert(~when | (nan == Cat(is_nan).any()))


class NetworkContract(wiring.Component):
    """Any word on any wire in any cycle, any of them missing."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        super().__init__({"value": In(16).array(GROUP), "valid": In(GROUP)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lane = lane = NetworkLane(pattern(self.keep))
        m.d.comb += lane.valid.eq(self.valid)
        m.d.comb += [lane.value[j].eq(self.value[j]) for j in range(GROUP)]

        words = [delayed(m, self.value[j], lane.latency) for j in range(GROUP)]
        valid = [delayed(m, self.valid[j], lane.latency) for j in range(GROUP)]
        arrived = delayed(m, C(1), lane.latency)
        slots = kept_by_count(m, self.keep, words, valid)
        require_flag(m, arrived, lane.nan, words, valid)
        for p in range(self.keep):
            require_pair(m, arrived, p, lane.pair[p], words, slots)
        return m


class SerialContract(wiring.Component):
    """Any words, a group every four cycles, the elements of a short group first."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        super().__init__({"value": In(16), "valid": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lane = lane = SerialLane(pattern(self.keep))
        phase = Signal(range(GROUP))
        m.d.sync += phase.eq(phase + 1)
        m.d.comb += [lane.value.eq(self.value), lane.valid.eq(self.valid)]
        m.d.comb += [lane.index.eq(phase), lane.last.eq(phase == GROUP - 1)]
        m.d.comb += Assume(~self.valid | (phase == 0) | delayed(m, self.valid, 1))

        group = [delayed(m, Cat(self.value, self.valid), GROUP - 1 - j) for j in range(GROUP)]
        closed = [Signal(17, name=f"closed_{j}") for j in range(GROUP)]
        leaving = Signal()
        with m.If(lane.last):
            m.d.sync += [leaving.eq(1), *(word.eq(now) for word, now in zip(closed, group, strict=True))]
        words, valid = [word[:16] for word in closed], [word[16] for word in closed]
        slots = kept_by_count(m, self.keep, words, valid)
        require_flag(m, leaving, lane.nan, words, valid)
        for p in range(self.keep):
            require_pair(m, leaving & (phase == p), p, lane.pair, words, slots)
        m.d.comb += Assert(~lane.pair.valid | (phase < self.keep))
        return m


@pytest.mark.parametrize("keep", [1, *(pytest.param(keep, marks=pytest.mark.slow) for keep in (2, 3, 4))])
@pytest.mark.parametrize("contract", [NetworkContract, SerialContract])
def test_every_group_of_four_yields_the_right_pairs(contract, keep, tmp_path):
    assert proved(contract(keep), tmp_path, STEPS)


def test_a_lane_that_replaces_the_earlier_of_equals_is_refuted(tmp_path):
    def not_strict(text: str) -> str:
        before, lane = text.split("module \\top.lane\n")
        assert "cell $gt" in lane
        return before + "module \\top.lane\n" + lane.replace("cell $gt", "cell $ge", 1)

    assert not proved(SerialContract(2), tmp_path, STEPS, not_strict)


@pytest.mark.parametrize("inputs", [2, GROUP])
def test_a_network_that_lacks_a_comparator_is_refuted(inputs, tmp_path, monkeypatch):
    stages = batcher.batcher_stages

    def without_the_last(wires: int) -> list[list[tuple[int, int]]]:
        return [*stages(wires)[:-1], stages(wires)[-1][:-1]] if wires == inputs else stages(wires)

    monkeypatch.setattr(batcher, "batcher_stages", without_the_last)
    assert not proved(NetworkContract(2), tmp_path, STEPS)
