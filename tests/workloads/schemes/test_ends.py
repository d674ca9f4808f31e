"""Binary schemes with no layer in full precision: option ends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.schemes import attach
from weft.workloads.schemes.binary import FixedPoint

from .harness import batch, net
from .harness import train as steps_of

SCHEMES = ("xnor", "bireal", "reste", "biper")


def test_numbers_of_fixed_point_by_hand():
    """Of 3 bits in steps of 1 from -4 to 3, halves to the even number; no gradient beyond 4."""
    x = torch.tensor([[-9.0, -4.0, -3.5, -0.5, 0.5, 0.75, 2.5, 3.5, 4.0, 4.5]])
    few = FixedPoint(3).few(x)
    assert few.values.tolist() == [[-4, -4, -4, 0, 0, 1, 2, 3, 3, 3]]
    assert few.scale.tolist() == [[1.0]] and FixedPoint(6).few(x).scale.tolist() == [[0.125]]
    assert FixedPoint(3).gradient(torch.full_like(x, 2.0), x).tolist() == [[0, 2, 2, 2, 2, 2, 2, 2, 2, 0]]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("ends", ["binary", "int2", "int6", "int8"])
def test_every_layer_has_levels(name, ends):
    model = net()
    technique = attach(model, name, None, steps=4, ends=ends)
    assert not technique.kept_dense
    steps_of(model, technique, batch(), range(4), torch.optim.SGD(model.parameters(), 0.1))
    seen = []
    for layer in technique.layers.values():
        layer.observer = seen.append
    model.eval()(batch()[0])
    first, *others = [gemm for gemm in seen if gemm.pass_ is Pass.FF]
    assert first.layer.name == next(iter(technique.layers)) and len(others) == len(technique.layers) - 1
    assert set(first.left.unique().tolist()) <= {0, *Levels(ends).values} and len(first.left.unique()) > 1
    assert all(set(gemm.right.unique().tolist()) <= {-1, 1} for gemm in seen)
    assert all(set(gemm.left.unique().tolist()) <= {-1, 0, 1} for gemm in others)


def test_the_first_layer_multiplies_numbers_and_their_step():
    """Y = alpha step (x_q W_q), exactly."""
    layer = nn.Linear(6, 4)
    model, x = nn.Sequential(layer, nn.Linear(4, 3)), torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    attach(model, "xnor", None, steps=1, norm="none", ends="int5")
    signs, alpha = torch.where(layer.weight >= 0, 1.0, -1.0), layer.weight.abs().mean(1)
    numbers = (x / 0.25).round().clamp(-16, 15)
    assert torch.equal(model[0](x), (numbers @ signs.T) * 0.25 * alpha + layer.bias)


def test_what_is_no_level_of_the_ends_is_refused():
    for given, hint in (("int9", "did you mean"), ("ternary", "choose|did you mean"), (8, "choose|did you mean")):
        with pytest.raises(InputError, match=rf"option 'ends' is '?{given}'?: .*({hint})"):
            attach(net(), "bireal", None, steps=1, ends=given)


def test_first_and_last_stay_as_the_scheme_says_without_it():
    technique = attach(net(), "xnor", None, steps=1)
    assert list(technique.kept_dense.values()) == ["first convolution", "last layer"]
