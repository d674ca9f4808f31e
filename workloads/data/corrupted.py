"""Test images as a bad camera would have taken them: noise, blur and low contrast, at five strengths.

Equations and strengths are those of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261; read in
``ImageNet-C/create_c/make_cifar_c.py`` of hendrycks/robustness), which is made for small images. Pixels are shares of
white and are not rounded to whole steps again. The noise is the same for whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError, nearest
from .images import Images

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corrupted", "corrupted"]

Floats = NDArray[np.float64]

SEVERITIES = (1, 2, 3, 4, 5)
_NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
"""Deviation, of white."""
_BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
"""Deviation, pixels."""
_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
"""What is left of the distance from the mean of the image."""
_CUT = 4.0
"""Deviations at which the blur's kernel ends, as scikit-image has it."""
_SEED = 1903_12261


def _noise(pixels: Floats, severity: int, positions: Sequence[int]) -> Floats:
    """x + e, e normal, drawn by the position of the image."""
    drawn = [np.random.default_rng([_SEED, severity, at]).normal(size=pixels.shape[1:]) for at in positions]
    return np.clip(pixels + _NOISE[severity - 1] * np.reshape(drawn, pixels.shape), 0.0, 1.0)


def _blur(pixels: Floats, severity: int, _: Sequence[int]) -> Floats:
    """Weighted by exp(-d^2 / 2 s^2), along rows and then along columns; the edge goes on outside."""
    sigma = _BLUR[severity - 1]
    reach = int(_CUT * sigma + 0.5)
    distance = np.arange(-reach, reach + 1)
    kernel = np.exp(-(distance**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (-2, -1):
        wide = [(reach, reach) if i == pixels.ndim + axis else (0, 0) for i in range(pixels.ndim)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(pixels, wide, "edge"), len(kernel), axis=axis)
        pixels = windows @ kernel
    return np.clip(pixels, 0.0, 1.0)


def _contrast(pixels: Floats, severity: int, _: Sequence[int]) -> Floats:
    """m + c (x - m), m the mean of a channel of the image."""
    means = pixels.mean(axis=(-2, -1), keepdims=True)
    made: Floats = np.clip((pixels - means) * _CONTRAST[severity - 1] + means, 0.0, 1.0)
    return made


_Corrupt = Callable[[Floats, int, Sequence[int]], Floats]
_BY_NAME: dict[str, _Corrupt] = {"noise": _noise, "blur": _blur, "contrast": _contrast}
CORRUPTIONS = tuple(_BY_NAME)


def corrupted(pixels: NDArray[Any], name: str, severity: int, positions: Sequence[int] | None = None) -> Floats:
    """Images under one of `CORRUPTIONS`, at a strength of `SEVERITIES`; ``positions``: 0, 1, 2, .. if none.

    ``pixels``: shares of white, ``[n, channels, height, width]`` of any float dtype; float64 of that shape comes back,
    from 0 to 1.
    """
    if name not in _BY_NAME:
        raise InputError(f"corruption {name!r} is unknown: {nearest(name, CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise InputError(f"severity of corruption {name!r} must be an integer from 1 to 5, not {severity!r}")
    made = np.asarray(pixels, dtype=np.float64)
    return _BY_NAME[name](made, severity, range(len(made)) if positions is None else positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupted:
    """``images`` under a corruption, in the units of their stored pixels, of which ``white`` is the largest."""

    images: Images
    white: int
    name: str
    severity: int

    @property
    def labels(self) -> Tensor:
        """Those of the images, int64 ``[n]``."""
        return self.images.labels

    def fetch(self, index: Tensor) -> Tensor:
        """The images at ``index``, float32 ``[len(index), channels, height, width]``."""
        shares = self.images.fetch(index).numpy() / self.white
        made = corrupted(shares, self.name, self.severity, index.tolist())
        return torch.from_numpy(self.white * made).float()
