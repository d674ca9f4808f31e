"""Sub-networks: their names, the slices of the weights that they share, and what they are as models."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.models import zoo
from weft.workloads.models.classifier import classifier, image_side
from weft.workloads.models.subnetwork import DEPTHS, WIDTHS, Subnetwork, read_subnetwork, sides_of
from weft.workloads.models.supernet import SuperNet
from weft.workloads.schemes import attach
from weft.workloads.sparsity import NMPattern
from weft.workloads.trace import trace_step
from weft.workloads.training.supernet import on_path

from ..shared_slices import sliced

pytestmark = pytest.mark.usefixtures("one_thread")

PATHS = st.builds(
    Subnetwork, widths=st.tuples(*[st.sampled_from(WIDTHS)] * 3), depths=st.tuples(*[st.sampled_from(DEPTHS)] * 3)
)
SIDES = st.sampled_from((4, 6, 8))


def supernet() -> SuperNet:
    torch.manual_seed(3)
    made = SuperNet(8, inputs=1)
    # Norms that do something: as PyTorch makes them they all scale by one.
    for name, parameter in made.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, -1.0, 1.0)
    return made


# --- names


@given(path=PATHS, side=st.integers(4, 8192))
def test_a_name_says_which_sub_network_it_is(path: Subnetwork, side: int) -> None:
    name = f"{path.named('supernet9')}@{side}"
    model, found = zoo.find(name)
    assert (model.name, found, zoo.subnetwork(name)) == (path.named("supernet9"), side, path)
    assert zoo.base(name) == "supernet9"


def test_what_is_left_out_of_a_name_is_the_largest() -> None:
    assert read_subnetwork("s", "d1-2-1") == read_subnetwork("s", "w1-1-1:d1-2-1")
    assert read_subnetwork("s", "w0.25-1-0.5") == read_subnetwork("s", "d3-3-3:w0.25-1-0.50")
    assert zoo.subnetwork("supernet9@8") is None


def test_every_sub_network_has_one_name() -> None:
    names = list(zoo.subnetworks("supernet9@8"))
    assert len(set(names)) == len(names) == 4**3 * 3**3 * 3
    assert names[0] == "supernet9:w0.25-0.25-0.25:d1-1-1@4"
    assert names[-1] == "supernet9:w1-1-1:d3-3-3@8"
    assert {zoo.find(name)[1] for name in names} == set(sides_of(8)) == {4, 6, 8}
    assert sides_of(28) == (14, 21, 28) and sides_of(4) == (4,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("supernet9:w0.6-0.5-1", "width 0.6 is none of 0.25, 0.5, 0.75, 1; the nearest .* supernet9:w0.5-0.5-1:d3-3-3"),
        ("supernet9:d1-4-1@8", "depth 4 is none of 1, 2, 3; the nearest .* supernet9:w1-1-1:d1-3-1"),
        ("supernet9:d1-0-1", "depth 0 .* supernet9:w1-1-1:d1-1-1"),
        ("supernet9:w1-1", "has 2 numbers; give 3, one a stage, as w1-1-1"),
        ("supernet9:", "names no sub-network; the largest is supernet9:w1-1-1:d3-3-3"),
        ("supernet9:w1-1-1:w1-1-1", "names no sub-network"),
        ("supernet9:w-1-1", "names no sub-network"),
        ("supernet9:k3", "names no sub-network"),
        ("supernet9:w1e0-1-1", "names no sub-network"),
        ("supernet9@3", "must be an integer from 4"),
        ("resnet18:w1-1-1", "resnet18 is no super-network, so it has no sub-networks; supernet9 has"),
        ("supernet8:w1-1-1", "did you mean 'supernet9'"),
    ],
)
def test_a_name_of_nothing_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        zoo.source(name)


@pytest.mark.parametrize("name", ["resnet9", "supernet9:d1-1-1"])
def test_only_a_super_network_has_sub_networks(name: str) -> None:
    with pytest.raises(InputError, match="is no super-network: choose supernet9"):
        next(zoo.subnetworks(name))


# --- as models


@pytest.mark.parametrize("path", [Subnetwork(widths=(0.5, 0.25, 1.0), depths=(1, 3, 2)), None])
def test_a_sub_network_is_traced_at_its_own_size(path: Subnetwork | None) -> None:
    name = f"{path.named('supernet9')}@12" if path else "supernet9@12"
    channels, depths = (path.channels, path.depths) if path else ((32, 64, 128), (3, 3, 3))
    macs, parameters, before = 0, 0, 3
    for width, depth, side in zip(channels, depths, (12, 6, 3), strict=True):
        weights = 9 * (before * width + (depth - 1) * width * width)
        macs, parameters, before = macs + weights * side * side, parameters + weights + 2 * depth * width, width
    step = trace_step(zoo.source(name), batch=2)
    assert step.dense_macs[Pass.FF] == 2 * (macs + 10 * before)
    assert step.parameters == parameters + 10 * before + 10
    assert (step.model, step.input) == (name.removesuffix("@12"), "2 x 3 x 12 x 12")


def test_a_sub_network_takes_larger_images_and_no_smaller_ones() -> None:
    name = "supernet9:w1-1-0.5:d1-1-1"
    assert image_side(f"{name}@6") is None and image_side("supernet9@8") == 8
    assert classifier(f"{name}@6", (1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(InputError, match="for images of 8 x 8 must be an integer from 4 to 8, not 9"):
        classifier(f"{name}@9", (1, 8, 8), 10)


# --- shared weights


@settings(max_examples=20)
@given(path=PATHS, side=SIDES)
def test_a_sub_network_by_itself_gives_the_bits_of_the_super_network_on_its_path(path: Subnetwork, side: int) -> None:
    model, images = supernet(), torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = model.extracted(path, side)
    with model.on(path, side):
        found = model(images)
        found.square().sum().backward()
    expected = alone(images)
    expected.square().sum().backward()
    assert torch.equal(found, expected)
    for name, parameter in alone.named_parameters():
        shared = dict(model.named_parameters())[name]
        part = tuple(map(slice, parameter.shape))
        assert torch.equal(shared.grad[part], parameter.grad)


@settings(max_examples=20)
@given(path=PATHS, side=SIDES)
def test_gradients_are_those_of_slices_and_nothing_else_has_any(path: Subnetwork, side: int) -> None:
    model, images = supernet(), torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with model.on(path, side):
        found = model(images)
        found.square().sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    expected = sliced(model, path, side, images)
    expected.square().sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for name, parameter in model.named_parameters():
        assert (grads[name] is None) == (parameter.grad is None), "what is off the path has no gradient at all"
        if parameter.grad is not None:
            torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-3, atol=1e-3)
    for name, parameter in model.extracted(path, side).named_parameters():
        outside = grads[name].clone()
        outside[tuple(map(slice, parameter.shape))] = 0
        assert not outside.any(), "the slices that were not selected have a gradient of zero"


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout contract")
def test_gradients_of_several_paths_add_up() -> None:
    paths = [(Subnetwork(widths=(w, 0.5, w), depths=(1, 2, 1)), side) for w, side in ((0.25, 4), (1.0, 8), (0.5, 8))]
    model, images = supernet(), torch.randn(5, 1, 8, 8)
    for path, side in paths:
        with model.on(path, side):
            model(images).sum().backward()
            model(images).sum().backward()
    found = [parameter.grad for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    for path, side in paths:
        (2 * sliced(model, path, side, images).sum()).backward()
    for mine, parameter in zip(found, model.parameters(), strict=True):
        assert (mine is None) == (parameter.grad is None)
        if mine is not None:
            torch.testing.assert_close(mine, parameter.grad, rtol=1e-3, atol=1e-3)


def test_behind_a_path_everything_is_as_it_was() -> None:
    model = supernet()
    before = {name: (id(held), held.clone()) for name, held in model.state_dict(keep_vars=True).items()}
    with pytest.raises(RuntimeError, match="on the way"), model.on(Subnetwork(widths=(0.25,) * 3, depths=(1,) * 3), 4):
        model(torch.randn(4, 1, 8, 8))
        raise RuntimeError("on the way")
    after = model.state_dict(keep_vars=True)
    assert before.keys() == after.keys()
    assert all(id(after[name]) == number and torch.equal(after[name], held) for name, (number, held) in before.items())
    assert model.path == Subnetwork(widths=(1.0,) * 3, depths=(3,) * 3) and model.side == 8
    with pytest.raises(
        InputError,
        match=re.escape("image side 5 is none that the super-network is trained at: 4, 6, 8; the nearest is 4"),
    ):
        model.on(model.path, 5).__enter__()


def slow_mask(weight: Tensor, keep: int, group: int, axis: int) -> Tensor:
    """The ``keep`` largest of every ``group`` along ``axis``, one group after the other; short ones at the end."""
    flat = weight.detach().movedim(axis, -1)
    mask = torch.zeros(flat.shape, dtype=torch.bool)
    for row, bits in zip(flat.reshape(-1, flat.shape[-1]), mask.reshape(-1, flat.shape[-1]), strict=True):
        for start in range(0, len(row), group):
            largest = sorted(range(start, min(start + group, len(row))), key=lambda i: -abs(float(row[i])))[:keep]
            bits[largest] = True
    return mask.movedim(-1, axis)


@pytest.mark.parametrize(("pattern", "widths"), [((2, 8), (0.25, 0.75, 0.5)), ((3, 16), (0.75, 0.25, 1.0))])
def test_masks_are_those_of_the_slices(pattern: tuple[int, int], widths: tuple[float, ...]) -> None:
    """24 inputs end within a group of 16: masks of the whole weight would be others."""
    keep, group = pattern
    model, path = supernet(), Subnetwork(widths=widths, depths=(2, 1, 2))
    technique = attach(model, "bdwp", NMPattern(keep=keep, group=group), steps=1)
    alone = model.extracted(path, 8)
    technique.before_step(0)
    whole = {name: layer.operand(Pass.FF).clone() for name, layer in technique.layers.items()}
    images = torch.randn(4, 1, 8, 8)
    with on_path(model, technique, path, 8):
        found = model(images)
        seen = 0
        for name, parameter in alone.named_parameters():
            layer = technique.layers.get(name.removesuffix(".weight"))
            if layer is None or "norm" in name:
                continue
            for pass_, axis in ((Pass.FF, 1), (Pass.BP, 0)):
                if parameter.shape[axis] >= group:
                    expected = parameter.detach() * slow_mask(parameter, keep, group, axis)
                    assert torch.equal(layer.operand(pass_), expected)
                    seen += 1
                else:
                    assert pass_ not in layer.passes
    assert seen >= 4
    own = attach(alone, "bdwp", NMPattern(keep=keep, group=group), steps=1)
    own.before_step(0)
    assert torch.equal(found, alone(images))
    assert all(torch.equal(layer.operand(Pass.FF), whole[name]) for name, layer in technique.layers.items())
