"""A causal convolution as long as its input: directly, or as Fourier transforms made of products.

A transform of N = N1 x N2 values is, with its values laid out as N1 x N2, a product by the N1 x N1 matrix of a shorter
one, N factors of their own, and a product by the N2 x N2 matrix of the other (FlashFFTConv, Fu et al., arXiv
2311.05908). Frequencies come out in an order of their own, which is that of the filter's too, so nothing is sorted.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError, require_int

__all__ = ["LongConvolution", "factors_of"]


def factors_of(length: int) -> tuple[int, int]:
    """N1 and N2 with N1 N2 = 2 ``length``, a power of two of 4 at least, and the fewest multiplications, N (N1 + 4 N2)
    each way: N1 is the even one of those nearest to 4 N2."""
    require_int("length of a convolution", length, 4, 2**24)
    if length & (length - 1):
        raise InputError(
            f"length of a convolution must be a power of two, not {length}: choose {1 << length.bit_length()}"
        )
    power = length.bit_length()
    return min(((2**a, 2 ** (power - a)) for a in range(1, power)), key=lambda f: (f[0] + 4 * f[1], f))


class LongConvolution(nn.Module):
    """y[t] = sum over s <= t of filter[t - s] x[s], of every channel by itself, in float32 [samples, channels, length].

    ``by``: ``direct``, as `nn.Conv1d` has it, or ``products``, by transforms of twice the length; the zeros behind the
    input are not multiplied, and results behind it not made.
    """

    outer: Tensor
    outer_back: Tensor
    inner: Tensor
    inner_back: Tensor
    turn: Tensor

    def __init__(self, channels: int, length: int, by: Literal["direct", "products"] = "products") -> None:
        super().__init__()
        require_int("channels of a convolution", channels, 1, 2**20)
        if by not in ("direct", "products"):
            raise InputError(f"a convolution is made direct or by products, not {by!r}")
        self.channels, self.length, self.by = channels, length, by
        self.n1, self.n2 = factors_of(length)
        self.filter = nn.Parameter(torch.randn(channels, length) / math.sqrt(length))
        n1, n2 = self.n1, self.n2
        # Rows that hold the input: the others are its zeros.
        outer, inner = _powers(n1, n1)[: n1 // 2], _powers(n2, n2)
        turn = _powers(n1 * n2, n1, n2)
        self.register_buffer("outer", torch.cat(outer.unbind(-1), 1), persistent=False)
        self.register_buffer("outer_back", torch.cat((outer[..., 0], outer[..., 1]), 1).T / (n1 * n2), persistent=False)
        self.register_buffer("inner", _block(inner), persistent=False)
        self.register_buffer("inner_back", _block(inner).T.contiguous(), persistent=False)
        self.register_buffer("turn", turn.movedim(-1, 0).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of ``x``, float32 [samples, channels, length], the same shape."""
        if x.shape[1:] != (self.channels, self.length):
            raise InputError(
                f"a convolution of {self.channels} channels x {self.length} read {' x '.join(map(str, x.shape[1:]))}"
            )
        if self.by == "direct":
            taps = self.filter.flip(-1)[:, None]
            return functional.conv1d(functional.pad(x, (self.length - 1, 0)), taps, groups=self.channels)
        return self._back(_times(self._forth(x), self._forth(self.filter)))

    def _forth(self, x: Tensor) -> Tensor:
        """Spectrum of [.., length]: [2, .., N1, N2], real and imaginary parts."""
        rows = x.reshape(*x.shape[:-1], self.n1 // 2, self.n2).transpose(-1, -2)
        half = _parts(rows @ self.outer).transpose(-1, -2)
        turned = _times(half, self.turn.reshape(2, *(1,) * (x.dim() - 1), self.n1, self.n2))
        return _parts(torch.cat((turned[0], turned[1]), -1) @ self.inner)

    def _back(self, spectrum: Tensor) -> Tensor:
        """The first half of what has this ``spectrum``: [.., length]."""
        half = _parts(torch.cat((spectrum[0], spectrum[1]), -1) @ self.inner_back)
        turn = self.turn.reshape(2, *(1,) * (half.dim() - 3), self.n1, self.n2)
        back = torch.stack((half[0] * turn[0] + half[1] * turn[1], half[1] * turn[0] - half[0] * turn[1]))
        columns = torch.cat((back[0], back[1]), -2).transpose(-1, -2)
        return (columns @ self.outer_back).transpose(-1, -2).flatten(-2)


def _powers(whole: int, rows: int, columns: int | None = None) -> Tensor:
    """exp(-2 pi i r c / whole), [rows, columns, 2]."""
    turns = torch.outer(torch.arange(rows), torch.arange(columns or rows)).remainder(whole).double() / whole
    return torch.view_as_real(torch.polar(torch.ones_like(turns), -2 * math.pi * turns)).float()


def _block(powers: Tensor) -> Tensor:
    """A complex matrix on real and imaginary parts side by side: [2 rows, 2 columns]."""
    real, imaginary = powers.unbind(-1)
    return torch.cat((torch.cat((real, imaginary), 1), torch.cat((-imaginary, real), 1)))


def _parts(sides: Tensor) -> Tensor:
    """Real and imaginary parts that stand side by side, parts first."""
    return sides.reshape(*sides.shape[:-1], 2, sides.shape[-1] // 2).movedim(-2, 0)


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Product of complex numbers, parts first."""
    return torch.stack((a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]))
