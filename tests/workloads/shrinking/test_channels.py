"""Channels that leave a model: what stays is a part of the whole, and gives what that gives without the rest."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from weft.workloads.errors import InputError
from weft.workloads.models.classifier import classifier, scores
from weft.workloads.models.module import module_source
from weft.workloads.shrinking import channels
from weft.workloads.shrinking.channels import pruned_channels
from weft.workloads.trace import trace_use

needs_torch_pruning = pytest.mark.skipif(
    find_spec("torch_pruning") is None, reason="torch-pruning is not installed: pip install 'weft[prune]'"
)
SHAPE = (1, 8, 8)
pytestmark = pytest.mark.usefixtures("one_thread")


def fresh(name: str) -> nn.Module:
    """Its vectors, which layers begin with ones and zeros of, are random, so that every channel can be told."""
    torch.manual_seed(3)
    model = classifier(name, SHAPE, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.rand_like(parameter))
    return model.eval()


def places(part: Tensor, whole: Tensor) -> list[int]:
    """Where values of ``part`` stand in ``whole``, both of one axis and without equal values."""
    found = (part[:, None] == whole[None]).nonzero()
    assert found[:, 0].tolist() == list(range(len(part)))
    return found[:, 1].tolist()


@needs_torch_pruning
def test_a_network_without_some_channels_gives_what_the_whole_gives_with_them_silent() -> None:
    """A channel of ResNet-9 whose batch norm gives nothing but zeros is silent; both sides of a sum must be."""
    model, pixels = fresh("resnet9"), torch.rand(4, *SHAPE)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    small = pruned_channels(model, pixels, 0.5, output=scores)

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    small_norms = [m for m in small.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.num_features for m in small_norms] == [m.num_features // 2 for m in norms]
    kept = [places(s.bias.detach(), w.bias.detach()) for s, w in zip(small_norms, norms, strict=True)]
    # Layers 1 and 3 open onto the sums of blocks 7 and 16: the same channels everywhere that reaches a sum.
    assert kept[1] == kept[3] and kept[5] == kept[7]
    with torch.no_grad():
        for norm, own in zip(norms, kept, strict=True):
            silent = [c for c in range(norm.num_features) if c not in own]
            norm.weight[silent] = 0
            norm.bias[silent] = 0
        torch.testing.assert_close(small(pixels), model(pixels), rtol=1e-5, atol=1e-6)


@needs_torch_pruning
def test_products_of_the_small_network_by_hand() -> None:
    model, pixels = fresh("resnet9"), torch.rand(1, *SHAPE)
    step = trace_use(module_source(pruned_channels(model, pixels, 0.5), pixels), "infer")

    # (outputs, inputs, side) of its convolutions at half the widths of 16, 32, 64, 128
    convolutions = [(8, 1, 8), (16, 8, 8), (16, 16, 4), (16, 16, 4), (32, 16, 4), (64, 32, 2), (64, 64, 1), (64, 64, 1)]
    assert sum(step.dense_macs.values()) == sum(9 * o * i * side**2 for o, i, side in convolutions) + 64 * 10


@needs_torch_pruning
def test_a_transformer_loses_channels_of_its_sum_everywhere_and_none_of_a_head() -> None:
    model, pixels = fresh("vit_s"), torch.rand(2, *SHAPE)
    small = pruned_channels(model, pixels, 0.5)
    held, own = dict(model.named_parameters()), dict(small.named_parameters())
    width = places(own["norm.bias"].detach(), held["norm.bias"].detach())
    every = slice(None)
    assert len(width) == 32
    expected = {
        "token": held["token"][..., width],
        "positions": held["positions"][..., width],
        "patches.weight": held["patches.weight"][width],
        "patches.bias": held["patches.bias"][width],
        "norm.weight": held["norm.weight"][width],
        "norm.bias": held["norm.bias"][width],
        "head.weight": held["head.weight"][:, width],
        "head.bias": held["head.bias"],
    }
    for block in ("blocks.0.", "blocks.1."):
        hidden = places(own[f"{block}mlp.0.bias"].detach(), held[f"{block}mlp.0.bias"].detach())
        assert len(hidden) == 128
        for layer, outputs, inputs in (
            ("attention.qkv", every, width),
            ("attention.proj", width, every),
            ("mlp.0", hidden, width),
            ("mlp.2", width, hidden),
        ):
            expected[f"{block}{layer}.weight"] = held[f"{block}{layer}.weight"][outputs][:, inputs]
            expected[f"{block}{layer}.bias"] = held[f"{block}{layer}.bias"][outputs]
        for norm in ("norm1", "norm2"):
            for of in ("weight", "bias"):
                expected[f"{block}{norm}.{of}"] = held[f"{block}{norm}.{of}"][width]
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(own[name], value), name


@needs_torch_pruning
def test_what_leaves_is_what_weighs_least() -> None:
    """Of a perceptron: a neuron's weight is the squares of what it reads and of what reads it."""
    model = fresh("mlp")
    small = pruned_channels(model, torch.rand(1, *SHAPE), 0.25)
    first, second = (dict(model.named_parameters())[f"{i}.weight"].detach() for i in (1, 3))
    bias = model.get_parameter("1.bias").detach()
    weights = first.square().sum(1) + second.square().sum(0)
    kept = sorted(weights.argsort(descending=True)[:64].tolist())

    assert places(small.get_parameter("1.bias").detach(), bias) == kept


@needs_torch_pruning
def test_layers_of_one_size_are_ranked_together() -> None:
    model, pixels = fresh("resnet9"), torch.rand(1, *SHAPE)
    with torch.no_grad():
        # Beside four that weigh much more the others of this layer are small, each against the mean.
        model.get_submodule("7.body.0").weight[:4].mul_(6)
    apart, together = (pruned_channels(model, pixels, 0.5, together=t) for t in (False, True))
    inner = "7.body.0.weight"
    assert len(apart.get_parameter(inner)) == 16 > len(together.get_parameter(inner)) >= 4
    # 4 x 4 pixels: the layers 3, 7 and 8 have 32, 32, 32 and 64 channels, of which 3 and 7.body.3 share theirs
    assert len(together.get_parameter("8.weight")) > 32 == len(apart.get_parameter("8.weight"))


@needs_torch_pruning
def test_a_model_that_cannot_be_followed_is_refused() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).reshape(-1, 2, 4).flatten(1))

    with pytest.raises(InputError, match=r"Fixed: which channels depend on each other could not be followed .*; use"):
        pruned_channels(Fixed(), torch.rand(2, 8), 0.5)


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'weft\[prune\]'"):
        channels.pruned_channels(fresh("mlp"), torch.rand(1, *SHAPE), 0.5)
    with pytest.raises(InputError, match="Flatten has no convolution or linear layer"):
        channels._sides(nn.Flatten(), [], torch.rand(1, *SHAPE))
