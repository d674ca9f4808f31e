"""Operands to FP32 and back, against NumPy's and ml_dtypes' own conversions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.operand import OPERAND_FORMATS, FormatName
from weft.simulator.operand import OPERAND_TYPES, narrow, widen

from ..examples_drawn import examples
from ..strategies import singles

FORMATS: tuple[FormatName, ...] = ("fp16", "bf16")


def check(values: np.ndarray, format: FormatName) -> None:
    """Every word of ``narrow`` is that of the dtype's own cast, a NaN the canonical one."""
    with np.errstate(all="ignore"):
        wanted = values.astype(OPERAND_TYPES[format])
    wanted.view(np.uint16)[np.isnan(values)] = OPERAND_FORMATS[format].nan
    found = narrow(values, format)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert np.array_equal(found.view(np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize("format", FORMATS)
def test_widening_keeps_every_operand(format: FormatName) -> None:
    held = np.arange(2**16, dtype=np.uint16).reshape(4, -1)
    words = held.view(OPERAND_TYPES[format])
    wide = widen(words)
    numbers = (held & 0x7FFF) <= OPERAND_FORMATS[format].infinity

    assert np.array_equal(wide[numbers].view(np.uint32), words[numbers].astype(np.float32).view(np.uint32))
    assert np.array_equal(~np.isnan(wide), numbers)
    assert np.array_equal(widen(words.T), wide.T, equal_nan=True)


@pytest.mark.parametrize("format", FORMATS)
def test_narrowing_rounds_what_lies_between_any_two_operands(format: FormatName) -> None:
    """Each operand, the middle between it and the next, and the neighbours of both."""
    held = np.arange(OPERAND_FORMATS[format].infinity, dtype=np.uint16).view(OPERAND_TYPES[format]).astype(np.float64)
    middle = ((held + np.append(held[1:], held[-1] * 2 - held[-2])) / 2).astype(np.float32)
    found = np.concatenate([held.astype(np.float32), middle])
    some = np.concatenate([found, np.nextafter(found, np.float32(np.inf)), np.nextafter(found, np.float32(-np.inf))])

    check(np.concatenate([some, -some]), format)


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_narrowing_is_the_cast_of_the_dtype(data: st.DataObject) -> None:
    values = data.draw(singles(3, 5000))
    for format in FORMATS:
        check(values, format)
        check(values.T[::2], format)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_narrowing_is_the_cast_of_the_dtype_for_every_number(format: FormatName) -> None:
    """All upper 24 bits, with lower ones around a tie and at the ends; no rounding asks more of them."""
    for low in (0, 1, 0x7F, 0x80, 0x81, 0xFF):
        for start in range(0, 2**24, 2**21):
            upper = np.arange(start, start + 2**21, dtype=np.uint32)
            check((upper << np.uint32(8) | np.uint32(low)).view(np.float32), format)
