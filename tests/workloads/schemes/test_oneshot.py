"""One-shot techniques: their scores and updates against slow direct formulas, when they prune, what stays zero."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes import attach
from weft.workloads.schemes.oneshot import columns, prune_columns
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan
from weft.workloads.training import train as train_digits

from .harness import TWO_OF_EIGHT, batch, most_kept, net, train

NAMES = ("magnitude", "wanda", "sparsegpt")
ONE_OF_FOUR = NMPattern(keep=1, group=4)


def obs(weight: torch.Tensor, hessian: torch.Tensor, run: int, pattern: NMPattern, damping: float):
    """Optimal brain surgeon, column by column, with an inverse of the rest of the Hessian for each."""
    w, columns_, mask = weight.double().clone(), weight.shape[1], torch.ones_like(weight, dtype=torch.bool)
    h = hessian.double() + damping * hessian.double().diagonal().mean() * torch.eye(columns_)
    rest = [torch.linalg.inv(h[j:, j:]) for j in range(columns_)]
    for row in range(len(w)):
        for base in range(0, columns_, run):
            for j in range(base, base + run):
                if (j - base) % pattern.group == 0:
                    group = range(j, min(j + pattern.group, base + run))
                    order = sorted(group, key=lambda c: (-float(w[row, c] ** 2 / rest[c][0, 0]), c))
                    for c in order[pattern.keep :]:
                        mask[row, c] = False
                if not mask[row, j]:
                    w[row, j:] -= w[row, j].clone() / rest[j][0, 0] * rest[j][0]
    return mask, w * mask


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([(8, 8), (12, 6), (20, 10)]), st.sampled_from([1, 4, 128]))
def test_sparsegpt_is_optimal_brain_surgeon_with_explicit_inverses(seed, sizes, block):
    """Blocks of columns change nothing; runs of 6 and 10 end in a short group."""
    width, run = sizes
    made = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, width, generator=made)
    x = torch.randn(width, 40, generator=made, dtype=torch.float64)
    mask, values = prune_columns(weight, x @ x.T, run, ONE_OF_FOUR, damping=0.01, block=block)
    slow_mask, slow = obs(weight, x @ x.T, run, ONE_OF_FOUR, 0.01)

    assert torch.equal(mask, slow_mask)
    torch.testing.assert_close(values.double(), slow, rtol=1e-5, atol=1e-5)
    for begin in range(0, width, run):
        assert most_kept(values[:, begin : begin + run], 1, 4) <= 1


def test_sparsegpt_drops_inputs_that_are_always_zero():
    x = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    x[2] = 0
    mask, values = prune_columns(torch.ones(3, 4), x @ x.T, 4, NMPattern(keep=4, group=4))
    assert mask.all() and (values[:, 2] == 0).all() and values.isfinite().all()


def test_sparsegpt_leaves_a_smaller_error_than_its_mask_alone():
    """What the update is for: outputs on the calibration data."""
    made = torch.Generator().manual_seed(0)
    x = torch.randn(16, 64, generator=made).cumsum(0)
    weight = torch.randn(8, 16, generator=made)
    mask, values = prune_columns(weight, x @ x.T, 16, TWO_OF_EIGHT)
    assert ((values - weight) @ x).norm() < 0.7 * ((weight * mask - weight) @ x).norm()


CONVOLUTIONS = [
    nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
    nn.Conv2d(4, 6, (3, 2), dilation=(1, 2), padding=2, padding_mode="reflect"),
    nn.Conv1d(4, 8, 3, padding="same"),
    nn.Conv3d(2, 4, 2),
    nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2, output_padding=1),
]


@pytest.mark.parametrize("module", [*CONVOLUTIONS, nn.Linear(6, 5)], ids=lambda m: type(m).__name__)
def test_columns_times_the_weight_matrix_are_the_outputs(module):
    """[out, taps x in] @ columns = Y for every kind of layer: the columns stand in the order of the groups of FF."""
    torch.manual_seed(0)
    module = copy.deepcopy(module)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), module)
    technique = attach(model, "wanda", NMPattern(keep=1, group=2), steps=1)
    layer = technique.layers["1"]
    dims = module.weight.dim() - 2
    x = torch.randn(3, 7, 6) if not dims else torch.randn(3, module.in_channels, *[5] * dims)
    y = module(x) - (module.bias if not dims else module.bias.reshape(1, -1, *[1] * dims))
    made = columns(layer, x)
    matrix = layer.canonical(module.weight.detach()).transpose(2, 3).flatten(2)
    expected = y.reshape(-1, 5).t()[None] if not dims else y.reshape(3, layer.shape[0], layer.shape[1], -1)
    if dims:
        expected = expected.permute(1, 2, 0, 3).flatten(2)

    torch.testing.assert_close(matrix @ made, expected.detach(), rtol=1e-4, atol=1e-5)


def test_wanda_keeps_by_magnitude_times_norm_of_the_input():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1), nn.Flatten(), nn.Linear(75, 4))
    technique = attach(model, "wanda", ONE_OF_FOUR, steps=4)
    dense = [module.weight.detach().clone() for module in (model[1], model[3])]
    images = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(2))
    technique.calibrate([images[:2], (images[2:],)])
    with torch.no_grad():
        hidden = model[0](images)
        flat = model[2](model[1](hidden))
    technique.prune()

    # im2col of the reference: channels first, then taps.
    norms = functional.unfold(hidden, 3, padding=1).square().sum((0, 2)).sqrt().reshape(4, 3, 3)
    for module, weight, score in zip(
        (model[1], model[3]), dense, (dense[0].abs() * norms, dense[1].abs() * flat.square().sum(0).sqrt()), strict=True
    ):
        groups = score.split(4, dim=1)
        expected = torch.cat([(g == g.amax(1, keepdim=True)) for g in groups], dim=1)
        assert torch.equal(module.weight != 0, expected)
        assert torch.equal(module.weight, weight * expected)


def test_calibrating_twice_forgets_the_first_and_leaves_training_mode_alone():
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 4))
    model[0].eval()
    technique = attach(model, "wanda", TWO_OF_EIGHT, steps=4)
    states = []
    for _ in range(2):
        technique.calibrate([torch.ones(3, 8)])
        states.append(technique.layers["2"].state["squares"])

    assert torch.equal(*states) and not torch.equal(states[0], torch.zeros(1, 8))
    assert model[2].training and model[1].training and not model[0].training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_it_prunes_once_and_holds_the_mask(name):
    model, steps = net(), 10
    technique = attach(model, name, TWO_OF_EIGHT, steps=steps, until=0.5, calibration=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
    train(model, technique, batch(), range(4), optimizer)
    assert all(bool((layer.weight != 0).all()) for layer in technique.layers.values())
    train(model, technique, batch(), range(4, 5), optimizer)
    first = {key: layer.state["mask"] for key, layer in technique.layers.items()}
    losses = train(model, technique, batch(), range(5, steps), optimizer)

    assert losses[-1] < losses[0]
    for key, layer in technique.layers.items():
        assert layer.state.keys() == {"mask"} and torch.equal(layer.state["mask"], first[key])
        assert (layer.weight[~first[key]] == 0).all()
        assert (optimizer.state[layer.weight]["momentum_buffer"][~first[key]] == 0).all()
        assert most_kept(layer.canonical(layer.weight), 2, 8) <= 2
        assert technique.compact()[key].keys() == {Pass.FF}
    assert not any(module._forward_hooks for module in model.modules())


def test_until_one_prunes_after_the_last_step():
    model = net()
    technique = attach(model, "sparsegpt", TWO_OF_EIGHT, steps=2, until=1.0)
    train(model, technique, batch(), range(2), torch.optim.SGD(model.parameters(), 0.1))

    assert [p.scheme for p in technique.phases] == ["dense"]
    assert most_kept(model.tokens.weight, 1, 8) == 2


def test_pruning_before_any_input_is_refused_but_by_magnitude():
    for name in NAMES[1:]:
        with pytest.raises(InputError, match=f"scheme '{name}' has seen no input of layer 'conv'.*calibrate"):
            attach(net(), name, TWO_OF_EIGHT, steps=2, until=0.0).before_step(0)
    model = net()
    attach(model, "magnitude", TWO_OF_EIGHT, steps=2, until=0.0).before_step(0)
    assert most_kept(model.tokens.weight, 1, 8) == 2


def test_tied_weights_are_pruned_once_from_the_inputs_of_both():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    technique = attach(model, "sparsegpt", TWO_OF_EIGHT, steps=2, until=0.5)
    data = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 8
    train(model, technique, data, range(2), torch.optim.SGD(model.parameters(), 0.1))

    assert torch.equal(technique.layers["0"].state["mask"], technique.layers["2"].state["mask"])
    assert most_kept(model[0].weight, 1, 8) == 2


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_the_digits_for_an_epoch(name):
    result = train_digits(replace(plan("mlp", scheme=name, epochs=1), amp="fp16"))

    assert result.log[-1].density_ff == pytest.approx(0.25, abs=0.01)
    assert result.accuracy > 0.3
