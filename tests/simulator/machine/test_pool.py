"""Pools against one number at a time, bit for bit, and against PyTorch, nearly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.simulator.machine.pool import (
    adaptive_average_pool,
    adaptive_average_pool_backward,
    average_pool,
    average_pool_backward,
    max_pool,
    max_pool_backward,
)
from weft.simulator.reference.machine import Places
from weft.simulator.reference.vector import (
    average_pool_back_reference,
    average_pool_reference,
    max_pool_back_reference,
    max_pool_reference,
)
from weft.workloads.errors import InputError
from weft.workloads.im2col import Window

from ...examples_drawn import examples
from ...strategies import singles

F = np.float32


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.dtype == wanted.dtype and np.array_equal(found.view(np.uint8), wanted.view(np.uint8))


def on(places: Places, size: tuple[int, int]) -> Window:
    kernel, stride, padding, dilation = ((side, side) for side in places)
    return Window(image=size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_every_bit_is_that_of_one_number_at_a_time(data: st.DataObject) -> None:
    kernel = data.draw(st.integers(1, 3))
    places = Places(kernel, data.draw(st.integers(1, 3)), data.draw(st.integers(0, kernel // 2)), 1)
    least = max(1, kernel - 2 * places.padding)
    size = data.draw(st.integers(least, least + 4)), data.draw(st.integers(least, least + 4))
    shape = data.draw(st.integers(1, 2)), *size, data.draw(st.integers(1, 3))
    x = data.draw(singles(*shape))
    if data.draw(st.booleans()):  # equals, both zeros, infinities and NaNs
        values = np.array([0.0, -0.0, 1.0, -np.inf, np.inf, np.nan], F)
        x = np.random.default_rng(data.draw(st.integers(0, 99))).choice(
            values, shape, p=[0.2, 0.2, 0.3, 0.2, 0.05, 0.05]
        )
    window = on(places, size)
    gradient = data.draw(singles(shape[0], *window.positions, shape[-1]))
    with np.errstate(all="ignore"):
        y, taps = max_pool(x, window)
        assert all(map(same, (y, taps), max_pool_reference(x, places)))
        assert same(max_pool_backward(gradient, taps, window), max_pool_back_reference(gradient, taps, places, size))
        for counted in (False, True):
            assert same(average_pool(x, window, count_padding=counted), average_pool_reference(x, places, counted))
            assert same(
                average_pool_backward(gradient, window, count_padding=counted),
                average_pool_back_reference(gradient, places, size, counted),
            )


def test_parts_of_one_size_are_windows_side_by_side() -> None:
    rng, window = np.random.default_rng(0), on(Places(3, 3, 0, 1), (9, 6))
    x, g = rng.standard_normal((2, 9, 6, 5)).astype(F), rng.standard_normal((2, 3, 2, 5)).astype(F)

    assert same(adaptive_average_pool(x, (3, 2)), average_pool(x, window))
    assert same(adaptive_average_pool_backward(g, (9, 6)), average_pool_backward(g, window))


@pytest.mark.parametrize("positions", [(1, 1), (2, 3), (5, 7), (4, 4)])
def test_pools_and_gradients_are_those_of_pytorch_nearly(positions: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 7, 3)).astype(F)
    tensor = torch.tensor(np.moveaxis(x, -1, 1).astype(np.float64), requires_grad=True)
    window = on(Places(3, 2, 1, 1), (5, 7))
    best, taps = max_pool(x, window)
    pools = torch.nn.functional
    for made, found, back in (
        (
            pools.adaptive_avg_pool2d(tensor, positions),
            adaptive_average_pool(x, positions),
            lambda g: adaptive_average_pool_backward(g, (5, 7)),
        ),
        (pools.max_pool2d(tensor, 3, 2, 1), best, lambda g: max_pool_backward(g, taps, window)),
        (
            pools.avg_pool2d(tensor, 3, 2, 1, count_include_pad=False),
            average_pool(x, window, count_padding=False),
            lambda g: average_pool_backward(g, window, count_padding=False),
        ),
    ):
        g = rng.standard_normal(found.shape).astype(F)
        (slope,) = torch.autograd.grad(made, tensor, torch.tensor(np.moveaxis(g, -1, 1).astype(np.float64)))
        np.testing.assert_allclose(found, np.moveaxis(made.detach().numpy(), 1, -1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(back(g), np.moveaxis(slope.numpy(), 1, -1), rtol=1e-5, atol=1e-6)


def test_what_is_no_pool_is_refused() -> None:
    x, window = np.ones((1, 4, 4, 2), F), on(Places(2, 2, 0, 1), (4, 4))
    y, taps = max_pool(x, window)
    with pytest.raises(InputError, match="x is"):
        max_pool(x[:, :3], window)
    with pytest.raises(InputError, match="at most"):
        max_pool(np.ones((1, 17, 17, 1), F), on(Places(17, 1, 0, 1), (17, 17)))
    with pytest.raises(InputError, match="outside of the image"):
        max_pool(x[:, :1, :1], on(Places(1, 1, 1, 1), (1, 1)))
    with pytest.raises(InputError, match="outside of the image"):
        average_pool(x[:, :1, :1], on(Places(1, 1, 1, 1), (1, 1)), count_padding=False)
    with pytest.raises(InputError, match="no position"):
        average_pool(x[:, :1, :1], on(Places(2, 1, 0, 1), (1, 1)))
    with pytest.raises(InputError, match="taps must be uint8"):
        max_pool_backward(y, taps.astype(np.int64), window)
    with pytest.raises(InputError, match="not in its window"):
        max_pool_backward(y, taps + np.uint8(4), window)
    with pytest.raises(InputError, match="from 1 to the image's side"):
        adaptive_average_pool(x, (5, 1))
