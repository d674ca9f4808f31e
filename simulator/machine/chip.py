"""The accelerator's values: every command of a program executed on real memory and spaces, bit for bit.

What a command does to its spaces is docs/design/accelerator.md; when it does it is `sequencer.py`. Words on chip that
nothing has written are NaNs, so that a program which reads one shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from ...dataflow.pregenerate import tile_plan
from ...dataflow.program.commands import Command
from ...dataflow.program.instruction import Instruction
from ...dataflow.program.isa import Unit
from ...dataflow.program.legal import check_command, check_units
from ...dataflow.program.spaces import HALVES, Form, Space, Target
from ...dataflow.program.transfers import (
    banks_and_addresses,
    indices_of,
    line_addresses,
    line_places,
    reduces,
    word_bytes,
)
from ...workloads.errors import InputError
from ..array import canonical
from ..compact import BUBBLE, compress
from ..operand import narrow, operand_type, operand_types, widen
from .binary_product import binary_sums, strips, values
from .numerics import applied
from .sequencer import run_commands
from .vector_unit import VectorTrip

__all__ = ["Chip"]

Words = npt.NDArray[Any]
Single = npt.NDArray[np.float32]
_POISON32 = 0x7FFFFFFF
_PAIRS = (Space.N2S, Space.PAIRS)
_quiet = np.errstate(all="ignore")


class Chip:
    """A machine with ``memory``, uint8 [bytes], the window that its programs may touch; it is changed in place.

    ``values[space]`` of the words of operands or uint32 [half, bank, address], of pairs with ``indices[space]`` uint8
    beside.
    ``nonfinite`` says whether a watched store has passed on an Inf or NaN since the program began.
    """

    def __init__(self, target: Target, memory: npt.NDArray[np.uint8]) -> None:
        if memory.dtype != np.uint8 or memory.ndim != 1 or len(memory) % 4:
            raise InputError(f"memory must be uint8, a multiple of 4 bytes, not {memory.dtype} {list(memory.shape)}")
        self.target, self.memory = target, memory
        self.format, self._bits = target.spec.pe.format, target.spec.pe.operand.bits
        self._operand = np.dtype(f"u{target.spec.pe.operand.bytes}")
        self.nonfinite = False
        self.values: dict[Space, Words] = {}
        self.indices: dict[Space, npt.NDArray[np.uint8]] = {}
        for space in target.spaces:
            size = target.size(space)
            shape = (HALVES, size.banks, size.depth)
            # all ones below the sign is a NaN in every encoding
            operand = space in (Space.W2E, *_PAIRS)
            poison, word = ((1 << self._bits - 1) - 1, self._operand) if operand else (_POISON32, np.dtype(np.uint32))
            self.values[space] = np.full(shape, poison, word)
            if space in _PAIRS:
                self.indices[space] = np.zeros(shape, np.uint8)

    def run(self, instructions: Sequence[Instruction]) -> int:
        """Execute a program; gives the number of its commands. One that breaks a rule is a `ProgramError`."""
        check_units(instructions, self.target)
        self.nonfinite = False
        units = {
            Unit.LOAD: self.load,
            Unit.STORE: self.store,
            Unit.PRODUCT: self.product,
            Unit.VECTOR: self.vector,
            Unit.UPDATE: self.update,
            Unit.XNOR: self.binary_product,
        }
        return run_commands(instructions, {unit: self._checked(do) for unit, do in units.items()})

    def _checked(self, do: Any) -> Any:
        def run(command: Command) -> None:
            check_command(command, self.target, len(self.memory))
            do(command)

        return run

    def load(self, c: Command) -> None:
        """Memory to a space."""
        space, form = Space(c.space), Form(c.form)
        bank, address = banks_and_addresses(line_places(c, self.target))
        indices: Any = 0
        match form:
            case Form.BLANK:
                wide = space != Space.W2E and space not in _PAIRS
                words: Words = np.full(bank.shape, 0x80000000 if wide else 1 << self._bits - 1, np.uint32)
                indices = BUBBLE
            case Form.OPERAND:
                words = self._read(c, self._operand.itemsize).view(self._operand)[..., 0]
                if reduces(c):
                    words, indices = self._reduced(c, words)
                elif space == Space.N2S:
                    indices = indices_of(c)
                elif space != Space.W2E:
                    words = widen(words.view(self._kind(c.gradient))).view(np.uint32)
            case Form.FP32:
                words = self._read(c, 4).view(np.uint32)[..., 0]
            case Form.PAIR:
                words, indices = self._read_pairs(c)
            case _:
                assert_never(form)
        self.values[space][c.half, bank, address] = words
        if space in _PAIRS:
            self.indices[space][c.half, bank, address] = indices

    def _kind(self, gradient: int) -> type[np.generic]:
        """Of operands, or of those that are gradients."""
        return operand_types(self.format)[-1 if gradient else 0]

    def _read(self, c: Command, each: int) -> npt.NDArray[np.uint8]:
        """Bytes of the words of lines, uint8 [lines, words, each]."""
        at = line_addresses(c)[:, None, None] + (each * np.arange(c.words))[:, None] + np.arange(each)
        return np.ascontiguousarray(self.memory[at])

    def _read_pairs(self, c: Command) -> tuple[Words, Words]:
        """Values and indices of lines of pairs, [lines, words]; each lies within four bytes of its first one."""
        pattern = self.target.pattern
        assert pattern is not None, "check_command lets pairs pass only where there is a pattern"
        bits, value = self._bits + pattern.index_bits, (1 << self._bits) - 1
        size = word_bytes(Form.PAIR, c.words, self.target)
        lines = self.memory[line_addresses(c)[:, None] + np.arange(size)].astype(np.uint64)
        lines = np.pad(lines, ((0, 0), (0, 4)))
        first = np.arange(c.words) * bits
        four = sum(lines[:, first // 8 + i] << np.uint64(8 * i) for i in range(4))
        pair = four >> (first % 8).astype(np.uint64)
        index = (pair >> np.uint64(self._bits)).astype(np.uint8) & ((1 << pattern.index_bits) - 1)
        return (pair & np.uint64(value)).astype(self._operand), index

    def _reduced(self, c: Command, words: Words) -> tuple[Words, Words]:
        """Pairs of groups along lines, or across them, cut every ``run``: [lines, words] as they lie on chip."""
        pattern = self.target.pattern
        assert pattern is not None, "check_command lets a reduction pass only where there is a pattern"
        along = words if c.across else words.T
        length = len(along)
        values, indices = [], []
        for lo, hi in ((0, length // c.run * c.run), (length // c.run * c.run, length)):
            if lo < hi:
                part = np.ascontiguousarray(along[lo:hi]).view(operand_type(self.target.spec.pe))
                compact = compress(part, pattern, min(c.run, hi - lo))
                values.append(compact.values.view(self._operand))
                indices.append(compact.indices)
        made, index = np.concatenate(values), np.concatenate(indices)
        return (made, index) if c.across else (made.T, index.T)

    @_quiet
    def store(self, c: Command) -> None:
        """A space to memory."""
        space, form = Space(c.space), Form(c.form)
        bank, address = banks_and_addresses(line_places(c, self.target))
        words = self.values[space][c.half, bank, address]
        at = line_addresses(c)
        if form == Form.PAIR:
            self._write_pairs(at, words, self.indices[space][c.half, bank, address])
            return
        wide = words.view(np.float32)
        if c.bias:
            biases = self.values[Space.BIAS][c.bias_half, 0, c.bias_place : c.bias_place + c.words]
            wide = canonical(wide + biases.view(np.float32))
        if c.relu:
            wide = np.where((wide > 0) | np.isnan(wide), wide, np.float32(0))
        if form == Form.OPERAND:
            out = narrow(wide, self.format, gradient=bool(c.gradient))
            broken = ~np.isfinite(out.astype(np.float32))
        else:
            out = np.ascontiguousarray(wide)
            broken = ~np.isfinite(out)
        self.nonfinite |= bool(c.watch and broken.any())
        raw = out.view(np.uint8).reshape(len(at), -1)
        for line, address_of in zip(raw, at.tolist(), strict=True):
            self.memory[address_of : address_of + len(line)] = line

    def _write_pairs(self, at: Words, values: Words, indices: Words) -> None:
        pattern = self.target.pattern
        assert pattern is not None, "check_command lets pairs pass only where there is a pattern"
        bits = self._bits + pattern.index_bits
        size = word_bytes(Form.PAIR, values.shape[1], self.target)
        for start, line, index in zip(at.tolist(), values.tolist(), indices.tolist(), strict=True):
            packed = sum((v | i << self._bits) << bits * n for n, (v, i) in enumerate(zip(line, index, strict=True)))
            self.memory[start : start + size] = np.frombuffer(packed.to_bytes(size, "little"), np.uint8)

    def product(self, c: Command) -> None:
        """The array, from both operand spaces to OUTPUT."""
        dense = widen(self.values[Space.W2E][c.w2e_half].view(self._kind(c.w2e_gradient)))
        pairs = widen(self.values[Space.N2S][c.n2s_half].view(self._kind(c.n2s_gradient)))
        index = self.indices[Space.N2S][c.n2s_half].astype(np.int64)
        out = self.values[Space.OUTPUT][c.output_half]
        if c.stationary:
            self._weight_stationary(c, dense, pairs, index, out)
        else:
            self._output_stationary(c, dense, pairs, index, out)

    def _output_stationary(self, c: Command, dense: Single, pairs: Single, index: Words, out: Words) -> None:
        """Sums [down, rows, across, contexts, cols] in order of the pairs of a column."""
        cols = len(pairs)
        length = np.tile(np.append(np.full(c.parts - 1, c.group), c.rest), c.runs)
        kept = np.minimum(c.keep, length)
        start, lengths = np.repeat(np.cumsum(length) - length, kept), np.repeat(length, kept)
        words, slots = int(length.sum()), int(kept.sum())
        a = dense[: c.rows, : c.down * words].reshape(c.rows, c.down, words)
        b = pairs[:, : c.across * slots * c.interleave].reshape(cols, c.across, slots, c.interleave)
        at = index[:, : c.across * slots * c.interleave].reshape(b.shape)
        total = np.full((c.rows, c.down, cols, c.across, c.interleave), np.float32(-0.0))
        for slot in range(slots):
            bubble = at[:, :, slot] == BUBBLE
            # in a column that nobody loaded stand pairs of another product, whose index may be of no word of this one
            inside = at[:, :, slot] < lengths[slot]
            word = np.where(inside, start[slot] + at[:, :, slot], 0)
            pair = np.where(inside | bubble, b[:, :, slot], np.float32(np.nan))
            total = _added(total, a[:, :, word], pair, bubble)
        # the southernmost row first, contexts in order
        order = canonical(total).transpose(2, 1, 3, 0, 4)[:, :, :, ::-1]
        out[:, : c.down * c.across * c.rows * c.interleave] = order.reshape(cols, -1).view(np.uint32)

    def _weight_stationary(self, c: Command, dense: Single, pairs: Single, index: Words, out: Words) -> None:
        """Sums [cols, across, rows of A] that pass all rows of the array, k-tile by k-tile."""
        rows, cols, batch = len(dense), len(pairs), c.parts * c.interleave
        a = dense[:, : c.down * batch * c.group].reshape(rows, c.down, batch, c.group)
        held = (cols, c.down, c.across, rows, c.keep)
        taken = c.down * c.across * rows * c.keep
        # the pair that is shifted in first lies in the southernmost row, last in its group
        b = pairs[:, :taken].reshape(cols, c.down, c.across, rows * c.keep)[..., ::-1].reshape(held)
        at = index[:, :taken].reshape(cols, c.down, c.across, rows * c.keep)[..., ::-1].reshape(held)
        total = np.full((cols, c.across, batch), np.float32(-0.0))
        if c.resume:
            total = out[:, : c.across * batch].view(np.float32).reshape(total.shape).copy()
        for tile in range(c.down):
            for row in range(rows):
                for pair in range(c.keep):
                    where = at[:, tile, :, row, pair]
                    bubble, inside = where == BUBBLE, where < c.group
                    # as in OS, of a column that nobody loaded
                    own = np.where(inside | bubble, b[:, tile, :, row, pair], np.float32(np.nan))
                    word = a[row, tile][:, np.where(inside, where, 0)].transpose(1, 2, 0)
                    total = _added(total, word, own[..., None], bubble[..., None])
        out[:, : c.across * batch] = canonical(total).reshape(cols, -1).view(np.uint32)

    def binary_product(self, c: Command) -> None:
        """The XNOR engine, from its operand spaces and LEVELS to SIGNS or SUMS."""
        west, north = self.values[Space.XNOR_W2E][c.w2e_half], self.values[Space.XNOR_N2S][c.n2s_half]
        sums = binary_sums(c, west, north, self.target.bit_words)
        if not c.threshold:
            words = values(c, sums).view(np.uint32)
            self.values[Space.SUMS][c.output_half, :, : words.shape[1]] = words
            return
        levels = self.values[Space.LEVELS][c.levels_half][:, : c.across * c.interleave]
        out = self.values[Space.SIGNS][c.output_half]
        made = strips(sums, levels, len(out))
        there = out[:, : made.shape[1]]
        there[...] = there & made if c.combine else made

    def vector(self, c: Command) -> None:
        """The vector unit, from OPERANDS and COLUMNS to RESULTS and COLUMNS."""
        lanes = self.target.spec.vector.lanes
        operands, columns = self.values[Space.OPERANDS][c.operands_half], self.values[Space.COLUMNS][c.columns_half]
        result = VectorTrip(c, lanes, operands, columns).run()
        if result is not None:
            words = result.view(np.uint32).reshape(-1, lanes)
            self.values[Space.RESULTS][c.results_half, :, : len(words)] = words.T

    def update(self, c: Command) -> None:
        """WUVE, from WEIGHTS and CONSTANTS to UPDATED; a step that is skipped writes back what it read."""
        rule, lanes, beats = self.target.rule, self.target.spec.wuve.lanes, c.tiles * c.beats
        weights = self.values[Space.WEIGHTS][c.weights_half].view(np.float32)
        entering = np.stack([weights[i * lanes : (i + 1) * lanes, :beats].ravel() for i in range(len(rule.enters))])
        constants = self.values[Space.CONSTANTS][c.constants_half, 0, : len(rule.constants)].view(np.float32)
        leaving = entering[1:] if self.nonfinite else applied(rule, entering, constants)
        updated = self.values[Space.UPDATED]
        for i, stream in enumerate(leaving):
            made = np.ascontiguousarray(stream).view(np.uint32).reshape(lanes, beats)
            updated[c.updated_half, i * lanes : (i + 1) * lanes, :beats] = made
        if c.copies:
            self._copies(c, narrow(np.ascontiguousarray(leaving[0]).reshape(lanes, c.tiles, c.beats), self.format))

    def _copies(self, c: Command, weights: Words) -> None:
        """Pairs of updated ``weights`` [lanes, tiles, beats]: along the first axis of every block, then the second."""
        pattern, lanes = self.target.pattern, self.target.spec.sore.lanes
        assert pattern is not None, "check_command lets copies pass only where there is a pattern"
        group = pattern.group
        blocks = tile_plan(self.target.spec, self.target.rule, pattern, c.copies).blocks
        tiles = weights.transpose(1, 2, 0).reshape(c.tiles, -1)[:, : blocks * group**2]
        cells = tiles.reshape(c.tiles * blocks, group, group)
        for copy in range(c.copies):
            lines = cells.transpose(0, 2, 1) if copy == 0 else cells
            kept = compress(np.ascontiguousarray(lines.reshape(-1, group).T), pattern)
            for space, found in ((self.values, kept.values.view(self._operand)), (self.indices, kept.indices)):
                made = found.reshape(pattern.keep, -1, lanes).transpose(2, 1, 0).reshape(lanes, -1)
                space[Space.PAIRS][c.pairs_half, copy * lanes : (copy + 1) * lanes, : made.shape[1]] = made


@_quiet
def _added(total: Single, a: Single, b: Single, bubble: Words) -> Single:
    """Rounded products to rounded sums; a bubble adds -0.0."""
    return total + np.where(bubble, np.float32(-0.0), a * b)
