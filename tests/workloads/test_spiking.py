"""Spiking neurons to train with against their equations in NumPy, forward and backward, and the network of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.models.snn import SpikingNet
from weft.workloads.schemes import attach
from weft.workloads.spiking import LIF, fired, surrogate

from ..examples_drawn import examples


def by_hand(currents, threshold, leak, g):
    """Spikes of ``currents`` [steps, n], and the gradients by currents and by the logarithm of ``threshold`` [n]."""
    steps, keep = len(currents), 1 - 2.0**-leak
    charged, spikes = np.zeros_like(currents), np.zeros_like(currents)
    left = np.zeros_like(threshold)
    for t in range(steps):
        charged[t] = keep * left + currents[t]
        spikes[t] = charged[t] >= threshold
        left = charged[t] - threshold * spikes[t]
    by_current, by_threshold, later = np.zeros_like(currents), np.zeros_like(threshold), np.zeros_like(threshold)
    for t in reversed(range(steps)):
        # a later membrane holds keep (u - v o), of which o counts as a constant
        by_threshold -= keep * spikes[t] * later
        by_z = g[t] * 0.3 * np.maximum(0, 1 - np.abs(charged[t] / threshold - 1))
        by_threshold -= by_z * charged[t] / threshold**2
        later = by_z / threshold + keep * later
        by_current[t] = later
    return spikes, by_current, by_threshold * threshold


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 10**6))
def test_neurons_are_their_equations_forward_and_backward(steps, leak, seed):
    rng = np.random.default_rng(seed)
    currents, threshold = rng.uniform(-1, 2, (steps, 5)), rng.uniform(0.5, 1.5, 5)
    g = rng.standard_normal((steps, 5))
    spikes, by_current, by_threshold = by_hand(currents, threshold, leak, g)

    neurons = LIF(5, leak).double()
    with torch.no_grad():
        neurons.log_threshold.copy_(torch.from_numpy(np.log(threshold)))
    given = torch.from_numpy(currents)[:, None].requires_grad_()
    found = neurons(given)
    found.backward(torch.from_numpy(g)[:, None])

    assert np.array_equal(found.detach()[:, 0].numpy(), spikes)
    np.testing.assert_allclose(given.grad[:, 0].numpy(), by_current, atol=1e-12)
    np.testing.assert_allclose(neurons.log_threshold.grad.numpy(), by_threshold, atol=1e-12)


def test_a_neuron_over_four_steps_on_paper():
    """u: 0.75; 0.375 + 0.75 = 1.125 fires, 0.125 stays; 0.0625 + 0.75; 0.40625 + 0.75 fires."""
    assert LIF(1)(torch.full((4, 1, 1), 0.75)).flatten().tolist() == [0, 1, 0, 1]
    assert LIF(1, leak=0)(torch.full((4, 1, 1), 0.75)).flatten().tolist() == [0, 0, 0, 0]


def test_the_surrogate_is_the_triangle_of_iir_snn():
    z = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    torch.testing.assert_close(surrogate(z), torch.tensor([0, 0, 0.15, 0.3, 0.15, 0, 0]))
    assert fired(z).tolist() == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("steps", [1, 3])
def test_the_network_is_its_layers_step_by_step(steps):
    torch.manual_seed(1)
    net, x = SpikingNet(7, 4, 2, width=8, steps=steps), torch.randn(3, 2, 7, 7)
    membranes, scores = [0.0] * 3, torch.zeros(3, 4)
    for _ in range(steps):
        spikes = x
        for i, (conv, neurons) in enumerate(zip(net.convs, net.neurons, strict=True)):
            charged = membranes[i] / 2 + conv(spikes)
            at = neurons.threshold.reshape(-1, 1, 1)
            spikes = (charged / at - 1 >= 0).float()
            membranes[i] = charged - at * spikes
        scores += spikes.flatten(1) @ net.head.weight.T

    torch.testing.assert_close(net(x), scores)
    assert 0.05 < spikes.mean() < 0.5, "neurons begin neither silent nor always firing"


@pytest.mark.parametrize("steps", [1, 3])
def test_under_the_scheme_layers_behind_neurons_multiply_spikes_by_ternary_weights(steps):
    """As they were fired: nothing is normalised, and the gradient goes straight to the neurons."""
    torch.manual_seed(0)
    net, x = SpikingNet(8, width=8, steps=steps), torch.randn(4, 1, 8, 8)
    technique = attach(net, "spiking", None, steps=1)
    seen = []
    for layer in technique.layers.values():
        layer.observer = seen.append
    net(x)

    assert [gemm.layer.name for gemm in seen] == ["convs.1", "convs.2"]
    assert technique.kept_dense == {"convs.0": "first convolution", "head": "last layer"}
    for gemm in seen:
        assert gemm.pass_ is Pass.FF
        assert set(gemm.left.flatten().tolist()) == set(Levels.SPIKE.values)
        assert set(gemm.right.flatten().tolist()) == set(Levels.TERNARY.values)
    assert torch.equal(seen[0].left, net.neurons[0](net.convs[0](x).expand(steps, 4, 8, 8, 8)).flatten(0, 1))


def test_what_is_no_spike_behind_neurons_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Unflatten(0, (1, -1)), LIF(8), nn.Flatten(0, 1), nn.AvgPool2d(2))
    model.extend([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)])
    attach(model, "spiking", None, steps=1)
    with pytest.raises(InputError, match=r"behind LIF neurons is given 0\.\d+, but spikes are 0 or 1; put nothing"):
        model(torch.linspace(-3, 3, 144).reshape(1, 1, 12, 12))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(0), "channels of LIF neurons must be an integer from 1"),
        (lambda: LIF(4, leak=32), "leak of LIF neurons must be an integer from 0 to 31, not 32"),
        (lambda: SpikingNet(8, steps=0), "time steps must be an integer from 1 to 64, not 0"),
    ],
)
def test_neurons_that_are_none_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
