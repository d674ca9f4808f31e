"""FP16 and BF16 to FP32 and back by their bits, as Numba knows neither: to nearest even, NaN canonical.

A block is converted in a few short loops, of integers or of floats, that become vector instructions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Words = NDArray[np.uint16]
Single = NDArray[np.float32]
Bits = NDArray[np.uint32]

BLOCK = 2048

SIGN, MAGNITUDE, INFINITY = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
HALF_SIGN, HALF_MAGNITUDE = np.uint32(0x8000), np.uint32(0x7FFF)
HALF_INFINITY, HALF_NAN = np.uint32(0x7C00), np.uint32(0x7E00)
REBIAS = np.float32(2.0**112)
"""From the exponents of FP16 to those of FP32, of subnormals too, which it makes normal."""
STEP = np.float32(0.5)
"""Its last bit is 2^-24, that of FP16's subnormals: what is added to it is rounded to them."""
STEP_BITS = np.uint32(0x3F000000)
HALF_NORMAL = np.uint32(0x38800000)
"""2^-14, the smallest normal FP16."""
HALF_OVER = np.uint32(0x47800000)
"""2^16, FP16's Inf; from 65520 on the carry of rounding makes it."""
REBIAS_BITS = np.uint32(0x38000000)
BF16_NAN = np.uint32(0x7FC0)


@kernel
def widen_fp16(words: Words, wide: Single, bits: Bits) -> None:
    """``wide`` [n] from FP16 ``words`` [n]; ``bits`` is the memory of ``wide``. A NaN stays one."""
    for start in range(0, len(words), BLOCK):
        # From 0 on: an index that might be negative keeps a loop from becoming vectors.
        some, its, value = words[start : start + BLOCK], bits[start : start + BLOCK], wide[start : start + BLOCK]
        for i in range(len(some)):
            its[i] = (np.uint32(some[i]) & HALF_MAGNITUDE) << np.uint32(13)
        for i in range(len(some)):
            value[i] = value[i] * REBIAS
        for i in range(len(some)):
            word = np.uint32(some[i])
            top = INFINITY if word & HALF_INFINITY == HALF_INFINITY else np.uint32(0)
            its[i] = its[i] | top | (word & HALF_SIGN) << np.uint32(16)


@kernel
def widen_bf16(words: Words, bits: Bits) -> None:
    """The ``bits`` [n] of FP32 from BF16 ``words`` [n]."""
    for i in range(len(words)):
        bits[i] = np.uint32(words[i]) << np.uint32(16)


@kernel
def narrow_fp16(wide: Single, bits: Bits, words: Words) -> None:
    """FP16 ``words`` [n] from ``wide`` [n], whose memory ``bits`` is."""
    small = np.empty(BLOCK, np.float32)
    small_bits = small.view(np.uint32)
    for start in range(0, len(words), BLOCK):
        some, its, value = words[start : start + BLOCK], bits[start : start + BLOCK], wide[start : start + BLOCK]
        for i in range(len(some)):
            small[i] = np.abs(value[i]) + STEP
        for i in range(len(some)):
            magnitude = its[i] & MAGNITUDE
            odd = magnitude >> np.uint32(13) & np.uint32(1)
            normal = (magnitude + np.uint32(0xFFF) + odd - REBIAS_BITS) >> np.uint32(13)
            word = normal if magnitude >= HALF_NORMAL else small_bits[i] - STEP_BITS
            word = HALF_INFINITY if magnitude >= HALF_OVER else word
            signed = word | (its[i] & SIGN) >> np.uint32(16)
            some[i] = np.uint16(HALF_NAN if magnitude > INFINITY else signed)


@kernel
def narrow_bf16(bits: Bits, words: Words) -> None:
    """BF16 ``words`` [n] from the ``bits`` [n] of FP32; the carry of rounding makes an Inf of what is too large."""
    for i in range(len(words)):
        odd = bits[i] >> np.uint32(16) & np.uint32(1)
        word = (bits[i] + np.uint32(0x7FFF) + odd) >> np.uint32(16)
        words[i] = np.uint16(BF16_NAN if bits[i] & MAGNITUDE > INFINITY else word)
