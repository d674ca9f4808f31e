"""What one op moves, in plain Python: macro-tile after macro-tile, element after element; knows no closed form.

The rules are those of docs/design/machine.md, "Memory and the step", and of docs/assumptions.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.mapping import Mapping
from ...dataflow.stce.mapping import ArrayMapping, Dataflow
from ...workloads.operand import NMOperand
from ...workloads.sparsity import NMPattern
from ...workloads.step import MatrixOp

__all__ = ["Addresses", "Phase", "Traffic", "traffic_reference"]

Places = npt.NDArray[np.int64]


class Addresses(NamedTuple):
    """Where in its stored tensor each element of A [groups, m, k], B [groups, k, n] and C [groups, m, n] lies.

    The same address more than once is what im2col makes of one stored element; -1 is padding, which lies nowhere.
    All int64.
    """

    a: Places
    b: Places
    c: Places


@dataclass(slots=True)
class Phase:
    """What happens beside one macro-tile: bytes loaded and stored, groups that SORE reduces and its cycles; bytes of
    operands that stay on chip."""

    read: int = 0
    write: int = 0
    groups: int = 0
    sore: int = 0
    chip_read: int = 0
    chip_write: int = 0

    def load(self, size: int, on_chip: bool) -> None:
        if on_chip:
            self.chip_read += size
        else:
            self.read += size

    def store(self, size: int, on_chip: bool) -> None:
        if on_chip:
            self.chip_write += size
        else:
            self.write += size


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The phases of an op: the first load, one a macro-tile, the last store.

    ``held``: most bytes that a macro-tile keeps in the W2E, N2S and output buffers. ``halo``: bytes that windows on the
    edge of a macro-tile share with the one before, which the machine is taken not to load again.
    """

    phases: tuple[Phase, ...]
    held: tuple[int, int, int]
    halo: int

    @property
    def read(self) -> int:
        return sum(phase.read for phase in self.phases)

    @property
    def write(self) -> int:
        return sum(phase.write for phase in self.phases)

    @property
    def on_chip(self) -> tuple[int, int]:
        """Bytes read and written of operands that stay on chip."""
        return sum(phase.chip_read for phase in self.phases), sum(phase.chip_write for phase in self.phases)

    @property
    def groups(self) -> int:
        return sum(phase.groups for phase in self.phases)


@dataclass(slots=True)
class _Tensor:
    """An operand as the array sees it, [groups, lines, other axis], and as it is stored."""

    places: Places
    stored: int
    """Elements of the stored tensor."""
    bits: int
    """Of an element."""
    whole: bool
    """Whether a macro-tile sees the axis along which im2col repeats as a whole."""
    met: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    """Addresses met so far, by group and by how often its tiles have come round."""
    rounds: dict[tuple[int, int], int] = field(default_factory=dict)
    halo: int = 0

    def load(self, group: int, lines: range) -> int:
        """Bytes of some lines."""
        block = self.places[group, lines.start : lines.stop]
        if not (self.whole and self.stored < self.places.size):
            return sum(_whole(self.bits * line.size, 8) for line in block)
        key = (group, lines.start)
        self.rounds[key] = self.rounds.get(key, 0) + 1
        met = self.met.setdefault((group, self.rounds[key]), set())
        here = {int(place) for place in block.flat if place >= 0}
        self.halo += _whole(self.bits * len(here & met), 8)
        met |= here
        return len(lines) * self.line_bytes

    @property
    def line_bytes(self) -> int:
        """Even share of a line in the stored tensor, in whole bytes."""
        lines = self.places.shape[0] * self.places.shape[1]
        return _whole(self.bits * self.stored, 8 * lines)


def traffic_reference(spec: AcceleratorSpec, op: MatrixOp, mapping: Mapping, addresses: Addresses) -> Traffic:
    """Walk the macro-tiles of ``op`` under ``mapping`` and count what is loaded, reduced and stored, and when."""
    array, swap = mapping.array, mapping.n2s == "a"
    assert isinstance(array, ArrayMapping), "it walks the products of the STCE"
    g, wide = op.gemm, spec.pe.operand.bits
    of_a, of_b, of_c = (wide if x.levels is None else x.levels.bits for x in (op.a, op.b, op.c))
    west_bits, north_bits = (of_b, of_a) if swap else (of_a, of_b)
    rows, cols = (g.n, g.m) if swap else (g.m, g.n)
    row_tiles, col_tiles = _tiles(rows, mapping.tile_rows), _tiles(cols, mapping.tile_cols)
    # im2col repeats A along k, B and C along n.
    n_whole = len(row_tiles if swap else col_tiles) == 1
    a = _Tensor(addresses.a, op.a.elements, of_a, mapping.resident)
    b = _Tensor(addresses.b.transpose(0, 2, 1), op.b.elements, of_b, n_whole)
    west, north = (b, a) if swap else (a, b)
    out = _Tensor(addresses.c, op.c.elements, of_c, n_whole)

    phases = [Phase() for _ in range(g.groups * len(row_tiles) * len(col_tiles) + 2)]
    held = [0, 0, 0]
    there: list[object] = [None, None]
    macro = 0
    for group in range(g.groups):
        for i, j in _order(len(row_tiles), len(col_tiles), mapping.order):
            macro += 1
            load = phases[macro - 1 if mapping.resident else macro]
            r, c = row_tiles[i], col_tiles[j]
            if not mapping.resident or there[0] != (group, i):
                moved = west.load(group, r)
                load.load(moved, ("b" if swap else "a") in mapping.on_chip)
                held[0] = max(held[0], moved)
            if not (mapping.resident or mapping.compact == "buffer") or there[1] != (group, j):
                again = mapping.compact == "memory" and i > 0
                on_chip = mapping.n2s in mapping.on_chip
                held[1] = max(held[1], _load_north(spec, op, north, group, c, load, again, on_chip))
            if mapping.compact == "memory" and i == 0:
                phases[macro].write += _compact_bytes(op, north_bits, len(c))
            there = [(group, i), (group, j)]
            stored = _store(out, c if swap else r, len(r) * len(c))
            phases[macro + 1].store(stored, "c" in mapping.on_chip)
            if not n_whole and out.stored < out.places.size:
                phases[macro + 1].load(stored, "c" in mapping.on_chip)
            held[2] = max(held[2], len(r) * len(c) * _result_bytes(spec, array.dataflow))
    if not mapping.resident:
        # A chunk is a group of each line for as many PEs of a column as work on other groups; an index takes a byte.
        chunk = array.pattern.group * _groups_at_once(array.dataflow, spec.array.rows)
        held[0] = len(row_tiles[0]) * _whole(chunk * west_bits, 8)
        if mapping.compact != "buffer":
            held[1] = len(col_tiles[0]) * _whole(chunk * (north_bits + 8), 8)
    return Traffic(phases=tuple(phases), held=(held[0], held[1], held[2]), halo=west.halo + north.halo)


def _result_bytes(spec: AcceleratorSpec, dataflow: Dataflow) -> int:
    """Of what leaves the array: finished results, or sums that come back."""
    match dataflow:
        case Dataflow.OS | Dataflow.OS1:
            return spec.pe.operand.bytes
        case Dataflow.WS:
            return spec.pe.operand.accumulator.bytes
        case _:
            assert_never(dataflow)


def _groups_at_once(dataflow: Dataflow, rows: int) -> int:
    """Groups of a contraction that the PEs of a column work on side by side."""
    match dataflow:
        case Dataflow.OS | Dataflow.OS1:
            return 1
        case Dataflow.WS:
            return rows
        case _:
            assert_never(dataflow)


def _whole(amount: int, parts: int) -> int:
    """One of ``parts`` equal parts, in whole bytes."""
    part, rest = divmod(amount, parts)
    return part + (rest > 0)


def _tiles(size: int, tile: int) -> list[range]:
    return [range(lo, min(lo + tile, size)) for lo in range(0, size, tile)]


def _order(row_tiles: int, col_tiles: int, order: str) -> list[tuple[int, int]]:
    if order == "mn":
        return [(i, j) for i in range(row_tiles) for j in range(col_tiles)]
    return [(i, j) for j in range(col_tiles) for i in range(row_tiles)]


def _load_north(
    spec: AcceleratorSpec,
    op: MatrixOp,
    north: _Tensor,
    group: int,
    columns: range,
    phase: Phase,
    again: bool,
    on_chip: bool,
) -> int:
    """Load columns that flow north to south, through SORE if they must; the bytes that the buffer then holds.

    ``again``: their compact copy lies in memory since SORE reduced them, whether the operand stays ``on_chip`` or not.
    """
    if op.sparse is None:
        moved = north.load(group, columns)
        phase.load(moved, on_chip)
        return moved
    compact = _compact_bytes(op, north.bits, len(columns))
    if again or (spec.wuve.pregenerate and not op.sparse.online):
        phase.load(compact, on_chip and not again)
        return compact
    phase.load(north.load(group, columns), on_chip)
    pattern = _pattern(op)
    groups = len(columns) * len(_groups(op.gemm.k, op.gemm.run, pattern))
    lanes = [0] * spec.sore.lanes
    for n in range(groups):
        lanes[n % spec.sore.lanes] += pattern.group if spec.sore.kind == "serial" else 1
    phase.groups += groups
    phase.sore += max(lanes)
    return compact


def _groups(k: int, run: int, pattern: NMPattern) -> list[int]:
    """Lengths of the groups of a contraction."""
    return [min(pattern.group, run - lo) for _ in range(0, k, run) for lo in range(0, run, pattern.group)]


def _pattern(op: MatrixOp) -> NMPattern:
    assert isinstance(op.sparse, NMOperand), "the traffic of arrays, which are under N:M"
    return op.sparse.pattern


def _compact_bytes(op: MatrixOp, value: int, columns: int) -> int:
    """Compact columns: of each the kept values of so many bits with their indices, packed, in whole bytes."""
    pattern = _pattern(op)
    index = len(f"{pattern.group - 1:b}") if pattern.group > 1 else 0
    bits = 0
    for length in _groups(op.gemm.k, op.gemm.run, pattern):
        for _ in range(min(pattern.keep, length)):
            bits += value + index
    return columns * _whole(bits, 8)


def _store(out: _Tensor, lines: range, results: int) -> int:
    """Bytes of some results: lines as they are stored where the macro-tile has them whole, else one by one.

    Where a stride leaves gaps the zeros in them are stored, too. Results that others are added to, but not on chip, are
    read before.
    """
    if out.whole and out.stored != out.places.size:
        return len(lines) * out.line_bytes
    each = out.bits  # of less than a byte, without gaps
    if each >= 8:
        each = max(out.bits, 8 * _whole(out.bits * out.stored, 8 * out.places.size))
    return _whole(each * results, 8)
