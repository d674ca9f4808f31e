"""Formats of eight bits by their definition: FP32 rounded to one, and one widened, both exactly as OCP OFP8 has it.

Floats go by their layout, so an encoding is a row of `dataflow/operand.py`; nothing is asked of the dtypes of
ml_dtypes, which tests hold beside this.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from ..dataflow.operand import NumberFormat

__all__ = ["narrow_float", "narrow_integer", "narrowed", "widened"]

Single = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_MAGNITUDE, _INFINITY = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)


def narrow_float(values: Single, to: NumberFormat, *, saturate: bool) -> Bytes:
    """FP32 of any shape to the nearest number of ``to``, ties to even, as bits; every NaN the canonical one.

    What rounds beyond the largest number, an infinity too, becomes that number, or, unless it is to ``saturate``,
    infinity, and NaN where ``to`` has none: the two modes of OFP8.
    """
    magnitude = values.view(np.uint32) & _MAGNITUDE
    lowest = to.least + to.fraction
    scale = np.maximum((magnitude >> np.uint32(23)).astype(np.int32) - 127, lowest)
    finite = np.where(magnitude < _INFINITY, values, np.float32(0))
    steps = np.rint(np.ldexp(np.abs(finite), to.fraction - scale)).astype(np.int32)
    # The leading one of a normal number adds the one that its exponent field lacks, and a carry the next.
    code = steps + ((scale - lowest) << to.fraction)
    beyond = (code > to.largest) | (magnitude == _INFINITY)
    code[beyond] = to.largest if saturate else to.nan if to.finite else to.infinity
    code |= np.signbit(values) << (to.bits - 1)
    code[magnitude > _INFINITY] = to.nan
    words: Bytes = code.astype(np.uint8)
    return words


def narrowed(values: Single, to: NumberFormat) -> Bytes:
    """What `narrow_float` makes of FP32 of any shape, saturated where ``to`` has no infinity, from a table.

    The upper half of a number has its kept bits, the one behind them and more; of the lower half only counts whether
    it is 0, which the last bit of the upper one can tell.
    """
    bits = values.view(np.uint32)
    upper = (bits >> np.uint32(16)).astype(np.uint16) | ((bits & np.uint32(0xFFFF)) != 0)
    found: Bytes = _of_upper_halves(to)[upper]
    return found


@cache
def _of_upper_halves(to: NumberFormat) -> Bytes:
    assert to.fraction + 2 < 7, f"of {to.name} an upper half has not the bits that rounding looks at"
    halves = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    return narrow_float(halves.view(np.float32), to, saturate=to.finite)


def narrow_integer(values: Single) -> npt.NDArray[np.int8]:
    """FP32 of any shape to the nearest INT8, ties to even; what is beyond becomes the nearest end, a NaN 0."""
    made: npt.NDArray[np.int8] = np.nan_to_num(np.clip(np.rint(values), -128, 127), nan=0.0).astype(np.int8)
    return made


@cache
def widened(of: NumberFormat) -> Single:
    """The value of every word of ``of``, a float of eight bits; float32 [256]."""
    values = np.empty(1 << of.bits, np.float32)
    half = len(values) // 2
    for code in range(half):
        field, fraction = code >> of.fraction, code & ((1 << of.fraction) - 1)
        significand = fraction + (1 << of.fraction if field else 0)
        values[code] = significand * 2.0 ** (of.least + max(field - 1, 0))
    values[of.highest + 1 : half] = np.nan
    if not of.finite:
        values[of.infinity] = np.inf
    values[half:] = -values[:half]
    values.flags.writeable = False
    return values
