"""Channels pulled together: the term against its equation and autograd of it, its schedule, and what it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from weft.workloads.errors import InputError
from weft.workloads.schemes import attach
from weft.workloads.schemes.spanning import nearest_centres, parents, pull_gradient
from weft.workloads.spanning_tree import spanning_tree
from weft.workloads.training import binary_layers, plan, train

from .harness import batch, net
from .harness import train as steps_of


def weights(*rows):
    """[1, out, in, 1]."""
    return torch.tensor(rows, dtype=torch.float64)[None, :, :, None]


CHAIN = weights((-0.5, -2.0, -1.0, 0.25), (-1.0, -0.1, 3.0, 1.0), (-0.2, 0.4, 0.0, 2.0))
"""Signs ---+, --++, -+++: the second is the root, the others differ from it in one place each."""


def test_targets_are_the_signs_of_the_parent_and_the_gradient_is_lambda_where_they_differ():
    target = parents(CHAIN)
    assert target[0, :, :, 0].tolist() == [[-1, -1, 1, 1]] * 3
    # max(0, -t w) is 1.0 in the first channel's third place and 0.4 in the third's second: slopes -t.
    found = pull_gradient(CHAIN, target)
    assert found[0, :, :, 0].tolist() == [[0, 0, -1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_a_weight_of_zero_counts_as_plus_one():
    assert pull_gradient(torch.zeros(2), torch.tensor([-1.0, 1.0])).tolist() == [1, 0]


def test_the_nearest_centre_is_the_one_of_most_equal_signs_and_the_first_of_equals():
    centres = weights((1, 1, 1, 1), (-1, -1, 1, 1), (-1, -1, 1, 1))
    assert nearest_centres(CHAIN, centres)[0, :, :, 0].tolist() == [[-1, -1, 1, 1]] * 2 + [[1, 1, 1, 1]]


def hinge(weight, target):
    return torch.clamp_min(-target * weight, 0).sum()


@pytest.mark.parametrize("centres", [0, 3])
def test_the_term_is_the_derivative_of_its_loss(centres):
    """Grouped convolution and linear layer alike, by autograd of the loss as it is written down."""
    model = net()
    technique = attach(model, "mst", None, steps=8, seed=5, pull=0.5, full=1.0, centres=centres)
    technique.before_step(4)
    assert technique.pull == 0.25
    wanted = {}
    for number, (name, layer) in enumerate(technique.layers.items()):
        own = layer.canonical(layer.weight)
        targets = parents(own.detach())
        if centres:
            drawn = np.random.default_rng([5, number]).integers(0, 2, (len(own), centres, *own.shape[2:])) * 2.0 - 1
            apart = (np.where(own.detach() < 0, -1, 1)[:, :, None] != drawn[:, None]).sum((3, 4))
            targets = torch.from_numpy(np.take_along_axis(drawn, apart.argmin(2)[:, :, None, None], 1)).float()
        wanted[name] = torch.autograd.grad(0.25 * hinge(own, targets), layer.weight)[0]
        layer.weight.grad = torch.ones_like(layer.weight)
    technique.adjust_gradients(4)

    for name, layer in technique.layers.items():
        assert wanted[name].ne(0).any()
        torch.testing.assert_close(layer.weight.grad - 1, wanted[name])


def test_trees_do_not_cross_the_groups_of_a_convolution():
    own = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    for group, target in zip(own, parents(own), strict=True):
        tree = spanning_tree((group >= 0).flatten(1).numpy())
        signs = torch.where(group < 0, -1.0, 1.0)
        for c, parent in enumerate(tree.parent):
            assert torch.equal(target[c], signs[c if parent < 0 else parent])


def test_lambda_is_zero_then_rises_then_stays():
    technique = attach(net(), "mst", None, steps=10, pull=2.0, begin=0.2, full=0.6)
    found = []
    for step in range(10):
        technique.step = step
        found.append(technique.pull)
    assert found == pytest.approx([0, 0, 0, 0.5, 1, 1.5, 2, 2, 2, 2])
    at_once = attach(net(), "mst", None, steps=10, pull=2.0, begin=0.5, full=0.5)
    at_once.step = 5
    assert at_once.pull == 2.0


@pytest.mark.parametrize("centres", [0, 2])
def test_channels_come_together_and_the_last_layer_stays(centres):
    """Without the term 40 x 20 signs of a linear layer hardly move in so few steps."""
    apart = {}
    for pull in (0.0, 0.02):
        model = net()
        head = model.head.weight.detach().clone()
        technique = attach(model, "mst", None, steps=40, pull=pull, full=0.0, centres=centres)
        steps_of(model, technique, batch(), range(40), torch.optim.SGD(model.parameters(), 0.2))
        signs = technique.layers["tokens"].weight.detach().numpy() >= 0
        apart[pull] = int(spanning_tree(signs).distance.sum())
        assert not torch.equal(model.head.weight, head)
    assert apart[0.02] < 0.7 * apart[0.0]


def test_binary_layers_are_the_signs_that_ff_multiplies_and_the_positions_of_an_image():
    result = train(plan("resnet9", scheme="mst", epochs=1, batch=1085))
    found = binary_layers(result)

    assert list(found) == list(result.technique.layers)
    assert {name: layer.positions for name, layer in found.items()} == {
        "3": 64, "7.body.0": 16, "7.body.3": 16, "8": 16, "12": 4, "16.body.0": 1, "16.body.3": 1,
    }  # fmt: skip
    weight = dict(result.model.named_modules())["8"].weight
    assert isinstance(weight, nn.Parameter)
    assert np.array_equal(found["8"].weights[0], weight.detach().reshape(64, 288).numpy() >= 0)


def test_a_scheme_without_binary_weights_has_none():
    result = train(plan("mlp", scheme="bitnet", epochs=1, batch=512))
    with pytest.raises(InputError, match="scheme 'bitnet' does not train binary weights"):
        binary_layers(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pull": -1}, "option 'pull' must be a number from 0 to 1000, not -1"),
        ({"begin": 1.5}, "option 'begin' must be a number from 0 to 1, not 1.5"),
        ({"begin": 0.5, "full": 0.4}, "option 'full' must be a number from 0.5 to 1, not 0.4"),
        ({"centres": -1}, "option 'centres' must be an integer from 0 to"),
        ({"centres": True}, "option 'centres' must be an integer, not True"),
        ({"edge": "on"}, "option 'edge' is 'on'"),
        ({"centers": 2}, "option 'centers' of scheme 'mst' is unknown: did you mean 'centres'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        attach(net(), "mst", None, steps=1, **options)
