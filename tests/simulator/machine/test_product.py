"""Products of whole tensors against one number at a time, the definition, and the stepped array, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.operand import FormatName
from weft.simulator.array import run_array
from weft.simulator.compact import Compact, compress
from weft.simulator.kernels.product import DEPTH, LANES, PANEL_K, PANEL_N, ROWS
from weft.simulator.machine.product import product
from weft.simulator.operand import OPERAND_TYPES
from weft.simulator.reference import gemm_reference
from weft.simulator.reference.machine import product_reference
from weft.workloads.errors import InputError
from weft.workloads.sparsity import NMPattern

from ...examples_drawn import examples
from ...strategies import array_formats, array_mappings, compacts, formats, gemms, halves, specs

BF16 = OPERAND_TYPES["bf16"]


def bits(x: npt.NDArray[np.float32]) -> list[int]:
    found: list[int] = x.view(np.uint32).ravel().tolist()
    return found


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_every_bit_is_that_of_one_number_at_a_time(data: st.DataObject) -> None:
    format, gemm = data.draw(formats), data.draw(gemms(9, 9))
    a = data.draw(halves(gemm.m, gemm.k, format=format))
    b = data.draw(halves(gemm.k, gemm.n, format=format))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    if data.draw(st.booleans()):  # few words: sums of zeros of either sign, cancellation, 0 x Inf
        words = np.array([-0.0, 0.0, 1.0, -1.0, 2.0**-14, -np.inf]).astype(a.dtype)
        share = np.array([0.5, 0.1, 0.15, 0.15, 0.09, 0.01])
        a, b = (rng.choice(words, of.shape, p=share) for of in (a, b))
    masks = rng.random(a.shape) < 0.4, rng.random(b.shape) < 0.4
    every = np.ones((gemm.m, gemm.k, gemm.n), np.bool_)

    assert bits(product(a, b)) == bits(product_reference(a, b, every))
    assert bits(product(a, b, kept_a=masks[0])) == bits(product_reference(a, b, every & masks[0][:, :, None]))
    assert bits(product(a, b, kept_b=masks[1])) == bits(product_reference(a, b, every & masks[1]))


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_every_bit_is_that_of_the_stepped_array(data: st.DataObject) -> None:
    format = data.draw(array_formats)
    spec = data.draw(specs(format))
    mapping, gemm = data.draw(array_mappings(spec)), data.draw(gemms(20, 20))
    a, b = data.draw(halves(gemm.m, gemm.k, format=format)), data.draw(compacts(gemm, mapping.pattern, format))

    assert bits(product(a, b)) == bits(run_array(spec, mapping, a, b).result)


@pytest.mark.parametrize("format", ["fp16", "bf16"])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        (ROWS + 1, DEPTH + 1, LANES + 1),
        (2 * ROWS, PANEL_K, PANEL_N),
        (ROWS - 1, PANEL_K + DEPTH - 1, PANEL_N + 1),
        (1, 2 * PANEL_K + 1, 1),
        (PANEL_N + LANES + 3, PANEL_K - 1, 3),
        (3, 2 * PANEL_K + 3, 2 * PANEL_N + 5),
    ],
)
def test_blocks_leave_no_trace(format: FormatName, m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(m * k * n)
    a, b = (rng.standard_normal(shape).astype(OPERAND_TYPES[format]) for shape in ((m, k), (k, n)))
    compact = compress(b, NMPattern(keep=3, group=7))
    a[0, 0], b[-1, -1] = -0.0, np.inf

    assert bits(product(a, b)) == bits(gemm_reference(a, b))
    assert bits(product(a, compact)) == bits(gemm_reference(a, compact))


def test_a_stack_is_its_products_one_by_one() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((2, 3, 5, 33), (2, 3, 33, 40)))
    kept_a, kept_b = rng.random(a.shape) < 0.5, rng.random(b.shape) < 0.5
    stacks = product(a, b), product(a, b, kept_a=kept_a), product(a, b, kept_b=kept_b)
    for at in np.ndindex(2, 3):
        assert bits(stacks[0][at]) == bits(product(a[at], b[at]))
        assert bits(stacks[1][at]) == bits(product(a[at], b[at], kept_a=kept_a[at]))
        assert bits(stacks[2][at]) == bits(product(a[at], b[at], kept_b=kept_b[at]))


def test_what_is_not_kept_is_no_product() -> None:
    """It is not even a zero: 0 x Inf would be NaN, and +0.0 would end the -0.0 of an empty sum."""
    a, b = np.array([[np.inf, 1.0]], np.float16), np.array([[0.0], [-0.0]], np.float16)
    nothing = np.zeros((2, 1), np.bool_)

    assert bits(product(a, b)) == [0x7FC00000]
    assert bits(product(a, b, kept_b=np.array([[False], [True]]))) == [0x80000000]
    assert bits(product(a, b, kept_b=nothing)) == bits(product(b.T, a.T, kept_a=nothing.T)) == [0x80000000]


@pytest.mark.parametrize("more", [1, 3, 8, 9])
def test_a_product_of_bf16_below_the_normals_is_rounded_before_it_is_added(more: int) -> None:
    """2^-149 (1 + 2^-7) becomes 2^-149, half a step of 2^-125, then a tie to even; unrounded it is more than half."""
    a = np.array([[2.0**-62] + [2.0**-75 * (1 + 2.0**-7)] * more], BF16)
    b = np.array([[2.0**-63]] + [[2.0**-74]] * more, BF16)
    kept = np.ones(a.shape, np.bool_)
    fused = np.float32(2.0**-125 + 2.0**-149 * (1 + 2.0**-7))

    assert product(a, b)[0, 0] == np.float32(2.0**-125) < fused
    assert product(a, b, kept_a=kept)[0, 0] == product(a, b, kept_b=kept.T)[0, 0] == np.float32(2.0**-125)


@pytest.mark.parametrize("k", range(1, 2 * DEPTH + 2))
def test_negative_zeros_add_up_to_one_and_a_positive_one_ends_that(k: int) -> None:
    a, b = np.full((2, k), -0.0, np.float16), np.ones((k, 2 * LANES), np.float16)
    kept = np.ones(a.shape, np.bool_)
    for found in (product(a, b), product(a, b, kept_a=kept), product(b.T, a.T), product(b.T, a.T, kept_b=kept.T)):
        assert set(bits(found)) == {0x80000000}
    a[:, -1] = 0.0
    for found in (product(a, b), product(a, b, kept_a=kept), product(b.T, a.T), product(b.T, a.T, kept_b=kept.T)):
        assert set(bits(found)) == {0}


ONES = np.ones((2, 3), np.float16)
KEPT = np.ones((2, 3), np.bool_)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: product(ONES.astype(np.float32), ONES.T), "a must be a matrix of float16, bfloat16, float8_e4m3fn"),
        (lambda: product(ONES, ONES.T.astype(BF16)), "a holds float16, but b bfloat16"),
        (lambda: product(ONES, ONES), r"they must be \[..., m, k\] and \[..., k, n\]"),
        (lambda: product(ONES[:0], ONES.T), "a is empty"),
        (lambda: product(ONES, ONES.T, kept_a=KEPT, kept_b=KEPT.T), "one sparse operand"),
        (lambda: product(ONES, ONES.T, kept_a=KEPT.T), r"kept_a must be bool \[2, 3\]"),
        (lambda: product(ONES, compress(ONES.T, NMPattern(keep=1, group=2)), kept_a=KEPT), "one sparse operand"),
        (lambda: product(ONES[None], compress(ONES.T, NMPattern(keep=1, group=2))), "a must be a matrix"),
        (
            lambda: product(
                ONES,
                Compact(
                    values=ONES[:2].T[:2],
                    indices=np.array([[1, 0], [0, 1]], np.uint8),
                    pattern=NMPattern(keep=2, group=3),
                    k=3,
                    run=3,
                ),
            ),
            "must ascend",
        ),
    ],
)
def test_what_is_no_product_is_refused(call: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()  # type: ignore[operator]
