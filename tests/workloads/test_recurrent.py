"""Recurrent layers: against PyTorch's own on a CPU, op for op and bit for bit, and through both doors."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from weft.analysis.energy import energy
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.workloads.gemm import Pass
from weft.workloads.models.source import ModelSource
from weft.workloads.onnx import onnx_workload
from weft.workloads.recurrent import as_on_cpu
from weft.workloads.step import MatrixOp, Op, UpdateOp, Workload
from weft.workloads.trace import trace_step
from weft.workloads.tracing.written_out import WrittenOut

from .toy_models import Recurrent, floats, source_of


def _counted_split(source: ModelSource) -> dict[Pass, int]:
    """FF, BP, WU by FlopCounterMode; BP from a second model whose matrices are frozen."""

    def count(freeze: bool) -> tuple[int, int]:
        with torch.device("meta"):
            model, inputs = source.build().train(), source.inputs(None, None)
            if freeze:
                for parameter in model.parameters():
                    parameter.requires_grad_(parameter.dim() < 2)
            with FlopCounterMode(display=False) as forward:
                loss = source.loss(model(*inputs.args), inputs)
            with FlopCounterMode(display=False) as backward:
                loss.backward()
        return forward.get_total_flops() // 2, backward.get_total_flops() // 2

    ff, both = count(freeze=False)
    _, bp = count(freeze=True)
    return {Pass.FF: ff, Pass.BP: bp, Pass.WU: both - bp}


_MOVE_NOTHING = tuple(
    f"aten.{name}."
    for name in (
        "detach",
        "expand",
        "select",
        "slice",
        "t",
        "transpose",
        "transpose_",
        "unbind",
        "unsqueeze",
        "view",
        "zeros",
    )
)


class _Log(TorchDispatchMode):
    """The operators that run, with shapes and strides of what they take and make."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[tuple[Any, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not str(func).startswith(_MOVE_NOTHING):
            self.ops[str(func), *map(self._look, ((args, kwargs), out))] += 1
        return out

    @staticmethod
    def _look(value: Any) -> tuple[Any, ...]:
        return tuple((tuple(x.shape), x.stride()) for x in tree_leaves(value) if isinstance(x, Tensor))


@contextmanager
def without_onednn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@st.composite
def layers(draw: st.DrawFn) -> tuple[type[nn.RNNBase], dict[str, Any], list[int]]:
    """A recurrent layer, its options, and the lengths of packed sequences, longest first, or none."""
    kind = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]))
    options: dict[str, Any] = {
        "num_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
    }
    if options["num_layers"] == 2 and draw(st.booleans()):
        options["dropout"] = 0.5
    if kind is nn.LSTM and draw(st.booleans()):
        options["proj_size"] = 2
    if kind is nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    lengths = draw(st.lists(st.integers(1, 3), max_size=3).map(lambda sizes: sorted(sizes, reverse=True)))
    return kind, options, lengths


def shape_of(options: dict[str, Any], lengths: list[int]) -> tuple[int, int, int]:
    batch = len(lengths) or 3
    return (batch, 4, 6) if options["batch_first"] else (4, batch, 6)


def run(module: nn.RNNBase, x: Tensor, lengths: list[int], states: Any = None) -> tuple[Tensor, ...]:
    """Outputs and final states."""
    data = pack_padded_sequence(x, torch.tensor(lengths, device="cpu"), module.batch_first) if lengths else x
    out, last = module(data) if states is None else module(data, states)
    return out.data if isinstance(out, PackedSequence) else out, *((last,) if isinstance(last, Tensor) else last)


@given(layers(), st.booleans())
@settings(max_examples=15)
def test_ops_are_those_of_pytorch_on_a_cpu(layer: Any, trained_input: bool) -> None:
    """The same operators on the same shapes, forward and backward."""
    kind, options, lengths = layer
    logs = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            module = kind(6, 5, **options)
            x = torch.zeros(shape_of(options, lengths), requires_grad=trained_input)
            mode = nullcontext() if device == "cpu" else WrittenOut()
            with without_onednn(), mode, _Log() as log:
                sum(part.sum() for part in run(module, x, lengths)).backward()  # type: ignore[union-attr]
        logs.append(log.ops)
    assert logs[0] == logs[1] and logs[0]


class _EverywhereAsOnCpu(TorchFunctionMode):
    """Also where there are values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        recurrent = func in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
        return as_on_cpu(func, args, kwargs or {}) if recurrent else func(*args, **(kwargs or {}))


@given(layers(), st.integers(0, 99))
@settings(max_examples=10)
def test_values_are_those_of_pytorch_on_a_cpu(layer: Any, seed: int) -> None:
    """Outputs, states and every gradient, bit for bit."""
    kind, options, lengths = layer
    torch.manual_seed(seed)
    options = {**options, "dropout": 0.0}
    module = kind(6, 5, **options)
    x = torch.randn(shape_of(options, lengths), requires_grad=True)
    width = options.get("proj_size") or 5
    count = options["num_layers"] * (1 + options["bidirectional"])
    first = [torch.randn(count, len(lengths) or 3, size, requires_grad=True) for size in (width, 5)]
    states = tuple(first) if kind is nn.LSTM else first[0]
    found = []
    for mode in (nullcontext(), _EverywhereAsOnCpu()):
        with without_onednn(), mode:
            outs = run(module, x, lengths, states)
        leaves = [x, *(first if kind is nn.LSTM else first[:1]), *module.parameters()]
        found.append([*outs, *torch.autograd.grad(sum(out.square().sum() for out in outs), leaves)])  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def checkpointed(module: nn.Module) -> nn.Module:
    inner = module.forward
    module.forward = lambda *args: torch.utils.checkpoint.checkpoint(inner, *args, use_reentrant=False)  # type: ignore[method-assign]
    return module


class Twice(nn.Module):
    """One layer over the sequence and over what it made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.rnn = nn.Linear(6, 6), nn.GRU(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.rnn(self.proj(x))[0])[0]  # type: ignore[no-any-return]


class Packed(nn.Module):
    """Sequences of unequal length, longest last; the head sees the last states."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.proj, self.batch_first = nn.Linear(6, 6), batch_first
        self.rnn, self.head = nn.LSTM(6, 5, 2, bidirectional=True, batch_first=batch_first), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.tensor([2, 4, 3], device="cpu")
        rows = pack_padded_sequence(self.proj(x), lengths, self.batch_first, enforce_sorted=False)
        return self.head(self.rnn(rows)[1][0])  # type: ignore[no-any-return]


MODELS: dict[str, ModelSource] = {
    "projected": source_of(lambda: Recurrent(lambda: nn.LSTM(6, 5, 2, proj_size=3)), floats(4, 3, 6)),
    "both ways, batch first": source_of(
        lambda: Recurrent(lambda: nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True, dropout=0.1)), floats(4, 3, 6)
    ),
    "no bias": source_of(lambda: Recurrent(lambda: nn.RNN(6, 5, bias=False, nonlinearity="relu")), floats(4, 3, 6)),
    "no batch": source_of(lambda: Recurrent(lambda: nn.GRU(6, 5)), floats(4, 6)),
    "twice": source_of(Twice, floats(4, 3, 6)),
    "packed": source_of(lambda: Packed(False), floats(4, 3, 6)),
    "packed, batch first": source_of(lambda: Packed(True), floats(3, 4, 6)),
    "recomputed": source_of(lambda: checkpointed(Recurrent(lambda: nn.LSTM(6, 5, 2))), floats(4, 3, 6)),
}


@pytest.mark.parametrize("name", MODELS)
def test_passes_are_those_of_frozen_weights(name: str) -> None:
    """FLOP counters know neither this rule nor how its products were merged."""
    step, split = trace_step(MODELS[name]), _counted_split(MODELS[name])
    recomputed = step.recomputed_macs
    assert {**step.dense_macs, Pass.BP: step.dense_macs[Pass.BP] + recomputed} == split
    assert bool(recomputed) == (name == "recomputed")


@pytest.mark.parametrize("trained", ["weight_ih_l0", "weight_hh_l1", "bias_hh_l0"])
def test_only_the_gradients_that_are_needed_are_made(trained: str) -> None:
    """All else frozen: the one update, and the products on its way, as PyTorch counts them."""

    def build() -> nn.Module:
        model = Recurrent(lambda: nn.LSTM(6, 5, 2))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name == f"rnn.{trained}")
        return model

    step = trace_step(source_of(build, floats(4, 3, 6)))
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        build()(floats(4, 3, 6)).sum().backward()
    assert sum(step.dense_macs.values()) == counter.get_total_flops() // 2
    made = {op.parameter for op in step.matrix_ops if op.pass_ is Pass.WU}
    assert made == ({f"rnn.{trained}"} if "weight" in trained else set())
    assert [op.name for op in step.ops if isinstance(op, UpdateOp)] == [f"rnn.{trained}"]


def test_steps_wait_for_the_product_of_the_inputs_and_for_each_other() -> None:
    step = trace_step(
        source_of(lambda: nn.Sequential(nn.Linear(6, 6), nn.RNN(6, 5)), floats(3, 2, 6), loss=lambda out: out[0].sum())
    )
    products = [i for i, op in enumerate(step.ops) if isinstance(op, MatrixOp) and op.pass_ is Pass.FF]
    assert [str(step.matrix_ops[i].gemm) for i in range(5)] == ["6 x 6 x 6", "6 x 6 x 5", *["2 x 5 x 5"] * 3]
    reached: dict[int, set[int]] = {}
    for i, before in enumerate(step.after):
        reached[i] = set(before).union(*(reached[j] for j in before))
    embed, inputs, first, second, third = products
    assert embed in reached[inputs] and not {embed, inputs} & reached[first]
    assert {inputs, first} <= reached[second] and second in reached[third]


def both_doors(path: Path, module: nn.RNNBase, x: tuple[int, int, int], *, last: bool) -> tuple[Workload, Workload]:
    """A projection and ``module``: the trace, and the step of the same network written as ONNX; loss on its outputs."""
    kind, directions, width = module.mode.split("_")[0], 1 + module.bidirectional, module.hidden_size

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.cell = nn.Linear(8, module.input_size, bias=False), module

        def forward(self, x: Tensor) -> Tensor:
            out, end = self.cell(self.embed(x))
            return (end if isinstance(end, Tensor) else end[0]) if last else out  # type: ignore[no-any-return]

    sizes = {"w": (8, module.input_size)}
    parts = [("wi", "weight_ih_l0"), ("wr", "weight_hh_l0")]
    for name, part in parts:
        sizes[name] = (directions, *getattr(module, part).shape)
    if module.bias:
        sizes["b"] = (directions, 2 * module.bias_ih_l0.numel())
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["e"], name="embed"),
        helper.make_node(
            kind,
            ["e", "wi", "wr", *(["b"] if module.bias else [])],
            ["", "y"] if last else ["y"],
            name="cell",
            hidden_size=width,
            layout=int(module.batch_first),
            direction=("forward", "bidirectional")[directions - 1],
            **({"linear_before_reset": 1} if kind == "GRU" else {}),
        ),
    ]
    weights = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in sizes.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    # Not their sum: its gradient is one number for all of them.
    return trace_step(source_of(Model, floats(*x), loss=lambda out: out.square().sum())), onnx_workload(path)


def of_the_layer(step: Workload) -> list[Op]:
    """Its ops without the names that the doors give."""
    unnamed: list[Op] = []
    for op in step.ops:
        if op.name == "cell" and not isinstance(op, UpdateOp):
            named = {"parameter": None} if isinstance(op, MatrixOp) else {}
            unnamed.append(replace(op, op="", **named))
    return unnamed


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(4, 6, device="meta"),
        nn.GRU(4, 6, bidirectional=True, device="meta"),
        nn.RNN(4, 6, bias=False, device="meta"),
        nn.LSTM(4, 6, bidirectional=True, batch_first=True, device="meta"),
    ],
    ids=["lstm", "gru both ways", "rnn without bias", "lstm both ways, batch first"],
)
def test_both_doors_make_the_same_ops(tmp_path: Path, module: nn.RNNBase, last: bool) -> None:
    """Op for op; so bytes and joules are equal too."""
    steps = both_doors(tmp_path / "r.onnx", module, (5, 3, 8), last=last)
    layers = [of_the_layer(step) for step in steps]
    assert layers[0] == layers[1]
    assert steps[0].dense_macs == steps[1].dense_macs
    spec, costs = load_spec("tiny"), []
    for ops in layers:
        result = simulate(schedule(Workload(model="layer", batch=3, ops=tuple(ops)), spec))
        costs.append((result.cycles.total, result.counts.dram_bytes, energy(result).zeptojoules))
    assert costs[0] == costs[1]
