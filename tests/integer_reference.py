"""A binary network image by image in exact arithmetic, from the weights that PyTorch trained: nothing of ours is in it.

Walks the modules of an `nn.Sequential`; sums are Python integers, scales, norms and scores are fractions.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import torch
from torch import nn

__all__ = ["classified", "numbers", "with_norms"]


def numbers(pixels, data, bits):
    """What the first layer multiplies: (pixel - mean) / deviation in steps of 8 / 2^bits, to the nearest."""
    mean, std = (Fraction(float(np.float32(x[0]))) for x in (data.mean, data.std))
    most = 2 ** (bits - 1)
    table = [max(-most, min(most - 1, round((p - mean) / std * most / 4))) for p in range(256)]
    return np.array(table, np.int64)[pixels]


def classified(model, x, step):
    """What every layer reads, int64 [images, ...], and the class of each image, of ``x`` int64 [images, ...], which
    counts in steps of ``step``."""
    read, pending, modules = [], None, [m for m in model if not isinstance(m, nn.Hardtanh | nn.Identity)]
    for module in modules:
        if isinstance(module, nn.Flatten):
            x = bits_of(*pending, None) if pending else x
            x, pending = x.reshape(len(x), -1), None
        elif isinstance(module, nn.Linear | nn.Conv2d):
            x = bits_of(*pending, None) if pending else x
            read.append(x)
            pending = sums_of(module, x), scales_of(module, step if len(read) == 1 else 1)
        elif isinstance(module, nn.MaxPool2d):
            if pending:
                pending = pooled(pending[0], module), pending[1]
            else:
                x = pooled(x, module)
        else:
            x, pending = bits_of(*pending, module), None
    sums, scales = pending
    scores = [[alpha * int(s) + bias for s, (alpha, bias) in zip(row, scales, strict=True)] for row in sums]
    return read, [row.index(max(row)) for row in scores]


def fractions(tensor):
    return [Fraction(float(value)) for value in tensor.detach()]


def scales_of(module, step):
    """(alpha, bias) of every channel: the mean |W| as PyTorch rounds it, times ``step``."""
    weight = module.weight.detach()
    flat = weight.reshape(1, len(weight), weight.shape[1], -1)
    bias = [Fraction(0)] * len(weight) if module.bias is None else fractions(module.bias)
    alphas = fractions(flat.abs().mean((2, 3)).flatten())
    return [(alpha * step, b) for alpha, b in zip(alphas, bias, strict=True)]


def sums_of(module, x):
    signs = np.where(module.weight.detach().numpy() >= 0, 1, -1).astype(np.int64)
    if isinstance(module, nn.Linear):
        return x @ signs.T
    (kh, kw), (sh, sw), (ph, pw) = module.kernel_size, module.stride, module.padding
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=1)
    high, wide = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
    made = np.empty((len(x), len(signs), high, wide), np.int64)
    for i, j in product(range(high), range(wide)):
        window = x[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
        made[:, :, i, j] = np.einsum("ichw,ochw->io", window, signs)
    return made


def pooled(x, module):
    k, s = module.kernel_size, module.stride
    high, wide = (x.shape[2] - k) // s + 1, (x.shape[3] - k) // s + 1
    made = np.empty((*x.shape[:2], high, wide), x.dtype)
    for i, j in product(range(high), range(wide)):
        made[:, :, i, j] = x[:, :, i * s : i * s + k, j * s : j * s + k].max((2, 3))
    return made


def bits_of(sums, scales, norm):
    """-1 and +1 of every sum: sign(0) = +1; the root of a batch norm is compared by its square."""
    if norm is None:
        parts = [(Fraction(1), Fraction(0), Fraction(0), Fraction(1))] * len(scales)
    else:
        variances = [v + Fraction(norm.eps) for v in fractions(norm.running_var)]
        gammas, betas = fractions(norm.weight), fractions(norm.bias)
        parts = list(zip(gammas, betas, fractions(norm.running_mean), variances, strict=True))

    @cache
    def passes(channel, s):
        (alpha, bias), (gamma, beta, mean, variance) = scales[channel], parts[channel]
        x = gamma * (alpha * s + bias - mean)
        if x < 0:
            return beta > 0 and x**2 <= beta**2 * variance
        return beta >= 0 or x**2 >= beta**2 * variance

    made = np.empty(sums.shape, np.int64)
    for place, s in np.ndenumerate(sums):
        made[place] = 1 if passes(place[1], int(s)) else -1
    return made


def with_norms(model, eps=0.0):
    """Batch norms of ``model`` with parameters of every kind: both signs of gamma, ties, gamma 0 with both signs of
    beta; its first filter of each layer all zeros, so that its alpha is 0. Without ``eps`` FP32 rounds none of it."""
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)):
            layer.weight.copy_(torch.where(torch.rand(layer.weight.shape, generator=made) < 0.5, -0.5, 0.5))
            layer.weight[0] = 0
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)):
            width = torch.arange(norm.num_features)
            norm.weight.copy_(torch.tensor([1.0, -1.0, 2.0, -0.5, 0.0])[width % 5])
            norm.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.25, -1.0, 1.0, -0.25])[width % 7])
            norm.running_mean.copy_((width % 9 - 4).float())
            norm.running_var.copy_(torch.tensor([1.0, 4.0, 0.25])[width % 3])
            norm.eps = eps
