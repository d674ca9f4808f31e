"""SORE stepped cycle by cycle: every lane's held pairs, or every register of the sorting networks.

A value is its 16 bits; its magnitude is the 15 below the sign. Group ``g`` is group ``g % groups`` of column ``g //
groups`` and goes to lane ``g % lanes``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel

MAGNITUDE = 0x7FFF
LAST_INDEX = 63
"""An index counted down from here orders equal magnitudes by the lower index."""


@kernel
def run_serial(
    bits: Any,
    infinity: int,
    start: Any,
    length: Any,
    group: int,
    lanes: int,
    kept_bits: Any,
    kept_index: Any,
    flags: Any,
    left: Any,
) -> int:
    """Compare and replace, one value a cycle a lane; cycles.

    ``bits`` uint16 [k, n], a NaN where the magnitude is above ``infinity``; ``start``, ``length`` int64 [groups].
    Written, by group: ``kept_bits`` uint16 and ``kept_index`` uint8 [groups n, keep], ``flags`` uint8 [groups n],
    ``left`` int64 [groups n, keep].
    """
    total, keep = kept_bits.shape
    groups = len(start)
    held_bits = np.zeros((lanes, keep), np.uint16)
    held_index = np.zeros((lanes, keep), np.uint8)
    held = np.zeros(lanes, np.int64)
    out_bits = np.zeros((lanes, keep), np.uint16)
    out_index = np.zeros((lanes, keep), np.uint8)
    out_count = np.zeros(lanes, np.int64)
    taken, phase, leaving, word = 0, 0, -1, keep  # first group of the round taken in, of the round leaving
    t = 0
    while taken < total or word < keep:
        if word < keep:
            for lane in range(min(lanes, total - leaving)):
                if word < out_count[lane]:
                    kept_bits[leaving + lane, word] = out_bits[lane, word]
                    kept_index[leaving + lane, word] = out_index[lane, word]
                    left[leaving + lane, word] = t
            word += 1
        if taken < total:
            for lane in range(min(lanes, total - taken)):
                g = taken + lane
                if phase < length[g % groups]:
                    value = bits[start[g % groups] + phase, g // groups]
                    if value & MAGNITUDE > infinity:
                        flags[g] = 1
                    held[lane] = _offer(held_bits[lane], held_index[lane], held[lane], value, phase)
            phase += 1
            if phase == group:
                out_bits[:] = held_bits
                out_index[:] = held_index
                out_count[:] = held
                held[:] = 0
                leaving, word = taken, 0
                taken, phase = taken + lanes, 0
        t += 1
    return t


@kernel
def _offer(held_bits: Any, held_index: Any, held: int, value: int, index: int) -> int:
    """Offer a value to a lane; how many it holds then. The pairs stay in index order."""
    keep = len(held_bits)
    if held == keep:
        smallest = 0
        for p in range(1, keep):
            if held_bits[p] & MAGNITUDE <= held_bits[smallest] & MAGNITUDE:
                smallest = p
        if value & MAGNITUDE <= held_bits[smallest] & MAGNITUDE:
            return held
        for p in range(smallest, keep - 1):
            held_bits[p] = held_bits[p + 1]
            held_index[p] = held_index[p + 1]
        held -= 1
    held_bits[held] = value
    held_index[held] = index
    return held + 1


@kernel
def run_network(
    bits: Any,
    infinity: int,
    start: Any,
    length: Any,
    lanes: int,
    by_magnitude: Any,
    by_index: Any,
    group: int,
    kept_bits: Any,
    kept_index: Any,
    flags: Any,
    left: Any,
) -> int:
    """A group a cycle a lane through two sorting networks; cycles. Written as by `run_serial`.

    ``by_magnitude`` and ``by_index`` int64 [stages, comparators, 2] name the wires of each comparator, -1 for none; the
    register behind a stage holds one word a wire: (magnitude, index, sign) in the first network, (index, bits) in the
    second.
    """
    total, keep = kept_bits.shape
    groups = len(start)
    width, kept_width = 1 << _log2(group), 1 << _log2(keep)
    depth, restore = len(by_magnitude), len(by_index)
    wires = np.full((depth + 1, lanes, width), -1, np.int64)  # [s]: the input of stage s
    kept_wires = np.full((restore + 1, lanes, kept_width), -1, np.int64)
    entered = np.full(depth + restore + 1, -1, np.int64)  # first group of the round before each stage
    taken, done = 0, 0
    t = 0
    while done < total:
        entered[0] = taken if taken < total else -1
        if taken < total:
            for lane in range(min(lanes, total - taken)):
                g = taken + lane
                flags[g] = _enter(bits[start[g % groups] :, g // groups], infinity, length[g % groups], wires[0, lane])
            taken += lanes
        # From the last register back, so that every stage still reads what stood there in the last cycle.
        if depth == 0:
            _cross(wires[0], kept_wires[0], keep)
        leaving = entered[depth + restore]
        if leaving >= 0:
            for lane in range(min(lanes, total - leaving)):
                _leave(kept_wires[restore, lane], kept_bits[leaving + lane], kept_index[leaving + lane])
                left[leaving + lane] = t
            done = leaving + lanes
        for s in range(restore - 1, -1, -1):
            _compare(by_index[s], kept_wires[s], kept_wires[s + 1])
        for s in range(depth - 1, -1, -1):
            _compare(by_magnitude[s], wires[s], wires[s + 1])
        if depth > 0:
            _cross(wires[depth], kept_wires[0], keep)
        for s in range(depth + restore, 0, -1):
            entered[s] = entered[s - 1]
        t += 1
    return t


@kernel
def _log2(count: int) -> int:
    """Rounded up."""
    p = 0
    while 1 << p < count:
        p += 1
    return p


@kernel
def _enter(bits: Any, infinity: int, length: int, wires: Any) -> int:
    """Put a group on the wires of a lane, larger words first in rank; 1 if it holds a NaN."""
    flag = 0
    for j in range(len(wires)):
        wires[j] = -1
        if j < length:
            value = np.int64(bits[j])
            if value & MAGNITUDE > infinity:
                flag = 1
            wires[j] = ((value & MAGNITUDE) * (LAST_INDEX + 1) + LAST_INDEX - j) * 2 + (value >> 15)
    return flag


@kernel
def _cross(wires: Any, kept_wires: Any, keep: int) -> None:
    """The ``keep`` largest to the second network, the words turned so that the index ranks them; only wiring."""
    for lane in range(len(wires)):
        for j in range(keep):
            word = wires[lane, j]
            kept_wires[lane, j] = -1
            if word >= 0:
                magnitude, index = word // 2 // (LAST_INDEX + 1), word // 2 % (LAST_INDEX + 1)
                kept_wires[lane, j] = index * 65536 + (word % 2) * 32768 + magnitude


@kernel
def _compare(comparators: Any, source: Any, target: Any) -> None:
    """One stage: the larger word of each comparator to its first wire."""
    target[:] = source
    for x in range(len(comparators)):
        i, j = comparators[x, 0], comparators[x, 1]
        if i < 0:
            break
        for lane in range(len(source)):
            target[lane, i] = max(source[lane, i], source[lane, j])
            target[lane, j] = min(source[lane, i], source[lane, j])


@kernel
def _leave(wires: Any, kept_bits: Any, kept_index: Any) -> None:
    """Unpack the pairs of a group."""
    for p in range(len(kept_bits)):
        if wires[p] >= 0:
            kept_bits[p] = wires[p] & 0xFFFF
            kept_index[p] = LAST_INDEX - wires[p] // 65536
