# amaranth: UnusedElaboratable=no
# A component that refuses its arguments is never used.
"""Quotient and square root against NumPy, bit for bit and cycle for cycle."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from weft.hdl.blocks.recurrence import Fp32Divide, Fp32SquareRoot
from weft.hdl.flow.cosim import Cosim
from weft.workloads.errors import InputError

Words = npt.NDArray[np.uint32]

CORNERS = np.array(
    [
        0,
        1,
        2,
        3,
        0x7FFFFE,
        0x7FFFFF,
        0x800000,
        0x800001,
        0xFFFFFF,
        0x1000000,  # around the smallest normal
        0x3F7FFFFF,
        0x3F800000,
        0x3F800001,
        0x3FFFFFFF,
        0x40000000,
        0x40000001,
        0x40400000,  # around 1 and 2
        0x7E800000,
        0x7F000000,
        0x7F7FFFFE,
        0x7F7FFFFF,
        0x7F800000,
        0x7F800001,
        0x7FC00000,
        0x7FFFFFFF,  # the largest
    ],
    np.uint32,
)
CORNERS = np.concatenate([CORNERS, CORNERS | np.uint32(1 << 31)])


def operands(seed: int, count: int) -> Words:
    """Raw bits, of which a third has an exponent near that of 1 and a tenth is subnormal."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**32, count, np.uint32)
    words[::3] = (words[::3] & 0x807FFFFF) | (rng.integers(120, 135, len(words[::3]), np.uint32) << 23)
    words[::10] &= 0x807FFFFF
    return words


def canonical(result: npt.NDArray[np.float32]) -> Words:
    return np.where(np.isnan(result), np.uint32(0x7FC00000), result.view(np.uint32))


def delayed(words: Words, latency: int) -> Words:
    return np.concatenate([words, np.zeros(latency, np.uint32)])


@cache
def divider(latency: int) -> Cosim:
    return Cosim(Fp32Divide(latency))


@cache
def rooter(latency: int) -> Cosim:
    return Cosim(Fp32SquareRoot(latency))


LATENCIES = [15, *(pytest.param(latency, marks=pytest.mark.slow) for latency in (3, 9, 28))]


@pytest.mark.parametrize("latency", LATENCIES)
def test_a_quotient_is_rounded_as_numpy_rounds_it(latency):
    a = np.concatenate([np.repeat(CORNERS, len(CORNERS)), operands(1, 1_000_000)])
    b = np.concatenate([np.tile(CORNERS, len(CORNERS)), operands(2, 1_000_000)[::-1]])
    found = divider(latency).run({"a": delayed(a, latency), "b": delayed(b, latency)})["quotient"][latency:]

    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, canonical(a.view(np.float32) / b.view(np.float32)))


@pytest.mark.parametrize("latency", LATENCIES)
def test_a_root_is_rounded_as_numpy_rounds_it(latency):
    value = np.concatenate([CORNERS, operands(3, 1_000_000)])
    found = rooter(latency).run({"value": delayed(value, latency)})["root"][latency:]

    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, canonical(np.sqrt(value.view(np.float32))))


def test_a_recurrence_too_short_for_its_steps_is_refused():
    with pytest.raises(InputError, match=r"Fp32Divide\.latency must be an integer from 3 to 28, not 2"):
        Fp32Divide(2)
