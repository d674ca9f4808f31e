"""A long convolution as products: its values against PyTorch's transforms and its own convolution, its work by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import weft
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.models.long_convolution import LongConvolution, factors_of
from weft.workloads.models.module import module_source
from weft.workloads.trace import trace_use

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 10), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**16))
def test_products_are_what_fourier_transforms_give(power: int, samples: int, channels: int, seed: int) -> None:
    """Values by `torch.fft` in double precision; gradients by `conv1d`."""
    torch.manual_seed(seed)
    length = 2**power
    own, direct = LongConvolution(channels, length), LongConvolution(channels, length, "direct")
    direct.load_state_dict(own.state_dict())
    x = torch.randn(samples, channels, length, requires_grad=True)
    y, found, expected = x.detach().clone().requires_grad_(), own(x), direct(x)
    spectra = (torch.fft.rfft(a.detach().double(), n=2 * length) for a in (x, own.filter))
    first, second = spectra
    whole = torch.fft.irfft(first * second, n=2 * length)[..., :length]
    torch.testing.assert_close(found.double(), whole, rtol=0, atol=2e-5)
    torch.testing.assert_close(expected.double(), whole, rtol=0, atol=2e-5)

    toward = torch.randn_like(found)
    torch.autograd.backward(own(x), toward)
    torch.autograd.backward(direct(y), toward)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own.filter.grad, direct.filter.grad, rtol=1e-4, atol=1e-3)


def test_nothing_comes_before_its_time() -> None:
    torch.manual_seed(0)
    layer, x = LongConvolution(2, 64), torch.randn(1, 2, 64)
    late = x.clone()
    late[..., 40:] = 7.0
    torch.testing.assert_close(layer(late)[..., :40], layer(x)[..., :40], rtol=0, atol=5e-5)


@pytest.mark.parametrize(("length", "n1", "n2"), [(256, 32, 16), (4, 4, 2), (1024, 64, 32)])
def test_multiplications_by_hand(length: int, n1: int, n2: int) -> None:
    """Half of the outer matrix, real to complex, n1 x n1/2 x 2 for n2 columns; the inner, complex, 2 n2 x 2 n2 for n1
    rows; both again back; the filter's once forth."""
    samples, channels = 3, 5
    assert factors_of(length) == (n1, n2)
    one_way = n2 * (n1 // 2) * 2 * n1 + n1 * (2 * n2) * (2 * n2)
    x = torch.empty(samples, channels, length)
    step = trace_use(module_source(LongConvolution(channels, length), x), "infer")
    assert step.dense_macs[Pass.FF] == (2 * samples + 1) * channels * one_way
    direct = trace_use(module_source(LongConvolution(channels, length, "direct"), x), "infer")
    assert direct.dense_macs[Pass.FF] == samples * channels * length * length


def test_a_training_step_of_both_runs_on_a_machine_and_products_win_where_they_are_long() -> None:
    cycles = {}
    for by in ("direct", "products"):
        model = nn.Sequential(nn.Conv1d(4, 4, 1), LongConvolution(4, 1024, by))
        step = weft.trace(model, torch.empty(1, 4, 1024))
        assert step.dense_macs[Pass.BP] > 0 < step.dense_macs[Pass.WU]
        cycles[by] = weft.simulate(weft.schedule(step, "tiny"), witness=True).cycles.total
    assert cycles["products"] < cycles["direct"]


def test_what_is_no_such_convolution_is_refused() -> None:
    for made, said in (
        (lambda: LongConvolution(1, 100), "must be a power of two, not 100: choose 128"),
        (lambda: LongConvolution(1, 2), "length of a convolution must be"),
        (lambda: LongConvolution(0, 8), "channels of a convolution must be"),
        (lambda: LongConvolution(1, 8, "fft"), "direct or by products, not 'fft'"),
        (lambda: LongConvolution(1, 8)(torch.zeros(1, 2, 8)), "a convolution of 1 channels x 8 read 2 x 8"),
    ):
        with pytest.raises(InputError, match=said):
            made()
