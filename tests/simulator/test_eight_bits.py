"""FP8 and INT8 operands: values, products and roundings, against the dtypes of ml_dtypes and of PyTorch."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.operand import E5M2, FP8, NumberFormat
from weft.simulator.compact import compress, decompress
from weft.simulator.eight_bits import narrow_float, narrow_integer
from weft.simulator.machine.product import product
from weft.simulator.operand import ENCODINGS, narrow, ranked, unranked, widen
from weft.workloads.sparsity import NMPattern

from ..examples_drawn import examples
from ..strategies import singles

WORDS = np.arange(256, dtype=np.uint8)
FLOATS = [(FP8, ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn), (E5M2, ml_dtypes.float8_e5m2, torch.float8_e5m2)]
KINDS = [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]


def bits(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bits of FP32, a NaN the canonical one."""
    made = x.astype(np.float32)
    made.view(np.uint32)[np.isnan(made)] = 0x7FC00000
    return made.view(np.uint32)


@pytest.mark.parametrize(("form", "kind", "torch_kind"), FLOATS)
def test_every_word_has_the_value_of_the_specification(form: NumberFormat, kind: Any, torch_kind: torch.dtype) -> None:
    """And of both libraries; by hand from OFP8, tables 1 and 2: the ends of either encoding."""
    ends = {"fp8": (448.0, 2.0**-6, 2.0**-9), "e5m2": (57344.0, 2.0**-14, 2.0**-16)}[form.name]
    wide = widen(WORDS.view(kind))
    by_torch = torch.from_numpy(WORDS).view(torch_kind).float().numpy()

    assert np.array_equal(bits(wide), bits(WORDS.view(kind)))
    assert np.array_equal(bits(wide), bits(by_torch))
    assert (wide[form.largest], wide[1 << form.fraction], wide[1]) == ends
    assert np.isnan(wide[form.nan]) and np.isinf(wide).sum() == (0 if form.finite else 2)
    assert np.isnan(wide).sum() == (2 if form.finite else 6)


@pytest.mark.parametrize("right", KINDS)
@pytest.mark.parametrize("left", KINDS)
def test_products_of_all_pairs_of_fp8_are_exact(left: Any, right: Any) -> None:
    """2^16 of them, of E4M3 and E5M2 in any combination: what doubles make of ml_dtypes' values is a number of FP32."""
    a, b = WORDS.view(left), WORDS.view(right)
    with np.errstate(invalid="ignore"):
        exact = np.outer(a.astype(np.float64), b.astype(np.float64))
    found = product(a[:, None], b[None, :])

    assert np.array_equal(found.astype(np.float64), exact, equal_nan=True)
    assert np.array_equal(found.view(np.uint32), bits(exact)), "the sign of a zero too"


def test_products_of_all_pairs_of_int8_are_exact() -> None:
    values = WORDS.view(np.int8)
    found = product(values[:, None], values[None, :])

    assert found.dtype == np.int32
    assert found.tolist() == [[int(x) * int(y) for y in values] for x in values]


def check(values: npt.NDArray[np.float32], form: NumberFormat, kind: Any, torch_kind: torch.dtype) -> None:
    """ml_dtypes does not saturate, PyTorch changed its mind; what both make of clipped values is what saturating makes
    of any. A machine saturates what has no infinity."""
    end, nan = np.float32(form.most * 2.0**form.least), np.isnan(values)
    clipped = np.clip(values, -end, end)
    by_torch = torch.from_numpy(clipped).to(torch_kind).view(torch.uint8).numpy()
    for saturate, oracles in ((False, [values.astype(kind)]), (True, [clipped.astype(kind), by_torch])):
        found = narrow_float(values, form, saturate=saturate)
        assert all(np.array_equal(found[~nan], oracle.view(np.uint8)[~nan]) for oracle in oracles)
        assert (found[nan] == form.nan).all()
    assert np.array_equal(
        narrow(values, "fp8", gradient=form is E5M2).view(np.uint8), narrow_float(values, form, saturate=form is FP8)
    )


@pytest.mark.parametrize(("form", "kind", "torch_kind"), FLOATS)
def test_what_lies_between_any_two_numbers_goes_to_the_nearer_or_the_even_one(
    form: NumberFormat, kind: Any, torch_kind: torch.dtype
) -> None:
    """Each number, the middle to the next, one beyond the last too, the neighbours of all; infinities; subnormals."""
    held = np.append(widen(WORDS[: form.largest + 1].view(kind)), np.float32(form.most * 2.0**form.least * 1.25))
    some = np.concatenate([held, (held[1:] + held[:-1]) / 2, np.float32([np.inf, 1e-45, 1e-39, 3e38, np.nan])])
    some = np.concatenate([some, np.nextafter(some, np.float32(np.inf)), np.nextafter(some, np.float32(-np.inf))])

    check(np.concatenate([some, -some]), form, kind, torch_kind)


@settings(max_examples=examples(60), deadline=None)
@given(st.data(), st.sampled_from(FLOATS))
def test_narrowing_is_the_cast_of_both_libraries(data: st.DataObject, which: Any) -> None:
    drawn = data.draw(singles(3000))
    for scale in (1.0, 2.0 ** data.draw(st.integers(-16, 16))):
        with np.errstate(all="ignore"):
            check(drawn * np.float32(scale), *which)


def test_a_tie_and_an_end_by_hand() -> None:
    values = np.float32([464.0, 464.01, -1e9, 2.0**-10, 3 * 2.0**-10, np.inf, np.nan, -0.0])
    assert narrow(values, "fp8").astype(np.float32).tolist()[:6] == [448.0, 448.0, -448.0, 0.0, 2.0**-8, 448.0]
    assert narrow(values, "fp8").view(np.uint8)[6:].tolist() == [0x7F, 0x80]
    assert narrow_float(values, FP8, saturate=False).tolist() == [0x7E, 0x7F, 0xFF, 0, 2, 0x7F, 0x7F, 0x80]
    assert narrow_float(values, E5M2, saturate=False)[5:7].tolist() == [0x7C, 0x7E]


def test_integers_are_rounded_to_even_and_end_at_their_ends() -> None:
    values = np.float32([0.5, 1.5, -2.5, 127.5, 1e9, -128.5, -1e9, np.nan, -np.inf])
    assert narrow_integer(values).tolist() == [0, 2, -2, 127, 127, -128, -128, 0, -128]


@pytest.mark.parametrize("kind", ENCODINGS)
def test_ranks_are_magnitudes_and_keep_every_word(kind: Any) -> None:
    words = np.arange(2 ** (8 * np.dtype(kind).itemsize)).astype(f"u{np.dtype(kind).itemsize}").view(kind)
    rank = ranked(words)

    assert unranked(rank, kind).tobytes() == words.tobytes()
    values = np.abs(widen(words))
    numbers = ~np.isnan(values)
    assert (((rank & 0x7FFF) > ENCODINGS[kind].highest) == ~numbers).all()
    ordered = values[numbers][np.argsort(rank[numbers] & 0x7FFF, kind="stable")]
    assert (ordered[1:] >= ordered[:-1]).all()


def test_minus_128_is_the_largest_int8() -> None:
    b = np.array([[127], [-128], [-127], [0]], np.int8)
    assert decompress(compress(b, NMPattern(keep=1, group=4))).ravel().tolist() == [0, -128, 0, 0]
