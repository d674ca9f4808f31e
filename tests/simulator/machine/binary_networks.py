"""Binary networks of all sorts at random, and what integers make of them: products of NumPy, nothing of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.dataflow.program.binary_plan import Thresholds
from weft.workloads.im2col import Window
from weft.workloads.integer_network import Forward, IntegerLayer, IntegerNetwork, Made
from weft.workloads.levels import Levels

SIDE = 7
"""Pixels of a side."""


def drawn_network(rng: np.random.Generator) -> tuple[IntegerNetwork, list[Thresholds]]:
    """Convolutions, with padding, stride, dilation and pools on either side of the norm, and linear layers."""
    channels, image = int(rng.integers(1, 3)), (SIDE, SIDE)
    layers, thresholds = [], []
    first = Levels(rng.choice(["binary", "int2", "int5", "spike"]))
    values = np.array([*first.values], np.int8)
    table = rng.choice(values, (channels, 256))
    levels = first
    for number in range(int(rng.integers(0, 3))):
        out = int(rng.integers(1, 40))
        layer = _convolution(rng, f"conv {number}", channels, out, image, levels)
        layers.append(layer)
        thresholds.append(_threshold(rng, layer))
        channels, image = out, (layer.window if layer.pool is None else layer.pool).positions
        levels = Levels.BINARY
    k = channels * image[0] * image[1]
    for number in range(int(rng.integers(1, 3))):
        out = int(rng.integers(2, 50))
        layers.append(_layer(rng, f"linear {number}", k, out, levels, Window(), k))
        thresholds.append(_threshold(rng, layers[-1]))
        k, levels = out, Levels.BINARY
    return IntegerNetwork(table=table, layers=tuple(layers)), thresholds[:-1]


def _convolution(
    rng: np.random.Generator, name: str, channels: int, out: int, image: tuple[int, ...], levels: Levels
) -> IntegerLayer:
    def sizes(most: int) -> tuple[int, int]:
        return int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1))

    kernel = (min(sizes(3)[0], image[0]), min(sizes(3)[1], image[1]))
    padding = (int(rng.integers(2)), int(rng.integers(2)))
    fits = all(2 * (k - 1) < size for k, size in zip(kernel, image, strict=True))
    dilation = sizes(2) if fits else (1, 1)
    window = Window(image=image, kernel=kernel, stride=sizes(2), padding=padding, dilation=dilation)
    pool = None
    if rng.random() < 0.6:
        reach = (min(2, window.positions[0]), min(2, window.positions[1]))
        pool = Window(image=window.positions, kernel=reach, stride=sizes(2), padding=(0, 0), dilation=(1, 1))
    pools = {"pool": pool, "pool_first": bool(pool is not None and rng.integers(2))}
    k = channels * kernel[0] * kernel[1]
    return _layer(rng, name, k, out, levels, window, channels, **pools)


def _layer(
    rng: np.random.Generator, name: str, k: int, n: int, levels: Levels, window: Window, channels: int, **more: Any
) -> IntegerLayer:
    own = Levels(rng.choice(["binary", "binary", "int3", "int8"]))
    values = np.array([v for v in own.values if v > min(own.values) or own is Levels.BINARY], np.int8)
    return IntegerLayer(
        name=name,
        weights=rng.choice(values, (k, n)),
        levels=(levels, own),
        window=window,
        channels=channels,
        edge=int(levels is Levels.BINARY),
        scale=np.ones(n, np.float32),
        bias=np.zeros(n, np.float32),
        norm=None,
        **more,
    )


def _threshold(rng: np.random.Generator, layer: IntegerLayer) -> Thresholds:
    """Where sums are, sometimes beyond; both ways."""
    n, spread = layer.weights.shape[1], int(np.abs(layer.weights.astype(int)).sum(0).max())
    at = rng.integers(-spread // 3 - 1, spread // 3 + 2, n)
    beyond = rng.choice([-(2**31), 2**31 - 1], n)
    return np.where(rng.random(n) < 0.1, beyond, at).astype(np.int32), rng.random(n) < 0.4


def by_integers(network: IntegerNetwork, thresholds: Sequence[Thresholds], pixels: np.ndarray) -> Forward:
    """Sums of int64, each compared with its threshold."""
    left = iter(thresholds)

    def product(layer: IntegerLayer, a: np.ndarray) -> tuple[Made, np.ndarray]:
        sums = a.astype(np.int64) @ layer.weights.astype(np.int64)
        at, flip = next(left, (np.zeros(sums.shape[1], np.int32), np.zeros(sums.shape[1], np.bool_)))
        return Made(sums.astype(np.int32), np.where(flip, sums <= at, sums >= at)), flip

    return network.run(pixels, product)
