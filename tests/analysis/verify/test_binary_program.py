"""Binary networks as programs of the whole machine: in its compiled RTL every bit and cycle that of the model, and of
integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from weft.analysis.verify.binary_program import WholeMachine
from weft.dataflow.config_io import load_spec
from weft.dataflow.xnor.spec import XnorSpec
from weft.simulator.network import threshold_of
from weft.workloads.integer_network import IntegerNetwork, Norm

from ...simulator.machine.binary_networks import SIDE, by_integers, drawn_network

TINY = load_spec("tiny")
BUFFERS = replace(TINY.buffers, w2e_bytes=65_536, n2s_bytes=65_536)
ENGINE = XnorSpec(rows=3, cols=5, word_bits=64, accumulators=7, dense_words=4)
SPEC = replace(TINY, buffers=BUFFERS, xnor=ENGINE)


def normed(rng: np.random.Generator) -> IntegerNetwork:
    """A network whose channels pass where sums are large, small, always or never."""
    network, _ = drawn_network(rng)
    layers = []
    for layer in network.layers:
        n = layer.weights.shape[1]
        gamma, beta, mean = (rng.integers(-3, 4, n).astype(np.float32) for _ in range(3))
        norm = Norm(gamma=gamma, beta=beta, mean=mean, variance=np.full(n, 4, np.float32), epsilon=0.0)
        layers.append(replace(layer, norm=norm))
    return replace(network, layers=tuple(layers))


def run(seed: int, *, rtl: bool) -> None:
    rng = np.random.default_rng(seed)
    network, images = normed(rng), int(rng.integers(2, 5))
    channels = len(network.table)
    machine = WholeMachine(SPEC, network, images, (channels, SIDE, SIDE), rtl=rtl)
    # the last batch is not full
    pixels = rng.integers(0, 256, (images + 1, channels, SIDE, SIDE)).astype(np.uint8)
    want = by_integers(network, [threshold_of(layer) for layer in network.layers[:-1]], pixels)
    found = machine.run(pixels)
    assert list(found) == ["program, model", "program, RTL"][: 1 + rtl]
    for forward, wrong in found.values():
        assert (forward.sums == want.sums).all()
        assert (forward.classes == want.classes).all()
        for mine, its in zip(forward.inputs, want.inputs, strict=True):
            assert (mine.reshape(its.shape) == its).all()
        assert not wrong
    assert machine.cycles.cycles > 0


def test_the_model_of_the_chip_is_that_of_integers() -> None:
    run(3, rtl=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 3, 5, 7])
def test_the_rtl_has_the_bits_of_the_model_in_its_cycles(seed: int) -> None:
    run(seed, rtl=True)
