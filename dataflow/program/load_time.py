"""How long a load takes: the cycles in which its words are placed, and what comes before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from .spaces import PLACE_ADDRESS_BITS, Form, Space, Target

__all__ = ["AFTER", "BEFORE", "line_offsets", "load_cycles", "placing_cycles"]

BEFORE = 4
"""Cycles from that in which a command is taken to its first burst on the bus: command, line, window, queue."""
AFTER = 3
"""Cycles from that in which a word leaves its beat to that in which it is written: beat, widened, turned."""
_ALONG = (Space.W2E, Space.N2S)
_SINGLE = (Space.BIAS, Space.CONSTANTS)


def line_offsets(registers: Mapping[str, int], period: int) -> Counter[int]:
    """How many lines of a transfer begin at each byte offset modulo ``period``."""
    found = np.array([registers["address"] % period], np.int64)
    counts = np.ones(1, np.int64)
    for i in range(4):
        steps = np.arange(registers[f"count{i}"], dtype=np.int64) * registers[f"step{i}"] % period
        each, times = np.unique(steps, return_counts=True)
        all_offsets = (found[:, None] + each) % period
        found, where = np.unique(all_offsets, return_inverse=True)
        counts = np.bincount(where.ravel(), (counts[:, None] * times).ravel()).astype(np.int64)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def load_cycles(registers: Mapping[str, int], target: Target, beat_bytes: int, latency: int) -> int:
    """Cycles from that in which a load's command is taken to that in which its last word is written.

    Of a memory that answers ``latency`` cycles after a burst is asked for, and from then on with a beat a cycle.
    """
    wait = 0 if registers["form"] == Form.BLANK else latency
    return BEFORE + wait + placing_cycles(registers, target, beat_bytes) - 1 + AFTER


def placing_cycles(registers: Mapping[str, int], target: Target, beat_bytes: int) -> int:
    """Cycles in which beats are placed: one for each piece of words that lie side by side, in memory and on chip."""
    offsets = line_offsets(registers, beat_bytes)
    if registers["form"] == Form.BLANK:
        offsets = Counter({0: offsets.total()})
    return sum(lines * _line_cycles(registers, target, beat_bytes, offset) for offset, lines in offsets.items())


def _line_cycles(r: Mapping[str, int], target: Target, beat_bytes: int, offset: int) -> int:
    words = r["words"]
    if r["form"] == Form.PAIR:
        assert target.pattern is not None, "only a machine with a pattern loads pairs"
        bits = words * (16 + target.pattern.index_bits)
        beats = -(-(offset + 2 * -(-bits // 16)) // beat_bytes)
        return beats + words  # a beat is taken in, or a pair taken out
    each = 4 if r["form"] == Form.FP32 else 2
    word = np.arange(1, words)
    cut = (offset + each * word) % beat_bytes == 0
    along = r["space"] in _ALONG and r["inner2_step"] == 1
    across = r["space"] not in _SINGLE and r["inner2_step"] == 1 << PLACE_ADDRESS_BITS
    cut |= (word % r["inner2"] == 0) | (not (along or across))
    if r["space"] == Space.N2S and r["form"] == Form.OPERAND and r["group"] != 1 and not r["across"]:
        cut |= word % r["run"] % r["group"] == 0
    return 1 + int(cut.sum())
