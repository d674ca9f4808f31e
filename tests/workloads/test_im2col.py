"""im2col against PyTorch's convolutions in double precision."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.workloads.im2col import Window, fold, unfold

from ..examples_drawn import examples


@st.composite
def windows(draw):
    dims = draw(st.integers(1, 3))
    kernel, stride, dilation, padding = (
        tuple(draw(st.integers(low, high)) for _ in range(dims)) for low, high in ((1, 3), (1, 3), (1, 2), (0, 2))
    )
    least = [d * (k - 1) + 1 - 2 * p for k, d, p in zip(kernel, dilation, padding, strict=True)]
    image = tuple(draw(st.integers(max(low, 1), max(low, 1) + 4)) for low in least)
    return Window(image=image, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


@settings(deadline=None, max_examples=examples(30))
@given(windows(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_a_convolution_and_its_gradients_are_products_of_unfolded_images(window, samples, inputs, outputs):
    torch.manual_seed(0)
    x = torch.randn(samples, inputs, *window.image, dtype=torch.float64, requires_grad=True)
    w = torch.randn(outputs, inputs, *window.kernel, dtype=torch.float64, requires_grad=True)
    convolution = (None, torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[
        len(window.image)
    ]
    y = convolution(x, w, None, window.stride, window.padding, window.dilation)
    dy = torch.randn_like(y)
    y.backward(dy)

    columns = unfold(x.detach().numpy(), window)
    weight = w.detach().numpy().reshape(outputs, inputs, window.taps)
    rows = np.moveaxis(dy.numpy(), 1, -1).reshape(-1, outputs)
    assert tuple(y.shape[2:]) == window.positions

    forward = columns.reshape(len(columns), -1) @ weight.transpose(2, 1, 0).reshape(-1, outputs)
    np.testing.assert_allclose(
        forward, np.moveaxis(y.detach().numpy(), 1, -1).reshape(-1, outputs), rtol=1e-12, atol=1e-12
    )

    spread = np.einsum("po,oit->pti", rows, weight)
    np.testing.assert_allclose(fold(spread, window), x.grad.numpy(), rtol=1e-12, atol=1e-12)

    gradient = np.einsum("po,pti->oit", rows, columns).reshape(w.shape)
    np.testing.assert_allclose(gradient, w.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_a_linear_layer_is_a_window_of_one_tap():
    x = np.arange(6.0).reshape(2, 3)
    assert unfold(x, Window()).tolist() == x[:, None, :].tolist()
    assert fold(x[:, None, :], Window()).tolist() == x.tolist()
