"""The vector unit against one number at a time, bit for bit, and against PyTorch, nearly."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.simulator.machine.vector import (
    add,
    gelu,
    gelu_backward,
    mean,
    multiply,
    relu,
    relu_backward,
    scale,
    softmax,
    softmax_backward,
    total,
)
from weft.simulator.reference.machine import in_order
from weft.simulator.reference.vector import (
    gelu_back_reference,
    gelu_reference,
    one_nan,
    softmax_back_reference,
    softmax_reference,
)

from ...examples_drawn import examples
from ...strategies import singles

F = np.float32
EDGES = np.array([0, 1, -1, np.inf, 1e-45, 1.2e-38, 3.4e38, 0.5, 17, 88.7, 103.9], F)
EDGES = np.concatenate([EDGES, -EDGES, np.array([0x7FC00000, 0xFFC00001, 0x7F800001], np.uint32).view(F)])
"""Both zeros, subnormals, infinities, NaNs, ends of exp."""


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.dtype == wanted.dtype and np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two [rows, n] with everything in them, the edges against each other at times."""
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    a, b = draw(singles(*shape)), draw(singles(*shape))
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 999)))
        a, b = rng.choice(EDGES, shape), rng.choice(EDGES, shape)
    return a, b


@settings(max_examples=examples(100), deadline=None)
@given(pairs())
def test_every_bit_is_that_of_one_number_at_a_time(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = drawn
    shape = a.shape
    with np.errstate(all="ignore"):
        each = list(zip(a.ravel(), b.ravel(), strict=True))
        assert same(add(a, b), one_nan(np.array([F(x + y) for x, y in each], F).reshape(shape)))
        assert same(multiply(a, b), one_nan(np.array([F(x * y) for x, y in each], F).reshape(shape)))
        assert same(scale(a, 0.1), one_nan(np.array([F(x * F(0.1)) for x, _ in each], F).reshape(shape)))
        passed = [x if x > 0 or np.isnan(x) else F(0) for x, _ in each]
        assert same(relu(a), one_nan(np.array(passed, F).reshape(shape)))
        assert same(relu_backward(a, b), one_nan(np.array([x if y > 0 else F(0) for x, y in each], F).reshape(shape)))
        assert same(softmax(a), softmax_reference(a))
        assert same(softmax_backward(a, b), softmax_back_reference(a, b))
        for by_tanh in (False, True):
            assert same(gelu(a[0], by_tanh=by_tanh), gelu_reference(a[0], by_tanh))
            assert same(gelu_backward(a[0], b[0], by_tanh=by_tanh), gelu_back_reference(a[0], b[0], by_tanh))


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_sums_run_in_order_along_any_axes(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
    x = data.draw(singles(*shape))
    left = [axis for axis in range(len(shape)) if axis not in axes]
    wanted, means = (np.empty([shape[axis] for axis in left], F) for _ in range(2))
    with np.errstate(all="ignore"):
        for at in np.ndindex(wanted.shape):
            where: list[int | slice] = [slice(None)] * len(shape)
            for axis, i in zip(left, at, strict=True):
                where[axis] = i
            wanted[at] = in_order(x[tuple(where)].ravel())
            means[at] = wanted[at] * F(1 / prod(shape[axis] for axis in axes))

    assert same(total(x, axes), wanted)
    assert same(mean(x, axes), one_nan(means))


def test_a_sum_in_another_order_would_differ() -> None:
    x = np.array([[1.0], [2.0**24], [1.0], [-(2.0**24)], [1.0]], F)

    assert total(x, (0,)).tolist() == total(x.T, (1,)).tolist() == [1.0]
    assert total(x[::-1], (0,)).tolist() == [3.0]


@pytest.mark.parametrize("by_tanh", [False, True])
def test_functions_and_gradients_are_those_of_pytorch_nearly(by_tanh: bool) -> None:
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((8, 50)) * 3 for _ in range(2))
    single = x.astype(F), g.astype(F)
    tensor = torch.tensor(x, requires_grad=True)
    y = softmax(single[0])
    for made, found, back in (
        (
            torch.nn.functional.gelu(tensor, approximate="tanh" if by_tanh else "none"),
            gelu(single[0], by_tanh=by_tanh),
            gelu_backward(single[1], single[0], by_tanh=by_tanh),
        ),
        (torch.softmax(tensor, -1), y, softmax_backward(single[1], y)),
    ):
        (slope,) = torch.autograd.grad(made, tensor, torch.tensor(g))
        np.testing.assert_allclose(found, made.detach().numpy(), rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(back, slope.numpy(), rtol=2e-4, atol=5e-6)
