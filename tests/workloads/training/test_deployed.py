"""A trained network as integers: PyTorch, the stepped engine and a slow exact reference; what is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from weft.dataflow.config_io import load_spec
from weft.simulator.network import run_network
from weft.workloads.data import normalised, open_data
from weft.workloads.errors import InputError
from weft.workloads.levels import Levels
from weft.workloads.training import deploy, plan
from weft.workloads.training.control import controlled
from weft.workloads.training.run import Run

from ...integer_reference import classified, numbers, with_norms

BINARY = {"norm": "none", "ends": "int6"}
SPEC = load_spec("bnn-ecp5")
EIGHTH = Fraction(1, 8)


def perceptron(*, width=24, bias=False):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, width, bias=bias),
        nn.BatchNorm1d(width),
        nn.Hardtanh(),
        nn.Linear(width, width, bias=bias),
        nn.BatchNorm1d(width),
        nn.Linear(width, 10, bias=bias),
    )


def convolutions():
    """A pool behind a norm and one in front, a padded and a strided window, a layer without a norm."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, bias=False),
        nn.BatchNorm2d(12),
        nn.Hardtanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 15, 2, padding=1, bias=True),
        nn.MaxPool2d(2, 1),
        nn.BatchNorm2d(15),
        nn.Conv2d(15, 8, (2, 1), (1, 2), bias=True),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


@cache
def digits():
    return open_data("digits")


def run_of(model, scheme="xnor", epochs=1, options=BINARY, steps=0, shape=None):
    """A training of ``model`` after so many of its steps, in eval mode."""
    spec = plan("mlp", scheme=scheme, epochs=epochs, optimizer="adamw", options=options)
    data = digits() if shape is None else replace(digits(), shape=shape)
    made = Run(spec, data, None, torch.device("cpu"))
    if model is not None:
        made.model = model
        made.technique = type(made.technique)(
            model, made.technique.scheme, None, seed=0, steps=made.steps, options=made.technique.options
        )
        made.optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    with controlled(1, torch.device("cpu")):
        for _ in range(steps):
            made.advance()
    made.model.eval()
    return made


def three_places(run, count):
    """PyTorch in FP32 and FP64 and the stepped engine on the first test images: the same inputs of every layer and the
    same classes; these."""
    made = deploy(run)
    pixels, _ = made.images(0, count)
    stepped = run_network(SPEC, made.network, pixels).forward
    for found in (made.single(pixels), made.double(pixels)):
        assert found.classes.tolist() == stepped.classes.tolist()
        for one, two in zip(found.inputs, stepped.inputs, strict=True):
            assert (one.reshape(count, -1) == two.reshape(count, -1)).all()
    return pixels, stepped


@pytest.mark.parametrize("scheme", ["xnor", "bireal"])
def test_all_test_images_have_the_class_of_the_exact_reference(scheme):
    run = run_of(perceptron(width=64, bias=scheme == "bireal"), scheme, epochs=6, steps=96)
    pixels, stepped = three_places(run, 355)
    read, classes = classified(run.model, numbers(pixels, run.data, 6), EIGHTH)

    assert stepped.classes.tolist() == classes
    for one, two in zip(stepped.inputs, read, strict=True):
        assert (one.reshape(len(pixels), -1) == two.reshape(len(pixels), -1)).all()
    labels = run.data.test.labels.numpy()
    assert (stepped.classes == labels).mean() > 0.5, "it has learnt something, so that classes differ"


@pytest.mark.parametrize("options", [BINARY | {"edge": "one"}, BINARY | {"edge": "one", "ends": "binary"}])
def test_convolutions_and_pools_of_bits(options):
    model = convolutions()
    with_norms(model)
    run = run_of(model, options=options)
    pixels, stepped = three_places(run, 24)
    first = numbers(pixels, run.data, 6)
    binary = options["ends"] == "binary"
    read, classes = classified(model, np.where(first >= 0, 1, -1) if binary else first, 1 if binary else EIGHTH)

    assert stepped.classes.tolist() == classes
    for one, two in zip(stepped.inputs, read, strict=True):
        assert (one.reshape(len(pixels), -1) == two.reshape(len(pixels), -1)).all()
    assert all(set(x.ravel().tolist()) == {-1, 1} for x in stepped.inputs[1:])


def test_ties_and_norms_of_every_sign():
    """Sums and means are whole and alpha is 0.5, so that ties are among them, and FP32 rounds nothing of them."""
    model = perceptron()
    with_norms(model)
    run = run_of(model)
    pixels, stepped = three_places(run, 60)
    read, classes = classified(model, numbers(pixels, run.data, 6), EIGHTH)

    assert stepped.classes.tolist() == classes
    for one, two in zip(stepped.inputs, read, strict=True):
        assert (one.reshape(len(pixels), -1) == two.reshape(len(pixels), -1)).all()
    tied, slope = ties(model, stepped), model[2].weight.detach().numpy()
    assert tied[:, slope > 0].any() and tied[:, slope < 0].any()


def ties(model, stepped):
    """Where the first norm makes exactly 0 of a scaled sum; bool [images, channels]."""
    norm, x = model[2], stepped.inputs[0].reshape(len(stepped.classes), -1)
    centred = x @ np.where(model[1].weight.detach() >= 0, 1, -1).T / 16 == norm.running_mean.numpy()
    centred[:, 0] = False
    return centred & ((norm.bias == 0) & (norm.weight != 0)).numpy()


def test_fp32_takes_for_a_tie_what_is_none():
    """alpha s rounded to FP32 is the mean of the norm, so that PyTorch in FP32 sees a 0; the exact product is beside
    it, which FP64 sees as well as the threshold."""
    model = perceptron()
    with_norms(model, eps=1e-5)
    run = run_of(model)
    with torch.no_grad():
        model[1].weight.mul_(0.2)
        model[2].bias.zero_()
        model[2].weight.copy_(torch.tensor([1.0, -1.0]).repeat(12))
        image = normalised(run.data, run.data.test.fetch(torch.tensor([0])))
        model[2].running_mean.copy_(model[1](model[0](image))[0])
    made = deploy(run)
    pixels, _ = made.images(0, 60)
    stepped = run_network(SPEC, made.network, pixels).forward
    read, _ = classified(model, numbers(pixels, run.data, 6), EIGHTH)
    assert (stepped.inputs[1] == read[1]).all() and (made.double(pixels).inputs[1] == read[1]).all()
    sums = made.network.layers[0].columns(stepped.inputs[0]).astype(int) @ made.network.layers[0].weights
    differs = made.single(pixels).inputs[1] != read[1]
    assert differs[0].any() and not differs[sums != sums[0]].any()


def test_of_equal_scores_the_first_class_is_taken():
    model = perceptron()
    with_norms(model)
    with torch.no_grad():
        model[-1].weight.fill_(0.5)
    _, stepped = three_places(run_of(model), 12)
    assert (stepped.scores == stepped.scores[:, :1]).all()
    assert stepped.classes.tolist() == [0] * 12


def test_layers_are_what_the_scheme_trained():
    made = deploy(run_of(perceptron(), steps=3))
    first, hidden, last = made.network.layers
    assert [layer.levels for layer in made.network.layers] == [
        (Levels.INT6, Levels.BINARY),
        *[(Levels.BINARY,) * 2] * 2,
    ]
    assert [layer.weights.shape for layer in made.network.layers] == [(64, 24), (24, 24), (24, 10)]
    assert first.norm is not None and hidden.norm is not None and last.norm is None
    table = made.network.table
    assert table.shape == (1, 256) and (np.diff(table[0].astype(int)) >= 0).all() and table.max() == 31
    assert len(set(table[0, :17].tolist())) == 17, "of a digit's pixels no two are one"
    with pytest.raises(InputError, match=r"images must be uint8 \[images, 1, height, width\], not float32"):
        made.network.first_inputs(np.zeros((2, 1, 8, 8), np.float32))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = perceptron(width=64)

    def forward(self, x):
        return self.net(x + 1)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.start, self.first, self.layer = nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        return self.layer(self.layer(self.first(self.start(x))))


def with_one(module, place):
    made = list(perceptron())
    return nn.Sequential(*made[:place], module, *made[place:])


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (None, {"scheme": "dense", "options": {}}, "scheme 'dense' leaves real numbers.*train under xnor, bireal"),
        (perceptron, {"options": {"ends": "int6"}}, r"norm=layer.*train with --option norm=none"),
        (perceptron, {"options": {"norm": "none"}}, r"layer '1' is in full precision \(first layer\).*ends=int8"),
        (perceptron, {"scheme": "bitnet", "options": {"norm": "none"}}, "scheme 'bitnet' brings inputs to int8.*xnor,"),
        (perceptron, {"scheme": "biper", "options": BINARY}, "layer '1' multiplies int6 inputs by real weights"),
        (perceptron, {"options": BINARY | {"output_scale": True}}, "layer '1' has an output scale.*output_scale=false"),
        (Residual, {}, "does something of its own between the images and 'net.0'"),
        (Twice, {}, "layer 'layer' is passed twice"),
        (lambda: with_one(nn.ReLU(), 3), {}, r"'3' \(ReLU\) behind layer '1' folds into no threshold; .* tfc, sfc"),
        (lambda: with_one(nn.ReLU(), 0), {}, r"'0' \(ReLU\) stands in front of the first layer"),
        (lambda: with_one(nn.Hardtanh(), 7), {}, r"'7' \(Hardtanh\) stands behind the last layer"),
        (lambda: with_one(nn.Hardtanh(0, 1), 3), {}, r"clips to \[0, 1\]; signs need min < 0 <= max"),
        (lambda: with_one(nn.BatchNorm1d(24), 4), {}, "comes after another norm or a clipping"),
        (lambda: with_one(nn.LayerNorm(24), 2), {}, r"'2' \(LayerNorm\) behind layer '1' folds into no threshold"),
        (
            lambda: with_one(nn.BatchNorm1d(24, track_running_stats=False), 2),
            {},
            "norms by the batch; a threshold needs track_running_stats=True",
        ),
        (convolutions, {}, "layer '4' pads its image with 0, which is no value of a bit; train with --option edge=one"),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 10)),
            {},
            "layer '1' is a grouped or transposed convolution",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2, padding=1), nn.Flatten(), nn.Linear(64, 10)),
            {},
            "reaches beyond the image; a pool of bits has padding=0",
        ),
        (
            lambda: nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.MaxPool2d(1), nn.Flatten(), nn.Linear(36, 10)
            ),
            {},
            r"'2' \(MaxPool2d\) behind layer '0' is a second pool",
        ),
    ],
)
def test_what_no_threshold_holds_is_refused(model, given, message):
    with pytest.raises(InputError, match=message):
        deploy(run_of(model() if model else None, **{"options": BINARY} | given))
