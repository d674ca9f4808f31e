"""Products of complex numbers: four of real numbers each, as the same layer written in real tensors multiplies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from weft.workloads.gemm import Gemm, Pass
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.trace import trace_step

from .toy_models import floats, source_of


class Spectral(nn.Module):
    """The layer of Fourier neural operators, from a public bug report: a complex product a mode, or four real ones."""

    def __init__(self, *, real: bool) -> None:
        super().__init__()
        self.lift, self.real = nn.Conv2d(3, 8, 1), real
        self.re, self.im = (nn.Parameter(torch.empty(8, 6, 4, 4)) for _ in range(2)) if real else (None, None)
        self.w = None if real else nn.Parameter(torch.empty(8, 6, 4, 4, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        modes = torch.fft.rfft2(self.lift(x))
        low = modes[:, :, :4, :4]
        times: Callable[[Tensor, Tensor], Tensor] = lambda a, b: torch.einsum("bixy,ioxy->boxy", a, b)  # noqa: E731
        if self.real:
            re, im = low.real, low.imag
            made = torch.complex(times(re, self.re) - times(im, self.im), times(re, self.im) + times(im, self.re))
        else:
            made = times(low, self.w)
        out = torch.zeros(len(x), 6, *modes.shape[2:], dtype=torch.cfloat)
        out[:, :, :4, :4] = made
        return torch.fft.irfft2(out)


def test_a_spectral_layer_multiplies_as_it_does_written_in_real_numbers() -> None:
    own, real = (trace_step(source_of(lambda real=real: Spectral(real=real), floats(2, 3, 16, 16))) for real in (0, 1))

    assert own.dense_macs == real.dense_macs
    lift, modes = 2 * 256 * 3 * 8, 4 * 16 * 2 * 8 * 6
    assert own.dense_macs == {Pass.FF: lift + modes, Pass.BP: modes, Pass.WU: lift + modes}
    assert own.parameters == real.parameters == 8 * 3 + 8 + 2 * 8 * 6 * 16


class Turned(nn.Module):
    """Complex vectors and matrices of every operator that multiplies them."""

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.lift, self.w, self.call = nn.Linear(4, 6), nn.Parameter(torch.empty(6, 6, dtype=dtype)), call

    def forward(self, x: Tensor) -> Tensor:
        out = self.call(self.lift(x).to(self.w.dtype), self.w)
        return (torch.view_as_real(out) if out.is_complex() else out).sum()


@pytest.mark.parametrize(
    ("call", "gemm"),
    [
        (lambda x, w: x @ w, Gemm(m=10, k=12, n=6, run=6)),
        (lambda x, w: x.conj() @ w.mH, Gemm(m=10, k=12, n=6, run=6)),
        (lambda x, w: torch.addmm(w[:1], x, w), Gemm(m=10, k=12, n=6, run=6)),
        (lambda x, w: w @ x[0], Gemm(m=12, k=12, n=1, run=6)),
        (lambda x, w: torch.vdot(x[0], w[0]), Gemm(m=2, k=12, n=1, run=6)),
        (lambda x, w: x.view(5, 1, 6) @ w.expand(5, 6, 6), Gemm(m=2, k=12, n=6, run=6, groups=5)),
    ],
)
def test_complex_products_are_one_product_of_real_numbers(call: Callable[..., Tensor], gemm: Gemm) -> None:
    step, real = (
        trace_step(source_of(lambda kind=kind: Turned(call, kind), floats(5, 4)))
        for kind in (torch.cfloat, torch.float)
    )
    (op,) = (op for op in step.matrix_ops if op.pass_ is Pass.FF and op.name != "lift")
    assert op.gemm == gemm
    four = {pass_: 4 * macs - 3 * 5 * 4 * 6 * (pass_ is not Pass.BP) for pass_, macs in real.dense_macs.items()}
    assert step.dense_macs == four
    assert annotate(step, "bdwp", NMPattern(keep=2, group=4)).dense_macs == step.dense_macs
