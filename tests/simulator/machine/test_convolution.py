"""Convolutions of whole tensors against one number at a time, and against the stepped array's products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.simulator.array import run_array
from weft.simulator.compact import compress, decompress
from weft.simulator.machine import convolution
from weft.simulator.machine.convolution import convolve, convolve_back, weight_gradient
from weft.simulator.operand import Half
from weft.simulator.reference.machine import (
    Places,
    convolve_back_reference,
    convolve_reference,
    weight_gradient_reference,
)
from weft.workloads.errors import InputError
from weft.workloads.im2col import Window, fold, unfold
from weft.workloads.sparsity import NMPattern

from ...examples_drawn import examples
from ...strategies import formats, halves


def bits(x: npt.NDArray[np.float32]) -> list[int]:
    found: list[int] = x.view(np.uint32).ravel().tolist()
    return found


def on(places: Places, size: tuple[int, int]) -> Window:
    kernel, stride, padding, dilation = ((side, side) for side in places)
    return Window(image=size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Places, tuple[int, int], int, Half, Half, Half]:
    """Image, weight and gradient of a small convolution."""
    some, few, format = st.integers(1, 3), st.integers(1, 2), draw(formats)
    places = Places(draw(some), draw(some), draw(st.integers(0, 2)), draw(few))
    reach = places.dilation * (places.kernel - 1) + 1
    least = max(1, reach - 2 * places.padding)
    size = draw(st.integers(least, least + 2)), draw(st.integers(least, least + 2))
    groups, inside, outside, images = draw(few), draw(some), draw(few), draw(few)
    x = draw(halves(images, *size, groups * inside, format=format))
    weight = draw(halves(groups * outside, places.kernel, places.kernel, inside, format=format))
    positions = places.count(size[0]), places.count(size[1])
    gradient = draw(halves(images, *positions, groups * outside, format=format))
    return places, size, groups, x, weight, gradient


@settings(max_examples=examples(60), deadline=None)
@given(problems(), st.integers(0, 99), st.booleans())
def test_every_bit_is_that_of_one_number_at_a_time(
    problem: tuple[Places, tuple[int, int], int, Half, Half, Half], seed: int, sparse: bool
) -> None:
    places, size, groups, x, weight, gradient = problem
    window, rng = on(places, size), np.random.default_rng(seed)
    all_of = np.ones(weight.shape, np.bool_), np.ones(gradient.shape, np.bool_)
    kept = rng.random(weight.shape) < 0.5 if sparse else None
    kept_gradient = rng.random(gradient.shape) < 0.5 if sparse else None
    held = all_of[0] if kept is None else kept
    held_gradient = all_of[1] if kept_gradient is None else kept_gradient

    assert bits(convolve(x, weight, window, groups=groups, kept=kept)) == bits(
        convolve_reference(x, weight, places, groups, held)
    )
    assert bits(convolve_back(gradient, weight, window, groups=groups, kept=kept)) == bits(
        convolve_back_reference(gradient, weight, places, groups, held, all_of[1], size)
    )
    assert bits(convolve_back(gradient, weight, window, groups=groups, kept_gradient=kept_gradient)) == bits(
        convolve_back_reference(gradient, weight, places, groups, all_of[0], held_gradient, size)
    )
    assert bits(weight_gradient(x, gradient, window, groups=groups, kept_gradient=kept_gradient)) == bits(
        weight_gradient_reference(x, gradient, places, groups, held_gradient)
    )


def test_cuts_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, window = np.random.default_rng(0), on(Places(3, 1, 1, 1), (7, 6))
    x, weight = rng.standard_normal((5, 7, 6, 4)).astype(np.float16), rng.standard_normal((8, 3, 3, 2))
    weight, gradient = weight.astype(np.float16), rng.standard_normal((5, 7, 6, 8)).astype(np.float16)

    def all_three() -> list[list[int]]:
        found = (
            convolve(x, weight, window, groups=2),
            convolve_back(gradient, weight, window, groups=2),
            weight_gradient(x, gradient, window, groups=2),
        )
        return [bits(some) for some in found]

    whole = all_three()
    for elements in (1, 2 * 7 * 6 * 9 * 4, 2 * 5 * 7 * 6 * 4):
        monkeypatch.setattr(convolution, "_WINDOW_ELEMENTS", elements)
        assert all_three() == whole


def test_one_dimension_is_two_of_which_one_has_a_single_row() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 9, 3)).astype(np.float16), rng.standard_normal((4, 3, 3)).astype(np.float16)
    line = Window(image=(9,), kernel=(3,), stride=(2,), padding=(1,), dilation=(1,))
    plane = Window(image=(1, 9), kernel=(1, 3), stride=(1, 2), padding=(0, 1), dilation=(1, 1))

    assert bits(convolve(x, weight, line)) == bits(convolve(x[:, None], weight[:, None], plane))


def test_what_does_not_belong_together_is_refused() -> None:
    x, weight, window = (
        np.ones((1, 4, 4, 2), np.float16),
        np.ones((4, 3, 3, 2), np.float16),
        on(Places(3, 1, 0, 1), (4, 4)),
    )
    gradient = np.ones((1, 2, 2, 4), np.float16)
    with pytest.raises(InputError, match="x is"):
        convolve(x[:, 1:], weight, window)
    with pytest.raises(InputError, match="weight is"):
        convolve(x, weight[:, 1:], window)
    with pytest.raises(InputError, match="groups is 2"):
        convolve(x, weight, window, groups=2)
    with pytest.raises(InputError, match="has no position"):
        convolve(x[:, :2, :2], weight, on(Places(3, 1, 0, 1), (2, 2)))
    with pytest.raises(InputError, match="kept must be bool"):
        convolve(x, weight, window, kept=np.ones((4, 3, 3, 1), np.bool_))
    with pytest.raises(InputError, match="gradient must be"):
        convolve_back(gradient[:, 1:], weight, window)
    with pytest.raises(InputError, match="kept_gradient must be bool"):
        weight_gradient(x, gradient, window, kept_gradient=np.ones((1, 2, 2, 4), np.uint8))


RESNET18_AT_64 = [
    (64, 3, 64, Places(7, 2, 3, 1)),
    (16, 64, 64, Places(3, 1, 1, 1)),
    (16, 64, 128, Places(3, 2, 1, 1)),
    (16, 64, 128, Places(1, 2, 0, 1)),
    (8, 128, 128, Places(3, 1, 1, 1)),
    (8, 128, 256, Places(3, 2, 1, 1)),
    (8, 128, 256, Places(1, 2, 0, 1)),
    (4, 256, 256, Places(3, 1, 1, 1)),
    (4, 256, 512, Places(3, 2, 1, 1)),
    (4, 256, 512, Places(1, 2, 0, 1)),
    (2, 512, 512, Places(3, 1, 1, 1)),
]
"""Every convolution of ResNet-18 on images of 64 x 64: size, channels, outputs. The first has too few for a group."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "channels", "outputs", "places", "pattern"),
    [(*shape, None) for shape in RESNET18_AT_64] + [(*shape, "2:8") for shape in RESNET18_AT_64[1:]],
)
def test_convolutions_of_resnet18_are_the_cycle_levels_products(
    size: int, channels: int, outputs: int, places: Places, pattern: str | None
) -> None:
    """FF with groups along input channels, BP along outputs, WU dense: the three of BDWP, and of a dense step."""
    spec, rng = load_spec("sat-vcu1525"), np.random.default_rng(size * channels)
    spec = replace(spec, array=replace(spec.array, w2e_words=2))
    window, images = on(places, (size, size)), 2
    x = np.maximum(rng.standard_normal((images, size, size, channels)), 0).astype(np.float16)
    weight = (rng.standard_normal((outputs, *window.kernel, channels)) / channels).astype(np.float16)
    gradient = rng.standard_normal((images, *window.positions, outputs)).astype(np.float16)
    taps = window.taps
    dense = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=4)
    mapping = dense if pattern is None else replace(dense, pattern=NMPattern.parse(pattern))

    # The weight as FF reads it, [taps x channels, outputs], and as BP does, [outputs, taps x channels].
    forward, backward = np.ascontiguousarray(weight.reshape(outputs, -1).T), weight.reshape(outputs, -1)
    to_ff, to_bp = (compress(w, mapping.pattern, run) for w, run in ((forward, channels), (backward, outputs)))
    kept_ff = kept_bp = None
    if pattern is not None:
        # No weight drawn is zero, so what is left of it is what was kept.
        kept_ff = (decompress(to_ff) != 0).T.reshape(weight.shape)
        kept_bp = (decompress(to_bp) != 0).reshape(weight.shape)
    windows = unfold(np.moveaxis(x, -1, 1), window).reshape(-1, taps * channels)
    matrix = gradient.reshape(-1, outputs)

    stepped = run_array(spec, mapping, windows, to_ff).result
    assert bits(convolve(x, weight, window, kept=kept_ff)) == bits(stepped)
    columns = run_array(spec, mapping, matrix, to_bp).result.reshape(-1, taps, channels)
    found = convolve_back(gradient, weight, window, kept=kept_bp)
    wanted = np.moveaxis(fold(columns, window), 1, -1)
    # `fold` starts from +0.0: equal but for the sign of a zero.
    assert bits(found + np.float32(0)) == bits(wanted + np.float32(0))
    stepped = run_array(spec, dense, np.ascontiguousarray(windows.T), matrix).result
    assert bits(np.moveaxis(weight_gradient(x, gradient, window), 0, -1)) == bits(stepped)
