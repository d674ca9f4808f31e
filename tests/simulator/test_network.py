"""A network of integers on the stepped engine: products, thresholds and cycles against what they are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.xnor.time import xnor_cycles
from weft.simulator.network import run_network, threshold_of
from weft.workloads.errors import InputError
from weft.workloads.im2col import Window
from weft.workloads.integer_network import IntegerLayer, IntegerNetwork, Norm
from weft.workloads.levels import Levels

SPEC = load_spec("bnn-ecp5")
BINARY = (Levels.BINARY, Levels.BINARY)


def layer(name, k, n, levels=BINARY, norm=None, window=None, **given):
    made = np.random.default_rng(len(name) + k)
    return IntegerLayer(
        name=name,
        weights=made.choice(np.array([-1, 1], np.int8), (k, n)),
        levels=levels,
        window=window or Window(),
        norm=norm,
        scale=np.full(n, 0.5, np.float32),
        bias=np.zeros(n, np.float32),
        **{"channels": k, "edge": 1} | given,
    )


def norm(n):
    made = np.random.default_rng(n)
    gamma, beta, mean = (made.integers(-3, 4, n).astype(np.float32) for _ in range(3))
    return Norm(gamma=gamma, beta=beta, mean=mean, variance=np.full(n, 4, np.float32), epsilon=0.0)


NETWORK = IntegerNetwork(
    table=np.arange(256).clip(0, 31).astype(np.int8)[None],
    layers=(
        layer(
            "image",
            9,
            6,
            (Levels.INT6, Levels.BINARY),
            norm(6),
            Window(image=(6, 6), kernel=(3, 3), stride=(1, 1), padding=(0, 0), dilation=(1, 1)),
            channels=1,
            pool=Window(image=(4, 4), kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1)),
            edge=0,
        ),
        layer("hidden", 24, 70, norm=norm(70)),
        layer("last", 70, 5),
    ),
)
PIXELS = np.random.default_rng(0).integers(0, 17, (9, 1, 6, 6)).astype(np.uint8)


def test_values_are_those_of_plain_arithmetic():
    """An image at a time, a window at a time, in floats that hold every number of it exactly."""
    run = run_network(SPEC, NETWORK, PIXELS)
    image, hidden, last = NETWORK.layers
    for number, pixels in enumerate(PIXELS[:, 0].astype(float)):
        sums = np.array(
            [[pixels[i : i + 3, j : j + 3].ravel() @ image.weights for j in range(4)] for i in range(4)]
        ).transpose(2, 0, 1)
        x = np.array([[s[i : i + 2, j : j + 2].max() for i in (0, 2) for j in (0, 2)] for s in bits(sums, image.norm)])
        assert run.forward.inputs[1][number].reshape(6, 4).tolist() == x.tolist()
        x = bits((x.ravel() @ hidden.weights)[:, None, None], hidden.norm).ravel()
        assert run.forward.inputs[2][number].tolist() == x.tolist()
        assert run.forward.sums[number].tolist() == (x @ last.weights).tolist()
        assert run.forward.classes[number] == np.argmax(x @ last.weights * 0.5)


def bits(sums, n):
    """Of sums [channels, height, width]."""
    g, b, mu = (x.astype(float)[:, None, None] for x in (n.gamma, n.beta, n.mean))
    return np.where(g * (0.5 * sums - mu) / 2 + b >= 0, 1, -1)


def test_cycles_are_the_closed_form_and_weights_flow_to_the_columns():
    run = run_network(SPEC, NETWORK, PIXELS)
    for made, layer in zip(run.layers, NETWORK.layers, strict=True):
        gemm = layer.gemm(len(PIXELS))
        assert made.placement.mapping.n2s == "b" and made.placement.mapping.gemm == gemm
        assert made.array == xnor_cycles(SPEC, gemm, made.mapping, layer.levels).total
        assert made.placement.cycles.total >= made.array
    assert run.cycles == sum(made.placement.cycles.total for made in run.layers)
    assert [made.threshold is None for made in run.layers] == [False, False, True]


def test_a_layer_without_a_norm_has_the_sign_of_what_it_makes():
    bare = replace(layer("bare", 8, 3), bias=np.array([0.0, 1.25, -1.0], np.float32))
    found = threshold_of(bare)
    assert found.at.tolist() == [0, -2, 2] and not found.flip.any()


def test_a_norm_that_is_none_and_a_machine_without_the_engine_are_refused():
    n = norm(70)
    broken = replace(NETWORK.layers[1], norm=replace(n, variance=np.zeros(70, np.float32)))
    with pytest.raises(InputError, match="variance must be above 0 with its epsilon 0, not 0"):
        threshold_of(broken)
    broken = replace(NETWORK.layers[1], norm=replace(n, beta=np.full(70, np.nan, np.float32)))
    with pytest.raises(InputError, match="beta must be finite, not nan"):
        threshold_of(broken)
    broken = replace(NETWORK.layers[1], scale=np.ones(3, np.float32))
    with pytest.raises(InputError, match=r"scale must be float32 \[70\], not float32 \[3\]"):
        threshold_of(broken)
    with pytest.raises(InputError, match="has no XNOR engine"):
        run_network(load_spec("tiny"), NETWORK, PIXELS)
