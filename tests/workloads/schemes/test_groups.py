"""Group pruning: each training is one of plain PyTorch to the bit, and its masks are whole groups of every shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import weft
from weft.workloads.errors import InputError
from weft.workloads.groups import Groups, GroupShape, grouped_mask
from weft.workloads.recorded import Recorded
from weft.workloads.schemes import attach
from weft.workloads.schemes.conformance import check_technique
from weft.workloads.schemes.dynamic import cubic
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan
from weft.workloads.training.recording import record, recorded_step

from ...examples_drawn import examples
from .harness import net, train

HALF = NMPattern(keep=4, group=8)
RATE = 0.1
SHAPES = ("1x4", "4x1", "2x2", "kernel", "4xkernel")


def made() -> nn.Sequential:
    torch.manual_seed(0)
    # PyTorch's gradient of a convolution's bias adds up in another order than a layer under a scheme.
    convolutions = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.ReLU()
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32, 8))


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    return [
        (torch.randn(6, 3, 6, 6, generator=drawn), torch.randint(0, 8, (6,), generator=drawn)) for _ in range(count)
    ]


def group_of(shape: GroupShape, output: int, channel: int, tap: int) -> tuple[int, ...]:
    """By hand, of a weight [out, in, taps]: the row, and which of its groups."""
    if shape.places is None:
        return output // shape.lines, channel
    return output // shape.lines, tap, channel // shape.places


def pruned(weight: Tensor, mask: Tensor, shape: GroupShape, share: float, level: bool) -> Tensor:
    """The largest groups that are there, by sums over every element."""
    flat, alive = weight.detach().flatten(2) if weight.dim() > 2 else weight.detach()[..., None], {}
    held = mask.reshape(flat.shape)
    sums: dict[tuple[int, ...], Tensor] = {}
    for output in range(flat.shape[0]):
        for channel in range(flat.shape[1]):
            for tap in range(flat.shape[2]):
                key, value = group_of(shape, output, channel, tap), flat[output, channel, tap].double()
                sums[key] = sums.get(key, 0) + (value.square() if level else value.abs())
                alive[key] = bool(held[output, channel, tap])
    rows = sorted({key[0] for key in sums}) if level else [None]
    kept = set[tuple[int, ...]]()
    for row in rows:
        own = [key for key in sums if row in (None, key[0])]
        many = min(max(round(share * len(own)), 1), len(own))
        kept |= set(sorted((key for key in own if alive[key]), key=lambda key: -float(sums[key]))[:many])
    found = torch.zeros_like(held)
    for at in np.ndindex(*flat.shape):
        found[at] = group_of(shape, *at) in kept
    return found.reshape(weight.shape)


@pytest.mark.parametrize(("name", "text"), [*(("group-4x4", shape) for shape in SHAPES), ("group-level", "2x2")])
def test_a_training_is_one_of_plain_pytorch_to_the_bit(name: str, text: str) -> None:
    steps, period, end = 9, 2, 6
    model = made()
    options = {"shape": text, "period": period, "end": end / steps}
    technique = attach(model, name, HALF, steps=steps, **options)
    own = made()
    optimizers = [torch.optim.SGD(m.parameters(), RATE, momentum=0.9) for m in (model, own)]
    weights = {f"{layer}.weight": own.get_parameter(f"{layer}.weight") for layer in technique.layers}
    masks = {key: torch.ones_like(weight, dtype=torch.bool) for key, weight in weights.items()}
    assert set(technique.layers) == {"2", "5"}, "the first convolution stays"
    for step, data in enumerate(batches(steps)):
        train(model, technique, data, range(step, step + 1), optimizers[0])
        optimizers[1].zero_grad()
        nn.functional.cross_entropy(own(data[0]), data[1]).backward()
        for key, weight in weights.items():
            assert weight.grad is not None
            weight.grad[~masks[key]] = 0
        optimizers[1].step()
        done = step + 1
        if done % period == 0 and done <= end:
            share = 1 - cubic(0.0, 0.5, done / end)
            shape = GroupShape.parse(text)
            masks = {
                key: pruned(weight, masks[key], shape, share, name == "group-level") for key, weight in weights.items()
            }
        with torch.no_grad():
            for key, weight in weights.items():
                weight[~masks[key]] = 0
                held = optimizers[1].state[weight]["momentum_buffer"]
                held[~masks[key]] = 0
        state = own.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    for key, mask in masks.items():
        assert torch.equal(technique.layers[key.removesuffix(".weight")].state["mask"], mask)
        assert mask.float().mean() == 0.5


@settings(deadline=None, max_examples=examples(40))
@given(st.sampled_from(SHAPES), st.sampled_from(("conv", "head", "tokens")), st.integers(0, 9))
def test_masks_are_spread_and_read_alike(text: str, where: str, seed: int) -> None:
    """Of layers of every kind, one in convolution groups: what is spread over the weight is what is read of it."""
    technique = attach(net(), "group-4x4", HALF, steps=1, shape=text)
    layer, random = technique.layers[where], torch.Generator().manual_seed(seed)
    cells = technique.cells(layer, torch.ones_like(layer.weight, dtype=torch.bool))
    chosen = torch.rand(cells.shape[:2], generator=random) < 0.5
    mask = technique.spread(layer, chosen)
    assert torch.equal(technique.cells(layer, mask).all(2), chosen)
    assert torch.equal(technique.cells(layer, mask).any(2), chosen)
    groups, outputs, inputs, taps = layer.shape
    lines = layer.canonical(mask).transpose(2, 3).reshape(groups * outputs, taps * inputs).numpy()
    found = grouped_mask(lines, GroupShape.parse(text), inputs) if chosen.any() else None
    assert found is None or sum(kept * many for kept, many in found.lines) == int(chosen.sum())


CONFORMS: dict[str, dict[str, Any]] = {
    "group-1x16": {"shape": "1x4"},
    "group-16x1": {"shape": "4x1"},
    "group-4x4": {},
    "group-kernel": {},
    "group-level": {"shape": "1x4"},
}


@pytest.mark.parametrize(
    "name", ["group-level", *(pytest.param(n, marks=pytest.mark.slow) for n in CONFORMS if n != "group-level")]
)
def test_it_keeps_to_what_every_technique_must(name: str) -> None:
    check_technique(name, NMPattern(keep=2, group=8), {"period": 2, **CONFORMS[name]})


def test_a_layer_without_whole_groups_stays_with_the_reason() -> None:
    technique = attach(net(), "group-16x1", HALF, steps=1)
    assert set(technique.layers) == {"head"}
    assert technique.kept_dense["tokens"].startswith("FF: 20 outputs are no whole groups of 16x1")
    with pytest.raises(InputError, match=r"no sparsifiable layer .* runs of 12 are no whole groups of 1x16"):
        attach(net(), "group-1x16", HALF, steps=1)
    with pytest.raises(InputError, match="groups '3' are not lines x places"):
        attach(net(), "group-4x4", HALF, steps=1, shape="3")
    with pytest.raises(InputError, match="option 'shape' must be lines x places"):
        attach(net(), "group-4x4", HALF, steps=1, shape=3)


@pytest.mark.slow
def test_a_record_knows_its_groups() -> None:
    spec = plan("mlp", scheme="group-level", pattern=NMPattern(keep=2, group=8), epochs=1, options={"period": 2})
    recorded = record(spec, tokens=1)
    assert (str(recorded.about.groups), recorded.about.level) == ("1x16", True)
    step = weft.sparsify(recorded_step(recorded), recorded)
    for op, width in zip(step.matrix_ops, (4, 16, 16), strict=True):
        assert isinstance(op.sparse, Groups)
        assert op.sparse.level == width // 4
        assert op.macs == int(recorded.weights[op.name].sum())
    blocks = record(plan("mlp", scheme="group-16x1", pattern=HALF, epochs=1), tokens=1)
    last = weft.sparsify(recorded_step(blocks), blocks).matrix_ops[-1]
    assert (last.sparse, last.kept_dense.partition(";")[0]) == (None, "FF: 10 outputs are no whole groups of 16x1")
    torn = recorded.weights["1"].copy()
    torn[0, np.flatnonzero(torn[0])[0]] = False
    about = {
        field: getattr(recorded.about, field)
        for field in recorded.about.__dataclass_fields__
        if field not in ("of", "masks", "schema")
    }
    with pytest.raises(InputError, match="a mask keeps 15 of the 16 elements of group"):
        weft.sparsify(recorded_step(recorded), Recorded.made([("1", "weight", torn)], **about))
