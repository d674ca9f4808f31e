"""A captured graph computes what the module does, and multiplies what its workload counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.tests.workloads.graph_by_torch import run
from weft.workloads.catalog import trace_module
from weft.workloads.data import open_data
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.graph import OPERATORS, Graph, GraphTensor, Kept, Node, Port, PortKind, Stored, annotated
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.tracing.graph import forward_graph, step_graph
from weft.workloads.training import new_model, plan, step_workload


@cache
def zoo_graph(name: str) -> Graph:
    spec = plan(name)
    return step_graph(new_model(spec), torch.empty(spec.batch, *open_data("digits").shape), name=name)


PATTERN = NMPattern(keep=2, group=8)
ZOO = ("mlp", "cnn", "resnet9", "vit_s")
VALUES = ("mlp", "cnn", pytest.param("resnet9", marks=pytest.mark.slow), "vit_s")


def given_to(graph: Graph, model: nn.Module, pixels: Tensor, gradient: Tensor) -> dict[tuple[PortKind, str], Tensor]:
    held = {(PortKind.PARAMETER, name): p.detach() for name, p in model.named_parameters()}
    held |= {(PortKind.BUFFER, name): b.clone() for name, b in model.named_buffers()}
    return {**held, (PortKind.INPUT, ""): pixels, (PortKind.GRADIENT, ""): gradient}


def require_same_step(model: nn.Module, pixels: Tensor) -> Graph:
    """The graph of ``model`` gives PyTorch's scores, gradients and buffers in double precision."""
    model, pixels = model.double().train(), pixels.double()
    graph = step_graph(model, pixels, name="toy")
    before = given_to(graph, model, pixels, torch.empty(0))
    scores = model(pixels)
    gradient = torch.randn_like(scores)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(scores, list(trained.values()), gradient)
    found = run(graph, {**before, (PortKind.GRADIENT, ""): gradient})

    wanted = {(PortKind.OUTPUT, ""): scores.detach()}
    wanted |= {(PortKind.GRADIENT, name): g for name, g in zip(trained, gradients, strict=True)}
    wanted |= {(PortKind.BUFFER, name): b for name, b in model.named_buffers() if b.is_floating_point()}
    assert {key for key in wanted if key[0] is not PortKind.BUFFER} <= found.keys() <= wanted.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-9, atol=1e-11, msg=f"{key}")
    for name, buffer in model.named_buffers():
        if (PortKind.BUFFER, name) not in found:
            assert torch.equal(buffer, before[PortKind.BUFFER, name] + graph.counters.count(name)), name
    return graph


@pytest.mark.parametrize("name", VALUES)
def test_a_graph_of_the_zoo_is_the_step_of_its_model(name):
    spec = plan(name, batch=4)
    model = new_model(spec)
    pixels = torch.rand(4, *open_data("digits").shape)
    require_same_step(model, pixels)


@pytest.mark.parametrize("name", VALUES)
def test_a_forward_graph_is_the_model_in_evaluation(name):
    model = new_model(plan(name)).double()
    pixels = torch.rand(3, *open_data("digits").shape, dtype=torch.float64)
    model(pixels)  # statistics that are not those of the start
    graph = forward_graph(model, pixels, name=name)

    model.eval()
    found = run(graph, given_to(graph, model, pixels, torch.empty(0)))
    assert found.keys() == {(PortKind.OUTPUT, "")}
    torch.testing.assert_close(found[PortKind.OUTPUT, ""], model(pixels).detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ZOO)
def test_a_graph_multiplies_what_its_workload_counts(name):
    spec = plan(name)
    graph = zoo_graph(name)
    workload = annotate(step_workload(spec), "bdwp", PATTERN)

    found = annotated(graph, workload)
    assert [(n.module, n.pass_, n.parameter, n.gemm) for n in found.products] == [
        (op.name, op.pass_, op.parameter, op.gemm) for op in workload.matrix_ops
    ]
    assert [n.kept is not None for n in found.products] == [op.sparse is not None for op in workload.matrix_ops]


def test_a_step_of_another_model_or_batch_is_refused():
    with pytest.raises(InputError, match="where its workload has"):
        annotated(zoo_graph("mlp"), step_workload(plan("mlp", batch=2)))
    with pytest.raises(InputError, match="has 8 products, its workload 26"):
        annotated(zoo_graph("mlp"), step_workload(plan("resnet9")))


def test_what_a_scheme_keeps_of_a_weight_in_ff_is_the_weight_of_bp_too():
    spec = plan("mlp")
    graph = zoo_graph("mlp")
    dense = step_workload(spec)
    asked = annotate(dense, "srste", PATTERN)

    by_pass = {(n.module, n.pass_): n.kept for n in annotated(graph, asked).products}
    assert by_pass["3", Pass.FF] == Kept(operand="b", pattern=PATTERN, along=Pass.FF, compact=True)
    assert by_pass["3", Pass.BP] == Kept(operand="b", pattern=PATTERN, along=Pass.FF, compact=False)
    assert by_pass["3", Pass.WU] is None
    # A schedule that runs it dense multiplies the zeros.
    run_dense = {(n.module, n.pass_): n.kept for n in annotated(graph, asked, dense).products}
    assert run_dense["3", Pass.FF] == replace(by_pass["3", Pass.FF], compact=False)
    gradients = {(n.module, n.pass_): n.kept for n in annotated(graph, annotate(dense, "sdgp", PATTERN)).products}
    assert gradients["3", Pass.BP] == Kept(operand="a", pattern=PATTERN, along=Pass.BP, compact=True)
    for scheme in ("xnor", "bdwp-x"):
        with pytest.raises(InputError, match="no graph keeps operands as scheme"):
            annotated(graph, annotate(dense, scheme, PATTERN if scheme == "bdwp-x" else None))


class Idioms(nn.Module):
    """Views, parts, joins, a shared and a frozen layer, a tied weight, a constant in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.shared = nn.Linear(8, 8, bias=False)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.shared.weight
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.register_buffer("shift", torch.linspace(-1.0, 1.0, 8))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x), inplace=True)
        x = self.tied(self.shared(self.shared(x))) + self.shift
        a, b = self.frozen(x).chunk(2, dim=-1)
        c = torch.stack((a, b), dim=1).transpose(1, 2).flatten(1)
        d, e = functional.gelu(c, approximate="tanh").split((3, 5), dim=1)
        wide = torch.cat((e, d, x[:, 2:4], x[:, -1:], x[:, None, 5]), dim=1)
        wide = torch.cat((wide, x[:, 1:5].softmax(-1) / 3.0), dim=1)
        return self.head(wide) * 0.5


class Images(nn.Module):
    """A norm that is used twice, grouped and strided convolutions, pools of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, (1, 3), padding=(0, 2), dilation=(1, 2), groups=2, bias=False)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        x = self.pool(self.norm(self.grouped(x).relu()))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def test_idioms_are_what_pytorch_makes_of_them():
    graph = require_same_step(Idioms(), torch.randn(5, 6))

    assert {node.op for node in graph.nodes} <= OPERATORS.keys()
    tied = [n.pass_ for n in graph.products if n.parameter == "shared.weight=tied.weight"]
    assert sorted(tied) == sorted([*3 * [Pass.FF], *3 * [Pass.BP], *3 * [Pass.WU]])
    frozen = {n.pass_ for n in graph.products if n.parameter == "frozen.weight"}
    assert frozen == {Pass.FF, Pass.BP}


def test_images_are_what_pytorch_makes_of_them():
    graph = require_same_step(Images(), torch.randn(3, 2, 9, 10))

    assert [port.name for port in graph.leaving(PortKind.BUFFER)] == ["norm.running_mean", "norm.running_var"]


def test_passes_and_parameters_of_idioms_are_those_of_the_tracer():
    for model, pixels in ((Idioms(), torch.randn(5, 6)), (Images(), torch.randn(3, 2, 9, 10))):
        workload = trace_module(model, pixels, loss=lambda scores: scores.sum())
        graph = step_graph(model, pixels, name=workload.model)
        assert [(n.module, n.pass_, n.parameter, n.gemm) for n in graph.products] == [
            (op.name, op.pass_, op.parameter, op.gemm) for op in workload.matrix_ops
        ]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: nn.Dropout(0.5), "inner fills a tensor.*set a dropout to 0"),
        (nn.Sigmoid, r"inner uses aten\.sigmoid"),
        (lambda: nn.BatchNorm1d(4, affine=False), "inner is a norm without scale"),
        (lambda: nn.BatchNorm1d(4, track_running_stats=False), "inner is a batch norm without running"),
        (lambda: nn.BatchNorm1d(4, momentum=None), "cannot be captured"),
        (lambda: nn.Softmax(0), "inner has a soft-max along side 0"),
        (lambda: nn.Threshold(0.5, 0.0), "inner"),
    ],
)
def test_what_the_machine_has_not_is_refused_with_module_and_operator(layer: Callable[[], nn.Module], words: str):
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.inner = nn.Linear(4, 4), layer()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.linear(x))  # type: ignore[no-any-return]

    with pytest.raises(InputError, match=words):
        step_graph(Outer(), torch.randn(3, 4), name="toy")


def test_a_captured_model_stays_as_it_is():
    model = Images().eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    step_graph(model, torch.randn(3, 2, 9, 10), name="toy")

    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_model_that_fails_is_told_with_where():
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(f"no {self.linear(x).shape[1]} today")

    with pytest.raises(InputError, match=r"toy.*cannot be captured.*no 4 today"):
        step_graph(Broken(), torch.randn(3, 4), name="toy")
    with pytest.raises(InputError, match="no parameter to train"):
        step_graph(nn.Linear(4, 4).requires_grad_(False), torch.randn(3, 4), name="toy")


def test_a_graph_checks_itself():
    tensors = tuple(GraphTensor(shape=shape, stored=Stored.OPERAND) for shape in ((2, 3), (3, 4), (2, 4)))
    node = Node(op="aten.mm", module="m", pass_=Pass.FF, reads=(0, 1), makes=(2,), gemm=Gemm(m=2, k=3, n=4))
    inputs = (Port(kind=PortKind.INPUT, tensor=0), Port(kind=PortKind.PARAMETER, tensor=1, name="w"))
    outputs = (Port(kind=PortKind.OUTPUT, tensor=2),)
    good = Graph(model="m", batch=2, tensors=tensors, nodes=(node,), inputs=inputs, outputs=outputs)

    assert node.operands == (0, 1)
    for changes, words in (
        ({"nodes": (replace(node, op="aten.sin"),)}, "none of the operators"),
        ({"nodes": (replace(node, gemm=None),)}, "must have a gemm"),
        ({"nodes": (replace(node, makes=(1,)),)}, "there already"),
        ({"inputs": inputs[:1]}, "nothing before it makes"),
        ({"nodes": ()}, "lists tensors"),
        ({"outputs": (Port(kind=PortKind.OUTPUT, tensor=7),)}, "none of its tensors"),
    ):
        with pytest.raises(InputError, match=words):
            replace(good, **changes)
