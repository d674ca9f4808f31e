"""One trained layer on the RTL: FF, BP, WU, the update and both compact copies, of real activations and gradients.

A 64-32-24-10 perceptron is trained on the digits of scikit-learn by BDWP 2:8 (FF reads weights that are 2:8 along
the inputs, BP such along the outputs, WU is dense); its middle layer then takes a training step on the array and the
engines of the machine `tiny`, each operand being what the one before left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from weft.dataflow.config_io import load_spec
from weft.dataflow.pregenerate import COPIES, WeightShape
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.hdl.drivers.array import StceDriver
from weft.hdl.drivers.engines import PregenerateDriver
from weft.simulator.array import run_array
from weft.simulator.compact import Compact, compress, decompress
from weft.simulator.pregenerate import run_pregenerate
from weft.simulator.update_settings import Sgd
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

SPEC = load_spec("tiny")
PATTERN = NMPattern(keep=2, group=8)
WIDTHS = (64, 32, 24, 10)
BATCH, EPOCHS = 20, 4
LOSS_SCALE = 2.0**10
RATE, MOMENTUM, DECAY = 0.05, 0.9, 1e-4
DENSE_WS = NMPattern(keep=4, group=4)
OS, WS = Dataflow.OS, Dataflow.WS


def thinned(weight: torch.Tensor, dim: int) -> torch.Tensor:
    """``weight`` with zeros where it is not kept in groups along ``dim``."""
    groups = weight.detach().abs().unflatten(dim, (-1, PATTERN.group))
    kept = torch.zeros_like(groups).scatter_(dim + 1, groups.topk(PATTERN.keep, dim + 1).indices, 1.0)
    return weight * kept.flatten(dim, dim + 1)


class Bdwp(torch.autograd.Function):
    """A linear layer, its weight [inputs, outputs]."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ thinned(weight, 0)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ thinned(weight, 1).T, x.T @ gradient


@dataclass(frozen=True)
class Layer:
    """The middle layer in the middle of training: weight, velocity, input, gradient; FP16 where the machine is."""

    master: np.ndarray
    velocity: np.ndarray
    x: np.ndarray
    gradient: np.ndarray
    accuracy: float


@cache
def trained() -> Layer:
    torch.manual_seed(0)
    data = load_digits()
    images = torch.from_numpy(data.data).float() / 16
    labels = torch.from_numpy(data.target)
    weights = [torch.nn.Parameter(torch.randn(i, o) * (2 / i) ** 0.5) for i, o in pairwise(WIDTHS)]
    optimizer = torch.optim.SGD(weights, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)

    def forward(x):
        hidden = torch.relu(x @ weights[0])
        output = Bdwp.apply(hidden, weights[1])
        output.retain_grad()
        return hidden, output, torch.relu(output) @ weights[2]

    for _ in range(EPOCHS):
        for batch in torch.randperm(1500).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(forward(images[batch])[2], labels[batch]).backward()
            optimizer.step()
    accuracy = (forward(images[1500:])[2].argmax(1) == labels[1500:]).float().mean().item()
    hidden, output, logits = forward(images[:BATCH])
    (LOSS_SCALE * torch.nn.functional.cross_entropy(logits, labels[:BATCH])).backward()
    return Layer(
        master=weights[1].detach().numpy().copy(),
        velocity=optimizer.state[weights[1]]["momentum_buffer"].numpy().copy(),
        x=hidden.detach().numpy().astype(np.float16),
        gradient=output.grad.numpy().astype(np.float16),
        accuracy=accuracy,
    )


@cache
def array() -> StceDriver:
    return StceDriver(SPEC)


@cache
def engines() -> PregenerateDriver:
    return PregenerateDriver(SPEC, PATTERN, Sgd.rule)


def multiply(dataflow: Dataflow, a: np.ndarray, b: Compact) -> np.ndarray:
    """The product as the RTL makes it, once it is sure that the simulator says the same."""
    held = SPEC.pe.accumulators if dataflow == OS else SPEC.pe.dense_words // b.pattern.group
    mapping = ArrayMapping(dataflow=dataflow, pattern=b.pattern, interleave=min(held, SPEC.pe.accumulators))
    want = run_array(SPEC, mapping, a, b)
    gemm = Gemm(m=a.shape[0], k=b.k, n=b.n, run=b.run)
    got = array().run(mapping, gemm, a, b.values, b.indices, cycles=want.cycles.total + 8)
    assert got.result.tolist() == want.result.view(np.uint32).tolist()
    assert got.left.tolist() == want.left.tolist()
    assert got.cycles == want.cycles.total
    return got.result.view(np.float32)


def test_the_network_has_learned_with_thinned_weights():
    layer = trained()
    assert layer.accuracy > 0.85
    assert np.count_nonzero(layer.gradient) > 0.2 * layer.gradient.size
    assert np.isfinite(layer.gradient).all()


@pytest.mark.parametrize("dataflow", [OS, WS])
def test_a_training_step_of_the_layer_runs_on_the_rtl(dataflow):
    layer = trained()
    weight = layer.master.astype(np.float16)
    x, g = layer.x, layer.gradient
    ff, bp = compress(weight, PATTERN), compress(np.ascontiguousarray(weight.T), PATTERN)

    forward = multiply(dataflow, x, ff)
    backward = multiply(dataflow, g, bp)
    dense = compress(g, DENSE if dataflow == OS else DENSE_WS)
    weight_gradient = multiply(dataflow, np.ascontiguousarray(x.T), dense)

    exact = [x, g, decompress(ff), decompress(bp)]
    x64, g64, ff64, bp64 = (array.astype(np.float64) for array in exact)
    for found, expected in ((forward, x64 @ ff64), (backward, g64 @ bp64), (weight_gradient, x64.T @ g64)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4 * np.abs(expected).max())

    rule = Sgd(rate=RATE, momentum=MOMENTUM, weight_decay=DECAY, inverse_scale=1 / LOSS_SCALE)
    shape = WeightShape(inputs=WIDTHS[1], outputs=WIDTHS[2])
    master, velocity = layer.master.ravel(), layer.velocity.ravel()
    gradient16 = weight_gradient.astype(np.float16).ravel()
    want = run_pregenerate(SPEC, rule, PATTERN, shape, master, gradient16, (velocity,))
    got = engines().run(
        shape,
        rule.constants,
        master.view(np.uint32),
        gradient16.view(np.uint16),
        [velocity.view(np.uint32)],
        cycles=want.cycles + 8,
    )
    assert got.cycles == want.cycles
    assert got.update.left.tolist() == want.update.left.tolist()
    assert got.update.master.tolist() == want.update.master.view(np.uint32).tolist()
    assert got.update.weights16.tolist() == want.update.weights16.view(np.uint16).tolist()
    for copy in COPIES:
        assert got.copies[copy].values.tolist() == want.copies[copy].compact.values.view(np.uint16).tolist()
        assert got.copies[copy].indices.tolist() == want.copies[copy].compact.indices.tolist()
        assert got.copies[copy].left.tolist() == want.copies[copy].left.tolist()

    # What autograd's optimizer would have made of it, and the next step, which reads what SORE left.
    expected = MOMENTUM * layer.velocity + (x64.T @ g64 / LOSS_SCALE + DECAY * layer.master)
    updated = got.update.master.view(np.float32).reshape(layer.master.shape)
    np.testing.assert_allclose(updated, layer.master - RATE * expected, rtol=1e-3, atol=1e-4)
    made = got.copies["ff"]
    following = Compact(values=made.values.view(np.float16), indices=made.indices, pattern=PATTERN, k=32, run=32)
    assert not np.array_equal(multiply(dataflow, x, following), forward)
