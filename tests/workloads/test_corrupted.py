"""Corrupted test images: each equation against another implementation of it, and what an evaluation makes of them."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from weft.workloads.data import open_data
from weft.workloads.data.corrupted import CORRUPTIONS, SEVERITIES, Corrupted, corrupted
from weft.workloads.data.images import InMemory, normalised
from weft.workloads.errors import InputError
from weft.workloads.training import accuracy_under_corruption, plan, train

from ..examples_drawn import examples

# make_cifar_c.py of hendrycks/robustness, by strength.
BLUR = {1: 0.4, 2: 0.6, 3: 0.7, 4: 0.8, 5: 1.0}
CONTRAST = {1: 0.75, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.15}
NOISE = {1: 0.04, 2: 0.06, 3: 0.08, 4: 0.09, 5: 0.1}


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


@pytest.mark.parametrize("severity", SEVERITIES)
@settings(max_examples=examples(20), deadline=None)
@given(seed=st.integers(0, 99), sides=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
def test_blur_is_the_gaussian_of_scipy(severity, seed, sides):
    pixels = drawn(seed, 2, *sides)
    sigma = (0, 0, BLUR[severity], BLUR[severity])

    expected = gaussian_filter(pixels, sigma, mode="nearest", truncate=4.0)
    assert np.allclose(corrupted(pixels, "blur", severity), expected, atol=1e-12)


def test_blur_of_a_dot_by_hand():
    dot = np.zeros((1, 1, 9, 9))
    dot[0, 0, 4, 4] = 1.0
    weights = [exp(-(d**2) / 2) for d in range(-4, 5)]

    made = corrupted(dot, "blur", 5)[0, 0]
    assert np.allclose(made, np.outer(weights, weights) / sum(weights) ** 2)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_by_hand(severity):
    pixels = drawn(3, 4, 2, 5, 6)
    made = corrupted(pixels, "contrast", severity)

    for image, other in zip(pixels, made, strict=True):
        for channel, after in zip(image, other, strict=True):
            mean = sum(channel.flat) / channel.size
            assert np.allclose(after, [[mean + CONTRAST[severity] * (x - mean) for x in row] for row in channel])


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_its_deviation_and_is_that_of_the_position(severity):
    grey = np.full((64, 1, 16, 16), 0.5)
    made = corrupted(grey, "noise", severity)
    noise = made - 0.5

    assert abs(noise.mean()) < 0.003
    assert noise.std() == pytest.approx(NOISE[severity], rel=0.02)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.3
    assert np.array_equal(made[5:9], corrupted(grey[5:9], "noise", severity, range(5, 9)))
    ends = corrupted(np.array([0.0, 1.0]).reshape(2, 1, 1, 1).repeat(16, 2), "noise", severity)
    assert ends.min() == 0.0 and ends.max() == 1.0


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_come_in_their_own_units_and_in_any_batches(name):
    images = InMemory(torch.from_numpy((16 * drawn(1, 7, 1, 8, 8)).astype(np.uint8)), torch.arange(7))
    bad = Corrupted(images=images, white=16, name=name, severity=4)

    whole = bad.fetch(torch.arange(7))
    assert whole.dtype == torch.float32 and whole.min() >= 0 and whole.max() <= 16
    assert torch.equal(whole, torch.cat([bad.fetch(index) for index in torch.arange(7).split(3)]))
    assert torch.allclose(whole / 16, torch.from_numpy(corrupted(images.pixels.numpy() / 16, name, 4)).float())
    assert torch.equal(bad.labels, images.labels)


def test_a_trained_model_is_asked_about_every_corrupted_image():
    """By hand: the model as it stands, on images corrupted here."""
    result = train(plan("mlp", scheme="xnor", epochs=1))
    data = open_data("digits")
    assert data.white == int(data.train.fetch(torch.arange(1085)).max()) == 16

    found = accuracy_under_corruption(result)
    assert {name: len(each) for name, each in found.items()} == dict.fromkeys(CORRUPTIONS, 5)
    clean = data.test.fetch(torch.arange(len(data.test.labels))).numpy() / 16
    result.model.eval()
    for name, severity in (("contrast", 5), ("blur", 2), ("noise", 5)):
        pixels = torch.from_numpy(16 * corrupted(clean, name, severity)).float()
        with torch.no_grad():
            right = result.model(normalised(data, pixels)).argmax(1) == data.test.labels
        assert found[name][severity - 1] == pytest.approx(right.double().mean().item(), abs=1e-9)


def test_what_there_is_not_is_refused():
    with pytest.raises(InputError, match="corruption 'blurr' is unknown: did you mean 'blur'"):
        corrupted(drawn(0, 1, 1, 2, 2), "blurr", 1)
    with pytest.raises(InputError, match="severity of corruption 'blur' must be an integer from 1 to 5, not 6"):
        corrupted(drawn(0, 1, 1, 2, 2), "blur", 6)
