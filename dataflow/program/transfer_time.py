"""How long loads and stores take: the cycles in which their words are placed or gathered, and those around them.

Of a memory that answers a fixed time after a burst is asked for, and from then on moves a beat a cycle; where bursts
are so short that all that may be under way (`OUTSTANDING`) have been answered before the next one is due, which a
latency of up to 16 cycles always is. A beat takes a cycle for each of its *pieces*: words that lie side by side on
chip, as far as a unit moves such at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .isa import COUNTS
from .spaces import PLACE_ADDRESS_BITS, SIDE_BY_SIDE, SINGLE, Form, Space, Target
from .transfers import word_bytes

__all__ = ["load_cycles", "store_cycles"]

_ACROSS = 1 << PLACE_ADDRESS_BITS
_TO_BUS = 4
"""Cycles from that in which a command is taken to that of its first burst on the bus: command, line, window, queue."""
_PLACED = 3
"""Cycles from that in which a word leaves its beat to that in which it is written: beat, widened, turned."""
_TO_PIECES = 5
"""Cycles from that in which a store is taken to that in which it asks for its first words."""
_GATHERED = 8
"""Cycles from that in which words are asked for to that of their beat on the bus."""


def load_cycles(registers: Mapping[str, int], target: Target, beat_bytes: int, latency: int) -> int:
    """Cycles from that in which a load is taken to that in which its last word is written."""
    wait = 0 if registers["form"] == Form.BLANK else latency
    return _TO_BUS + wait + _pieces(registers, target, beat_bytes, store=False) - 1 + _PLACED


def store_cycles(registers: Mapping[str, int], target: Target, beat_bytes: int, latency: int) -> int:
    """Cycles from that in which a store is taken to that in which memory has answered for its last burst."""
    return _TO_PIECES + _pieces(registers, target, beat_bytes, store=True) - 1 + _GATHERED + latency


def _pieces(r: Mapping[str, int], target: Target, beat_bytes: int, *, store: bool) -> int:
    offsets = _line_offsets(r, beat_bytes)
    if r["form"] == Form.BLANK:
        offsets = Counter({0: offsets.total()})
    return sum(lines * _of_line(r, target, beat_bytes, offset, store) for offset, lines in offsets.items())


def _line_offsets(r: Mapping[str, int], period: int) -> Counter[int]:
    """How many lines begin at each byte offset modulo ``period``."""
    address = r["address1"] if r["which"] else r["address"]
    found, lines = np.array([address % period], np.int64), np.ones(1, np.int64)
    for i in range(COUNTS):
        steps = np.arange(r[f"count{i}"], dtype=np.int64) * r[f"step{i}"] % period
        each, times = np.unique(steps, return_counts=True)
        found, where = np.unique((found[:, None] + each) % period, return_inverse=True)
        lines = np.bincount(where.ravel(), (lines[:, None] * times).ravel()).astype(np.int64)
    return Counter(dict(zip(found.tolist(), lines.tolist(), strict=True)))


def _of_line(r: Mapping[str, int], target: Target, beat_bytes: int, offset: int, store: bool) -> int:
    words = r["words"]
    if r["form"] == Form.PAIR:
        size = word_bytes(Form.PAIR, words, target.pattern)
        return -(-(offset + size) // beat_bytes) + words  # a beat is taken in, or a pair out
    word = np.arange(1, words)
    begins: npt.NDArray[np.bool_] = (offset + (4 if r["form"] == Form.FP32 else 2) * word) % beat_bytes == 0
    along = not store and r["space"] in SIDE_BY_SIDE and r["inner2_step"] == 1
    across = r["space"] not in SINGLE and r["inner2_step"] == _ACROSS
    begins |= (word % r["inner2"] == 0) | (not (along or across))
    if not store and r["space"] == Space.N2S and r["form"] == Form.OPERAND and r["group"] != 1 and not r["across"]:
        begins |= word % r["run"] % r["group"] == 0
    return 1 + int(begins.sum())
