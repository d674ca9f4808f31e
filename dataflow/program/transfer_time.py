"""How long loads and stores take: the cycles in which their words are placed or gathered, and those around them.

Of a memory that answers a fixed time after a burst is asked for, and from then on moves a beat a cycle; where bursts
are so short that all that may be under way (`OUTSTANDING`) have been answered before the next one is due, which a
latency of up to 16 cycles always is. A beat takes a cycle for each of its *pieces*: words that lie side by side on
chip, as far as a unit moves such at once.

Through SORE a load goes in rounds, of a group for every lane, or across lines of a group of every column. A round is
taken in piece by piece, sorted, and placed: along a line a pair a cycle, across in pieces again. What three rounds do
at a time takes as long as the slowest of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..engine_time import reduction_step
from ..operand import FP32
from .isa import COUNTS
from .spaces import PLACE_ADDRESS_BITS, SIDE_BY_SIDE, SINGLE, Form, Space, Target
from .transfers import word_bytes

__all__ = ["load_cycles", "store_cycles"]

_ACROSS = 1 << PLACE_ADDRESS_BITS
_TO_BUS = 4
"""Cycles from that in which a command is taken to that of its first burst on the bus: command, line, window, queue."""
_PLACED = 3
"""Cycles from that in which a word leaves its beat to that in which it is written: beat, widened, turned."""
_QUEUED = 1
"""Cycles that elements wait before SORE, so that no path goes from the bus through it."""
_TO_PIECES = 5
"""Cycles from that in which a store is taken to that in which it asks for its first words."""
_GATHERED = 8
"""Cycles from that in which words are asked for to that of their beat on the bus."""


def load_cycles(registers: Mapping[str, int], target: Target, beat_bytes: int, latency: int) -> int:
    """Cycles from that in which a load is taken to that in which its last word is written."""
    wait = 0 if registers["form"] == Form.BLANK else latency
    if registers["reduce"] and registers["space"] == Space.N2S and registers["form"] == Form.OPERAND:
        return _TO_BUS + wait + _QUEUED + _reduction(registers, target, beat_bytes) - 1 + _PLACED
    return _TO_BUS + wait + _pieces(registers, target, beat_bytes, store=False) - 1 + _PLACED


def store_cycles(registers: Mapping[str, int], target: Target, beat_bytes: int, latency: int) -> int:
    """Cycles from that in which a store is taken to that in which memory has answered for its last burst."""
    return _TO_PIECES + _pieces(registers, target, beat_bytes, store=True) - 1 + _GATHERED + latency


def _pieces(r: Mapping[str, int], target: Target, beat_bytes: int, *, store: bool) -> int:
    offsets = _line_offsets(r, beat_bytes)
    if r["form"] == Form.BLANK:
        offsets = Counter({0: offsets.total()})
    return sum(lines * _of_line(r, target, beat_bytes, offset, store) for offset, lines in offsets.items())


def _reduction(r: Mapping[str, int], target: Target, beat_bytes: int) -> int:
    """Cycles of all rounds through SORE."""
    pattern, spec = target.pattern, target.spec
    assert pattern is not None, "check_command lets a reduction pass only where there is a pattern"
    lanes, size = spec.sore.lanes, spec.pe.operand.bytes
    offsets = np.array([_address(r) % beat_bytes], np.int64)
    for i in range(COUNTS):
        steps = np.arange(r[f"count{i}"], dtype=np.int64) * r[f"step{i}"]
        offsets = (offsets[:, None] + steps).ravel() % beat_bytes
    counted = np.arange(len(offsets) if r["across"] else r["words"])
    starts = np.flatnonzero(counted % r["run"] % pattern.group == 0)
    kept = np.minimum(pattern.keep, np.diff(np.append(starts, len(counted))))
    if r["across"]:
        enters = np.add.reduceat(-(-(offsets + size * r["words"]) // beat_bytes), starts)
        leaves = kept * _side_by_side(r, beat_bytes // size)
    else:
        each, which = np.unique(offsets, return_inverse=True)
        begins = (each[:, None] + size * counted) % beat_bytes == 0
        begins[:, starts] = True
        enters = _rounds(np.add.reduceat(begins, starts, axis=1, dtype=np.int64)[which], lanes)
        leaves = _rounds(np.broadcast_to(kept, (len(offsets), len(kept))), lanes)
    sorts = np.full(len(enters), reduction_step(pattern, spec))
    return int(np.max([np.pad(x, (i, 2 - i)) for i, x in enumerate((enters, sorts, leaves))], axis=0).sum())


def _rounds(groups: npt.NDArray[np.int64], lanes: int) -> npt.NDArray[np.int64]:
    """Sums of ``lanes`` groups each, in their order."""
    flat = groups.ravel()
    summed: npt.NDArray[np.int64] = np.pad(flat, (0, -len(flat) % lanes)).reshape(-1, lanes).sum(axis=1)
    return summed


def _side_by_side(r: Mapping[str, int], most: int) -> int:
    """Pieces of a line that is placed word by word, ``most`` of them at once, where places lie side by side."""
    if r["inner2_step"] not in (1, _ACROSS):
        return r["words"]
    turns, rest = divmod(r["words"], r["inner2"])
    return turns * -(-r["inner2"] // most) + -(-rest // most)


def _address(r: Mapping[str, int]) -> int:
    return r["address1"] if r["which"] else r["address"]


def _line_offsets(r: Mapping[str, int], period: int) -> Counter[int]:
    """How many lines begin at each byte offset modulo ``period``."""
    found, lines = np.array([_address(r) % period], np.int64), np.ones(1, np.int64)
    for i in range(COUNTS):
        steps = np.arange(r[f"count{i}"], dtype=np.int64) * r[f"step{i}"] % period
        each, times = np.unique(steps, return_counts=True)
        found, where = np.unique((found[:, None] + each) % period, return_inverse=True)
        lines = np.bincount(where.ravel(), (lines[:, None] * times).ravel()).astype(np.int64)
    return Counter(dict(zip(found.tolist(), lines.tolist(), strict=True)))


def _of_line(r: Mapping[str, int], target: Target, beat_bytes: int, offset: int, store: bool) -> int:
    words = r["words"]
    if r["form"] == Form.PAIR:
        assert target.pattern is not None, "pairs are of a pattern"
        if store:  # a pair is taken in; what the last one leaves over of a beat goes by itself
            bits = target.spec.pe.operand.bits + target.pattern.index_bits
            return words + (0 < (8 * offset + words * bits) % (8 * beat_bytes) < bits)
        size = word_bytes(Form.PAIR, words, target)
        return -(-(offset + size) // beat_bytes) + words  # a beat is taken in, or a pair out
    word = np.arange(1, words)
    size = FP32.bytes if r["form"] == Form.FP32 else target.spec.pe.operand.bytes
    begins: npt.NDArray[np.bool_] = (offset + size * word) % beat_bytes == 0
    along = not store and r["space"] in SIDE_BY_SIDE and r["inner2_step"] == 1
    across = r["space"] not in SINGLE and r["inner2_step"] == _ACROSS
    begins |= (word % r["inner2"] == 0) | (not (along or across))
    if not store and r["space"] == Space.N2S and r["form"] == Form.OPERAND and r["group"] != 1 and not r["across"]:
        begins |= word % r["run"] % r["group"] == 0
    return 1 + int(begins.sum())
