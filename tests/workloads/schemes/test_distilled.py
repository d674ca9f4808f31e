"""Images distilled from batch norms: their statistics recomputed by hand, and the scores that they give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.workloads.errors import InputError
from weft.workloads.schemes.distilled import distilled, distilling_loss, has_statistics
from weft.workloads.schemes.sensitivity import sensitivities

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (2, 6, 6)


def network() -> nn.Sequential:
    """Batch norms that have seen images far from noise, and one channel that is dead."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8, eps=1e-3),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    with torch.no_grad():
        made[0].weight.mul_(4)
        made[3].weight[2] = 0
    for module in made:
        module.momentum = 0.5
    for _ in range(8):
        images = torch.randn(32, *SHAPE).cumsum(2).cumsum(3)
        made(images / images.std())
    return made


def loss_by_hand(model: nn.Sequential, batch: Tensor) -> float:
    """The network written out; sums of single channels in float64."""
    first, second = model[1], model[4]
    seen = [functional.conv2d(batch, model[0].weight)]
    passed = functional.batch_norm(seen[0], first.running_mean, first.running_var, first.weight, first.bias)
    seen.append(functional.conv2d(passed.relu(), model[3].weight))
    total = 0.0
    for x, mean, variance, eps in (
        (batch, torch.zeros(2), torch.ones(2), 1e-5),
        (seen[0], first.running_mean, first.running_var, first.eps),
        (seen[1], second.running_mean, second.running_var, second.eps),
    ):
        for c in range(x.shape[1]):
            values = x[:, c].detach().double().numpy().ravel()
            total += (values.mean() - float(mean[c])) ** 2
            total += (math.sqrt(values.var() + eps) - math.sqrt(float(variance[c]) + eps)) ** 2
    return total


def test_statistics_become_those_that_are_stored() -> None:
    """To less than a hundredth of the loss of noise, as the network written out says."""
    model = network()
    model.eval()
    (noise,), (made,) = (distilled(model, 32, SHAPE, seed=1, steps=steps) for steps in (0, 100))
    before, after = (loss_by_hand(model, batch) for batch in (noise, made))
    assert torch.equal(noise, torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(1)))
    assert [distilling_loss(model, batch) for batch in (noise, made)] == pytest.approx([before, after], rel=1e-3)
    assert before > 1.0
    assert after < before / 100


def test_the_model_stays_and_the_seed_decides() -> None:
    model = network()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    seen = list[tuple[int, int]]()
    first = distilled(model, 130, SHAPE, steps=2, progress=lambda *done: seen.append(done))
    assert [len(batch) for batch in first] == [65, 65]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not torch.equal(*first)
    for seed in (0, 1):
        again = distilled(model, 130, SHAPE, seed=seed, steps=2)
        assert all(map(torch.equal, first, again)) == (seed == 0)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, False, *[True] * 5]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model)


@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d(8, track_running_stats=False), nn.LayerNorm(8)])
def test_a_model_without_statistics_is_refused(norm: nn.Module | None) -> None:
    model = nn.Sequential(nn.Linear(8, 8), *([norm] if norm else []), nn.Linear(8, 5))
    assert not has_statistics(model)
    with pytest.raises(InputError, match=r"no batch norm that keeps mean and variance.*the nearest method is zeroq"):
        distilled(model, 4, (8,))


def test_scores_without_data_by_a_slow_reference() -> None:
    """KL divergence of the outputs, sample by sample and class by class, of 2:4 and of three bits in each layer."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 5))
    for _ in range(4):
        model(torch.randn(16, 8) * 2 + 1)
    model.eval()
    made = distilled(model, 6, (8,), steps=20)
    found, _, _ = sensitivities(model, [], ["2:4", "int3"], ["zeroq-distilled", "magnitude"], distilled=made)

    weights = {name: model.get_submodule(name).weight.detach().double().numpy() for name in ("0", "3")}
    biases = {name: model.get_submodule(name).bias.detach().double().numpy() for name in ("0", "3")}
    norm = model[1]
    mean, variance = norm.running_mean.double().numpy(), norm.running_var.double().numpy()

    def probabilities(x: np.ndarray, changed: dict[str, np.ndarray]) -> list[float]:
        of = {**weights, **changed}
        hidden = (of["0"] @ x + biases["0"] - mean) / np.sqrt(variance + norm.eps)
        scores = of["3"] @ np.tanh(hidden) + biases["3"]
        powers = [math.exp(score) for score in scores]
        return [power / sum(powers) for power in powers]

    def brought(row: np.ndarray, text: str) -> np.ndarray:
        if text == "int3":
            scale = abs(row).max() / 3
            return scale * np.round(row / scale)
        kept = row.copy()
        for group in range(0, len(row), 4):
            for i in sorted(range(group, group + 4), key=lambda i: abs(row[i]))[:2]:
                kept[i] = 0
        return kept

    samples = made[0].double().numpy()
    for name, text in ((name, text) for name in weights for text in ("2:4", "int3")):
        other = {name: np.array([brought(row, text) for row in weights[name]])}
        total = 0.0
        for x in samples:
            for p, q in zip(probabilities(x, {}), probabilities(x, other), strict=True):
                total += p * math.log(p / q)
        assert found[name]["zeroq-distilled"][text] == pytest.approx(total / len(samples), rel=1e-4)
        assert found[name]["magnitude"][text] > 0


def test_what_needs_images_is_refused_without() -> None:
    model = network()
    with pytest.raises(InputError, match="method 'zeroq' needs images: give batches, or take zeroq-distilled"):
        sensitivities(model, [], ["2:4"], ["zeroq"])
    with pytest.raises(InputError, match="method 'zeroq-distilled' needs distilled images"):
        sensitivities(model, [(torch.randn(2, *SHAPE), torch.tensor([0, 1]))], ["2:4"], ["zeroq-distilled"])
