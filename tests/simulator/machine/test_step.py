"""A step in the machine's arithmetic: exact where PyTorch is exact, close elsewhere, under every scheme of a graph."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from weft.dataflow.operand import FormatName
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.simulator.engines import run_sore
from weft.simulator.machine.step import Execution, kept_by_magnitude
from weft.simulator.reference.product import gemm_reference
from weft.workloads.catalog import trace_module
from weft.workloads.data import normalised, open_data
from weft.workloads.errors import InputError
from weft.workloads.graph import BY_MAGNITUDE, Graph, annotated
from weft.workloads.im2col import Window, fold, unfold
from weft.workloads.models.classifier import classifier, scores
from weft.workloads.schemes import attach
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload
from weft.workloads.tracing.graph import forward_graph, step_graph
from weft.workloads.training import new_model, plan

from ...examples_drawn import examples
from ...strategies import halves, make_spec

PATTERN = NMPattern(keep=2, group=4)


class Whole(nn.Module):
    """All that is exact on small whole numbers: convolutions of every kind, pools, parts, joins, sums."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.strided = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.pool = nn.MaxPool2d(2, stride=1)
        self.wide = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.strided(functional.relu(self.first(x))))
        x = self.pool(x + self.grouped(x))
        x = functional.adaptive_max_pool2d(x, 1).flatten(1)
        a, b = x.split((3, 5), dim=1)
        x = torch.cat((b, a), dim=1)
        x = functional.relu(self.wide(x))[:, None].expand(-1, 2, -1).transpose(1, 2).mean(-1)
        return self.head(x) * 2.0


def whole(shape: tuple[int, ...], most: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-most, most + 1, shape, generator=generator).float()


def whole_model(seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A model, images and a gradient of whole numbers so small that no sum is rounded in FP16."""
    generator = torch.Generator().manual_seed(seed)
    model = Whole()
    with torch.no_grad():
        for parameter in model.parameters():
            sparse = torch.rand(parameter.shape, generator=generator) < 0.4
            parameter.copy_(whole(tuple(parameter.shape), 1, generator) * sparse)
    return model, whole((3, 1, 6, 6), 1, generator), whole((3, 5), 1, generator)


@cache
def whole_graph() -> Graph:
    """Of every `whole_model`: a graph holds no values."""
    model, pixels, _ = whole_model(0)
    return step_graph(model, pixels, name="whole")


@cache
def whole_step() -> Workload:
    model, pixels, _ = whole_model(0)
    return trace_module(model, pixels, loss=lambda made: made.sum())


def held(model: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: x.detach().numpy().copy() for name, x in named if x.is_floating_point()}


def step(graph: Graph, model: nn.Module, pixels: Tensor, gradient: Tensor, format: FormatName) -> dict[str, Any]:
    """Scores, gradients and buffers of a step by name, as float32."""
    run = Execution(graph, held(model), pixels.numpy(), format)
    made = run.forward()
    gradients, buffers = run.backward(gradient.numpy())
    return {name: x.astype(np.float32) for name, x in {"scores": made, **gradients, **buffers}.items()}


def by_pytorch(model: nn.Module, pixels: Tensor, gradient: Tensor) -> dict[str, Any]:
    made = model(pixels)
    gradients = torch.autograd.grad(made, list(model.parameters()), gradient)
    found = {"scores": made, **dict(zip(dict(model.named_parameters()), gradients, strict=True))}
    found |= {name: x for name, x in model.named_buffers() if x.is_floating_point()}
    return {name: x.detach().numpy().copy() for name, x in found.items()}


@pytest.mark.parametrize("format", ["fp16", "bf16"])
@pytest.mark.parametrize("seed", range(3))
def test_on_small_whole_numbers_every_bit_is_pytorchs(format: FormatName, seed: int) -> None:
    model, pixels, gradient = whole_model(seed)
    graph = whole_graph()
    wanted = by_pytorch(model, pixels, gradient)
    most = 256 if format == "bf16" else 2048
    assert all(np.abs(x).max() <= most and (x == np.round(x)).all() for x in wanted.values())

    found = step(graph, model, pixels, gradient, format)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert any(np.count_nonzero(found[name]) for name in found if name.startswith("first"))


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("scheme", BY_MAGNITUDE)
def test_under_a_scheme_every_bit_is_that_of_pytorch_under_its_technique(scheme: str, compact: bool) -> None:
    model, pixels, gradient = whole_model(7)
    pattern = None if scheme == "dense" else PATTERN
    dense = whole_step()
    asked = annotate(dense, scheme, pattern)
    graph = annotated(whole_graph(), asked, asked if compact else dense)
    assert any(node.kept is not None for node in graph.products) is (scheme != "dense")
    assert {node.kept.compact for node in graph.products if node.kept} <= {compact, False}

    technique = attach(model, scheme, pattern, seed=0, steps=1)
    wanted = by_pytorch(model, pixels, gradient)
    technique.detach()
    found = step(graph, model, pixels, gradient, "fp16")
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("name", ["cnn", "vit_s"])
def test_a_model_of_the_zoo_is_close_to_pytorch(name: str) -> None:
    data, spec = open_data("digits"), plan(name, batch=8)
    model = new_model(spec, data)
    pixels = normalised(data, data.train.fetch(torch.arange(8)))
    graph = step_graph(model, pixels, name=name)
    gradient = torch.randn(8, 10, generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy(model.state_dict())
    wanted = by_pytorch(model, pixels, gradient)
    model.load_state_dict(before)

    for format, most in (("fp16", 4e-2), ("bf16", 0.2)):
        found = step(graph, model, pixels, gradient, format)  # type: ignore[arg-type]
        for key, value in wanted.items():
            error = np.linalg.norm(found[key] - value) / max(float(np.linalg.norm(value)), 1e-6)
            assert error < most or np.abs(value).max() < 1e-4, (key, format, error)
    forward = forward_graph(model, pixels, name=name)
    made = Execution(forward, held(model), pixels.numpy(), "fp16").forward().astype(np.float32)
    np.testing.assert_allclose(made, model.eval()(pixels).detach().numpy(), atol=0.02)


MACHINE = make_spec(array=ArraySpec(rows=2, cols=2))


def by_definition(node: Any, a: Any, b: Any, image: tuple[int, ...]) -> Any:
    """The product of a node by `gemm_reference`, SORE in front of an operand that is N:M, on matrices of windows."""
    pattern = None if node.kept is None else node.kept.pattern

    def reduced(matrix: Any, run: int = 0) -> Any:
        made = np.ascontiguousarray(matrix)
        return made if pattern is None else run_sore(MACHINE, made, pattern, run).compact

    if not node.op.startswith("aten.convolution"):
        return gemm_reference(a, reduced(b))
    s, forward = node.settings, node.op == "aten.convolution"
    weight = b if forward or s["of"] == "input" else np.empty(image, np.float16)
    x = b if weight is not b else a
    sides = {name: s[name] for name in ("stride", "padding", "dilation")}
    window = Window(image=(image if weight is b and not forward else x.shape)[2:], kernel=weight.shape[2:], **sides)
    if forward:
        columns = unfold(a, window).reshape(-1, window.taps * a.shape[1])
        made = gemm_reference(columns, reduced(b.transpose(2, 3, 1, 0).reshape(columns.shape[1], -1), b.shape[1]))
        return made.reshape(len(a), *window.positions, -1).transpose(0, 3, 1, 2)
    dy = a.transpose(0, 2, 3, 1).reshape(-1, a.shape[1])
    if weight is b:
        made = gemm_reference(dy, reduced(b.transpose(0, 2, 3, 1).reshape(len(b), -1)))
        return fold(made.reshape(len(made), window.taps, -1), window)
    made = gemm_reference(np.ascontiguousarray(dy.T), unfold(b, window).reshape(len(dy), -1))
    return made.reshape(a.shape[1], *window.kernel, b.shape[1]).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["mlp", "cnn", pytest.param("resnet18@64", marks=pytest.mark.slow)])
def test_every_product_of_a_step_is_the_arrays_bit_for_bit(name: str) -> None:
    """Real numbers, where order and rounding show: the definition of the product, and what SORE keeps."""
    torch.manual_seed(5)
    shape = (3, 64, 64) if "@" in name else (1, 8, 8)
    model, pixels = classifier(name, shape, 10), torch.randn(2, *shape)
    dense = trace_module(model, pixels, loss=lambda output: scores(output).sum())
    asked = annotate(dense, "bdwp", NMPattern(keep=2, group=8))
    graph = annotated(step_graph(model, pixels, name=dense.model), asked)
    run, seen = Execution(graph, held(model), pixels.numpy(), "fp16"), []
    multiply = run._product

    def watched(node: Any, reads: Any, shape: Any) -> Any:
        made = multiply(node, reads, shape)
        wanted = by_definition(node, *(run.values[number] for number in node.operands), shape)
        if node.op in ("aten.addmm", "aten.convolution") and node.reads[len(node.operands) :]:
            bias = reads[0 if node.op == "aten.addmm" else 2]
            wanted = wanted + (bias if node.op == "aten.addmm" else bias[:, None, None])
        wanted = wanted.astype(made.dtype)
        np.testing.assert_array_equal(made, wanted, err_msg=f"{node.module} {node.pass_}")
        seen.append(node.kept is not None)
        return made

    run._product = watched  # type: ignore[method-assign]
    run.forward()
    run.backward(np.ones((2, 10), np.float32))
    assert len(seen) == len(dense.matrix_ops) and any(seen)


@settings(max_examples=examples(60), deadline=None)
@given(st.data(), st.integers(1, 20), st.integers(1, 4), st.sampled_from(["fp16", "bf16"]))
def test_what_is_kept_is_what_sore_keeps(data: st.DataObject, k: int, n: int, format: FormatName) -> None:
    group = data.draw(st.integers(1, 8))
    pattern = NMPattern(keep=data.draw(st.integers(1, group)), group=group)
    values = data.draw(halves(k, n, format=format))
    machine = make_spec(array=ArraySpec(rows=2, cols=2), pe=PESpec(format=format))
    compact = run_sore(machine, values, pattern).compact

    mask = kept_by_magnitude(values, pattern, 0)
    assert (kept_by_magnitude(values.T, pattern, 1) == mask.T).all()
    rows = (compact.cut.slot_base[:, None] + compact.indices).astype(int)
    assert mask.sum() == rows.size
    for column in range(n):
        assert mask[rows[:, column], column].all()


def test_what_is_given_must_fit() -> None:
    model, pixels, _ = whole_model(0)
    graph = whole_graph()
    with pytest.raises(InputError, match=r"first.weight of the graph of 'whole' must be float32 \[4, 1, 3, 3\], not"):
        Execution(graph, held(model) | {"first.weight": np.zeros((4, 3), np.float32)}, pixels.numpy(), "fp16")
    with pytest.raises(InputError, match="not float64"):
        Execution(graph, held(model), pixels.double().numpy(), "fp16")
    assert replace(graph, batch=3) == graph
