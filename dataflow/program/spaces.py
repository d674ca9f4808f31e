"""Where data lies on chip: spaces, their banks and halves, and the forms of words in memory.

A *place* is 32 bits, ``bank << 20 | address``: sums of steps carry from address into bank, so one addition a word
moves both. Sizes follow from the machine; depths that no field of it says are the constants here (assumed: one 18 kbit
block RAM of 512 words of 36 bits a bank and half).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

from ...workloads.errors import InputError
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import UpdateRule
from ..accelerator import AcceleratorSpec
from ..config_io import spec_hash
from ..operand import FP32, NumberFormat
from ..xnor.mapping import require_xnor

__all__ = [
    "BANKS",
    "BIAS_WORDS",
    "COLUMN_BEATS",
    "BIT_SPACES",
    "BIT_WORD",
    "HALVES",
    "LOADED",
    "PLACE_ADDRESS_BITS",
    "SIDE_BY_SIDE",
    "SINGLE",
    "STORED",
    "UPDATE_STREAMS",
    "VECTOR_DEPTH",
    "VECTOR_OPERANDS",
    "Element",
    "Form",
    "Size",
    "WIDE",
    "Space",
    "Target",
    "place",
]

PLACE_ADDRESS_BITS = 20
"""Low bits of a place: the address in its bank; those above are the bank."""
BANKS = 1 << (32 - PLACE_ADDRESS_BITS)
"""Banks that a place can name."""
HALVES = 2
"""Of every space; one in use while the other is filled or emptied."""
VECTOR_DEPTH = 512
"""Words of a bank and half of the spaces of the vector unit, of WUVE, and behind the XNOR engine."""
COLUMN_BEATS = 64
"""Words of a slot of `Space.COLUMNS` in each bank, so a slot is as many words as 64 beats of the lanes."""
BIAS_WORDS = 1024
"""Words of a half of `Space.BIAS`."""
VECTOR_OPERANDS = 3
"""Operands of the vector unit, A, B, C: of the banks of `Space.OPERANDS` the first ``lanes`` are A's, and so on."""
UPDATE_STREAMS = 4
"""What WUVE reads of a parameter at most: gradient, master weight, two of state; banks as of the vector unit."""
_CONSTANTS = 16
BIT_WORD = 32
"""Bits of a word in the spaces of the XNOR engine."""
_ENGINE_WORDS = (32, 64, 128, 256)


class Space(IntEnum):
    """A memory on chip, by its number in the ``space`` registers."""

    W2E = 0
    """Dense operand of a product; bank: row of the array."""
    N2S = 1
    """Operand of pairs; bank: column. A word is a value, its index, and whether it is a bubble."""
    OUTPUT = 2
    """Results; bank: column; address: order in which its words leave the array, in WS those of the last k-tile."""
    BIAS = 3
    """FP32, one bank: what a store adds to the words of a line."""
    OPERANDS = 4
    """FP32: what the vector unit reads element by element; operand ``x`` in banks ``x lanes + lane``."""
    COLUMNS = 5
    """FP32: what the vector unit keeps of each column, in 8 slots; bank: lane, address: ``64 slot + beat``."""
    RESULTS = 6
    """FP32: what the vector unit makes; bank: lane."""
    WEIGHTS = 7
    """FP32: what WUVE reads, gradient, master weight, state; stream ``x`` in banks ``x lanes + lane``."""
    CONSTANTS = 8
    """FP32, one bank: constants of the update rule, by their number."""
    UPDATED = 9
    """FP32: what WUVE makes, master weight, state; stream ``x`` in banks ``x lanes + lane``."""
    PAIRS = 10
    """Pairs that SORE makes behind WUVE; copy ``x`` in banks ``x lanes + lane`` of SORE's lanes."""
    XNOR_W2E = 11
    """Words of bits, 32 bits of one at an address: operand of a binary product; bank: row of the XNOR engine."""
    XNOR_N2S = 12
    """Words of bits likewise; bank: column."""
    LEVELS = 13
    """What sums of a binary product are compared with: ``flip`` (bit 0), level (31 bits, signed); bank: column."""
    SUMS = 14
    """Sums of a binary product, of 32 bits; bank: column; address: order in which they leave."""
    SIGNS = 15
    """Bits of a row of a tile, 0 for +1; bank: 32 of them; address: order in which rows leave."""


BIT_SPACES = (Space.XNOR_W2E, Space.XNOR_N2S, Space.LEVELS, Space.SUMS, Space.SIGNS)
"""What a machine has for its XNOR engine alone; words are 32 bits as they are, in form FP32."""
LOADED = (
    *(Space.W2E, Space.N2S, Space.BIAS, Space.OPERANDS, Space.COLUMNS, Space.WEIGHTS, Space.CONSTANTS),
    *(Space.XNOR_W2E, Space.XNOR_N2S, Space.LEVELS),
)
"""What `load` writes."""
SIDE_BY_SIDE = (Space.W2E, Space.N2S, Space.XNOR_W2E, Space.XNOR_N2S)
"""Spaces whose banks take neighbouring words of a load at once; the others take one a cycle there."""
SINGLE = (Space.BIAS, Space.CONSTANTS)
"""Spaces of one bank."""
STORED = (Space.OUTPUT, Space.COLUMNS, Space.RESULTS, Space.UPDATED, Space.PAIRS, Space.SUMS, Space.SIGNS)
"""What `store` reads."""


class Form(IntEnum):
    """What a word is in memory. On chip W2E has operands, N2S and PAIRS pairs, all else FP32: a load widens, a store
    narrows."""

    OPERAND = 0
    """The machine's operand: 16 bits, FP16 or BF16, or 8 bits, FP8, in E4M3 or, where the transfer says so, E5M2."""
    FP32 = 1
    PAIR = 2
    """Value (an operand), then the index in its group, in as many bits as the machine's pattern asks for; the pairs of
    a line follow each other without padding, low bits first, and a line ends with a whole operand's bits. A bubble has
    no such form."""
    BLANK = 3
    """Of a load: memory is not read. N2S gets bubbles, all else -0.0."""


@dataclass(frozen=True, slots=True)
class Element:
    """What an element of a tensor is in memory: ``number`` in ``form``. ``gradient``: in the encoding that gradients
    have, of formats that give them one of their own."""

    form: Form
    number: NumberFormat
    gradient: bool = False

    @property
    def bytes(self) -> int:
        """Of one."""
        return self.number.bytes

    @property
    def registers(self) -> dict[str, int]:
        """Of a load or a store that moves such."""
        return {"form": self.form, **({"gradient": 1} if self.gradient else {})}


WIDE = Element(Form.FP32, FP32)
"""A number in FP32."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a half of a space."""

    banks: int
    depth: int


def place(bank: int, address: int = 0) -> int:
    """The place of a bank and an address in it."""
    return bank << PLACE_ADDRESS_BITS | address


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The machine as a program sees it: its spec, the one pattern that its SORE is built for (None: it has no SORE)
    and the one rule that its WUVE is built for."""

    spec: AcceleratorSpec
    rule: UpdateRule
    pattern: NMPattern | None = None

    def __post_init__(self) -> None:
        if self.pattern is not None:
            self.spec.check_pattern(self.pattern)
        if self.spec.buffers.resident_bytes:
            raise InputError(
                f"{self.spec.name!r} keeps tensors on chip (buffers.resident_bytes "
                f"{self.spec.buffers.resident_bytes:,}), for which the machine of programs has no memory: take 0 bytes"
            )
        if self.spec.pe.operand.integer:
            raise InputError(
                f"pe.format of {self.spec.name!r} is {self.spec.pe.format!r}, but the vector unit and WUVE of a "
                f"program make real operands; compile for pe.format 'fp8', 'fp16' or 'bf16'; weft run "
                "times any"
            )
        own = self.spec.xnor
        if own is not None and own.word_bits not in _ENGINE_WORDS:
            raise InputError(
                f"xnor.word_bits of {self.spec.name!r} is {own.word_bits}, but a whole machine moves words of bits "
                f"{BIT_WORD} bits by {BIT_WORD}; it must be one of {', '.join(map(str, _ENGINE_WORDS))}"
            )
        for space in self.spaces:
            size = self.size(space)
            if size.banks > BANKS or size.depth >> PLACE_ADDRESS_BITS:
                raise InputError(
                    f"{space.name} of machine {self.spec.name!r} has {size.banks} banks of {size.depth} words, but a "
                    f"place tells {BANKS} banks of 2^{PLACE_ADDRESS_BITS} words apart; take fewer lanes or a smaller "
                    f"buffer"
                )

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change with the machine, its pattern and its rule."""
        said = f"{spec_hash(self.spec)} {self.pattern} {self.rule.name}"
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    def operand(self, *, gradient: bool = False) -> Element:
        """An operand; a ``gradient`` in the encoding of such."""
        form = self.spec.pe.operand
        own = gradient and form.gradient is not None
        return Element(Form.OPERAND, form.encodings[-1 if own else 0], own)

    @property
    def spaces(self) -> tuple[Space, ...]:
        """Those that the machine has."""
        return tuple(s for s in Space if self.spec.xnor is not None or s not in BIT_SPACES)

    @property
    def loaded(self) -> tuple[Space, ...]:
        """Those that a load writes."""
        return tuple(s for s in LOADED if s in self.spaces)

    @property
    def stored(self) -> tuple[Space, ...]:
        """Those that a store reads."""
        return tuple(s for s in STORED if s in self.spaces)

    @property
    def bit_words(self) -> int:
        """Addresses that a word of the XNOR engine takes."""
        return require_xnor(self.spec).word_bits // BIT_WORD

    def size(self, space: Space) -> Size:
        """Of a half of ``space``. ``n2s_bytes`` are those of values; each has an index beside it."""
        array, buffers, spec = self.spec.array, self.spec.buffers, self.spec
        operand = spec.pe.operand.bytes
        match space:
            case Space.W2E:
                return Size(array.rows, buffers.w2e_bytes // (HALVES * operand * array.rows))
            case Space.N2S:
                return Size(array.cols, buffers.n2s_bytes // (HALVES * operand * array.cols))
            case Space.OUTPUT:
                return Size(array.cols, buffers.output_bytes // (HALVES * FP32.bytes * array.cols))
            case Space.BIAS:
                return Size(1, BIAS_WORDS)
            case Space.OPERANDS:
                return Size(VECTOR_OPERANDS * spec.vector.lanes, VECTOR_DEPTH)
            case Space.COLUMNS | Space.RESULTS:
                return Size(spec.vector.lanes, VECTOR_DEPTH)
            case Space.WEIGHTS:
                return Size(UPDATE_STREAMS * spec.wuve.lanes, VECTOR_DEPTH)
            case Space.CONSTANTS:
                return Size(1, _CONSTANTS)
            case Space.UPDATED:
                return Size((UPDATE_STREAMS - 1) * spec.wuve.lanes, VECTOR_DEPTH)
            case Space.PAIRS:
                return Size(2 * spec.sore.lanes, VECTOR_DEPTH)
            case Space.XNOR_W2E | Space.XNOR_N2S | Space.LEVELS | Space.SUMS | Space.SIGNS:
                return self._bit_size(space)
            case _:
                assert_never(space)

    def _bit_size(self, space: Space) -> Size:
        """The engine has buffers as large as those of the STCE."""
        own, buffers, word = require_xnor(self.spec), self.spec.buffers, BIT_WORD // 8
        if space is Space.XNOR_W2E:
            return Size(own.rows, _whole(buffers.w2e_bytes // (HALVES * word * own.rows), self.bit_words))
        if space is Space.XNOR_N2S:
            return Size(own.cols, _whole(buffers.n2s_bytes // (HALVES * word * own.cols), self.bit_words))
        if space is Space.SUMS:
            return Size(own.cols, buffers.output_bytes // (HALVES * word * own.cols))
        if space is Space.LEVELS:
            return Size(own.cols, VECTOR_DEPTH)
        return Size(-(-own.accumulators * own.cols // BIT_WORD), VECTOR_DEPTH)


def _whole(count: int, of: int) -> int:
    return count // of * of
