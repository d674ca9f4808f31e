"""ONNX inference graphs as training steps, against hand counts and against the PyTorch trace of the same network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from weft.workloads.errors import InputError
from weft.workloads.gemm import GEMM_PASSES, Gemm, Pass
from weft.workloads.models.source import ModelSource, StepInputs
from weft.workloads.onnx import onnx_workload
from weft.workloads.operand import Role
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp, Workload
from weft.workloads.trace import trace_step

Weights = dict[str, Sequence[int]]


def save(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, Sequence[int | str]],
    weights: Weights,
    constants: dict[str, Any] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
) -> Path:
    """Write a model of ``nodes``; weights are zeros of the given shapes."""
    stored = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    stored += [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        stored,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)
    return path


def trace(build: Any, *shape: int) -> Workload:
    """The PyTorch trace of a network whose loss is the sum of its output."""

    def inputs(batch: int | None, seq: int | None) -> StepInputs:
        return StepInputs(args=(torch.empty(*shape),), batch=shape[0], shape="")

    def loss(output: Any, _: StepInputs) -> Tensor:
        total: Tensor = output.sum()
        return total

    return trace_step(ModelSource(name="torch", title="", build=build, inputs=inputs, loss=loss))


def described(step: Workload) -> list[tuple[Any, ...]]:
    """Everything about the matrix ops that does not depend on how a front end names things."""
    return sorted(
        (op.pass_, str(op.gemm), op.gemm.run, op.a.role, op.b.role, op.c.role, op.b.bytes, op.c.bytes, op.convolution)
        for op in step.matrix_ops
    )


def trained(step: Workload) -> list[int]:
    return sorted(op.elements for op in step.ops if isinstance(op, UpdateOp))


class ConvNet(nn.Module):
    """Strided, grouped and dilated, depthwise, transposed and one-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 32, 3, padding=2, dilation=2, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 5, stride=2, padding=2, groups=32, bias=False)
        self.up = nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1, groups=4)
        self.line = nn.Conv1d(16, 8, 7, stride=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.grouped(self.norm(self.first(x)).relu()))
        return self.line(self.up(x).flatten(2))  # type: ignore[no-any-return]


def conv_net(path: Path, batch: int | str = "N") -> Path:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["h1"], name="first", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["h1", "scale", "shift", "mean", "var"], ["h2"], name="norm"),
        node("Relu", ["h2"], ["h3"], name="relu"),
        node("Conv", ["h3", "w2", "b2"], ["h4"], name="grouped", group=4, pads=[2, 2, 2, 2], dilations=[2, 2]),
        node("Conv", ["h4", "w3"], ["h5"], name="depthwise", group=32, strides=[2, 2], pads=[2, 2, 2, 2]),
        node(
            "ConvTranspose",
            ["h5", "w4", "b4"],
            ["h6"],
            name="up",
            group=4,
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            output_padding=[1, 1],
        ),
        # The batch travels through Shape, Gather, Mul and Concat, as exporters write it.
        node("Shape", ["h6"], ["s"]),
        node("Gather", ["s", "zero"], ["s0"]),
        node("Div", ["sixteen_twice", "two"], ["s1"]),
        node("Concat", ["s0", "s1", "minus"], ["target"], axis=0),
        node("Reshape", ["h6", "target"], ["h7"], name="flatten"),
        node("Conv", ["h7", "w5", "b5"], ["y"], name="line", strides=[3]),
    ]
    weights: Weights = {
        "w1": (16, 3, 3, 3),
        "b1": (16,),
        "scale": (16,),
        "shift": (16,),
        "mean": (16,),
        "var": (16,),
        "w2": (32, 4, 3, 3),
        "b2": (32,),
        "w3": (32, 1, 5, 5),
        "w4": (32, 4, 3, 3),
        "b4": (16,),
        "w5": (8, 16, 7),
        "b5": (8,),
    }
    constants = {
        name: np.array([value], np.int64)
        for name, value in {"zero": 0, "two": 2, "sixteen_twice": 32, "minus": -1}.items()
    }
    return save(path, nodes, {"x": (batch, 3, 32, 32)}, weights, constants)


def test_convolutions_equal_the_pytorch_trace(tmp_path: Path) -> None:
    step = onnx_workload(conv_net(tmp_path / "net.onnx"), batch=4)
    traced = trace(ConvNet, 4, 3, 32, 32)
    assert step.dense_macs == traced.dense_macs
    assert described(step) == described(traced)
    assert trained(step) == trained(traced)
    assert (step.model, step.batch, step.input) == ("net", 4, "4 x 3 x 32 x 32")


def test_convolution_gemms_by_hand(tmp_path: Path) -> None:
    step = onnx_workload(conv_net(tmp_path / "net.onnx"), batch=4)
    gemms = {(op.name, op.pass_): op.gemm for op in step.matrix_ops}
    assert ("first", Pass.BP) not in gemms
    assert gemms["first", Pass.FF] == Gemm(m=4 * 256, k=27, n=16, run=3)
    assert gemms["grouped", Pass.FF] == Gemm(m=4 * 256, k=36, n=8, groups=4, run=4)
    assert gemms["grouped", Pass.BP] == Gemm(m=4 * 256, k=8, n=36, groups=4)
    assert gemms["grouped", Pass.WU] == Gemm(m=8, k=4 * 256, n=36, groups=4)
    assert gemms["up", Pass.FF] == Gemm(m=4 * 64, k=8, n=36, groups=4)
    assert gemms["up", Pass.BP] == Gemm(m=4 * 64, k=36, n=8, groups=4, run=4)
    assert gemms["up", Pass.WU] == Gemm(m=8, k=4 * 64, n=36, groups=4)


def test_order_is_forward_backward_update(tmp_path: Path) -> None:
    step = onnx_workload(conv_net(tmp_path / "net.onnx"), batch=4)
    names = [op.name for op in step.matrix_ops]
    assert names[:5] == ["first", "grouped", "depthwise", "up", "line"]
    assert list(dict.fromkeys(names[5:])) == ["line", "up", "depthwise", "grouped", "first"]
    kinds = [op.kind for op in step.ops]
    assert set(kinds[: kinds.index("update")]) == {"matrix", "vector"} and set(kinds[kinds.index("update") :]) == {
        "update"
    }


def test_vector_traffic(tmp_path: Path) -> None:
    step = onnx_workload(conv_net(tmp_path / "net.onnx"), batch=4)
    activation = 4 * 16 * 16 * 16 * 4
    traffic = {(op.name, op.pass_): (op.read_bytes, op.write_bytes) for op in step.ops if isinstance(op, VectorOp)}
    assert traffic["relu", Pass.FF] == (activation, activation)
    assert traffic["relu", Pass.BP] == (2 * activation, activation)
    assert traffic["norm", Pass.BP][1] == activation + 2 * 16 * 4
    assert traffic["first", Pass.WU] == (activation, 16 * 4)
    assert not {"flatten", "s", "target"} & {name for name, _ in traffic}


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(12, 20)
        self.outer = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("transposed", [True, False])
def test_linear_layers_equal_the_pytorch_trace(tmp_path: Path, transposed: bool) -> None:
    shapes = {"w1": (20, 12), "w2": (5, 20)} if transposed else {"w1": (12, 20), "w2": (20, 5)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=int(transposed)),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], transB=int(transposed)),
    ]
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (7, 12)}, {**shapes, "b1": (20,), "b2": (5,)}))
    traced = trace(Perceptron, 7, 12)
    assert described(step) == described(traced)
    assert trained(step) == trained(traced)


class Attention(nn.Module):
    """Self-attention of one block, with a residual and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return x + self.o(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def attention(path: Path) -> Path:
    nodes = [helper.make_node("LayerNormalization", ["x", "g", "b"], ["h"], axis=-1)]
    for name in "qkv":
        turn = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
        nodes += [
            helper.make_node("MatMul", ["h", f"w{name}"], [f"{name}0"]),
            helper.make_node("Reshape", [f"{name}0", "heads"], [f"{name}1"]),
            helper.make_node("Transpose", [f"{name}1"], [name], perm=turn),
        ]
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["mixed"], name="mixed"),
        helper.make_node("Transpose", ["mixed"], ["m1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["m1", "flat"], ["m2"]),
        # A weight stored the other way round, as exporters leave it.
        helper.make_node("Transpose", ["wo"], ["woT"], name="layout", perm=[1, 0]),
        helper.make_node("MatMul", ["m2", "woT"], ["o"], name="out"),
        helper.make_node("Add", ["x", "o"], ["y"]),
    ]
    weights: Weights = {"g": (16,), "b": (16,), **{f"w{name}": (16, 16) for name in "qkvo"}}
    constants = {"heads": np.array([0, 0, 4, 4], np.int64), "flat": np.array([0, 0, 16], np.int64)}
    return save(path, nodes, {"x": ("batch", 5, 16)}, weights, constants)


def test_attention_equals_the_pytorch_trace(tmp_path: Path) -> None:
    step = onnx_workload(attention(tmp_path / "a.onnx"), batch=2)
    traced = trace(Attention, 2, 5, 16)
    assert step.dense_macs == traced.dense_macs
    assert described(step) == described(traced)
    assert trained(step) == trained(traced)
    products = [op for op in step.matrix_ops if op.name in ("scores", "mixed")]
    assert [op.pass_ for op in products].count(Pass.BP) == 4 and not any(op.pass_ is Pass.WU for op in products)
    out = next(op for op in step.matrix_ops if op.name == "out" and op.pass_ is Pass.WU)
    assert out.parameter == "wo" and out.c.role is Role.GRADIENT
    assert not any(op.name == "layout" for op in step.ops)


def test_a_branching_tensor_adds_its_gradients(tmp_path: Path) -> None:
    step = onnx_workload(attention(tmp_path / "a.onnx"), batch=2)
    added = [op for op in step.ops if isinstance(op, VectorOp) and op.pass_ is Pass.BP and op.name == "h"]
    size = 2 * 5 * 16 * 4
    assert [(op.op, op.read_bytes, op.write_bytes) for op in added] == [("Add", 2 * size, size)] * 2


def recurrent(path: Path, kind: str = "LSTM", **attributes: Any) -> Path:
    gates = {"LSTM": 4, "GRU": 3}[kind]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["e"]),
        helper.make_node(kind, ["e", "wi", "wr", "bias"], ["h"], name="cell", hidden_size=6, **attributes),
        helper.make_node("Squeeze", ["h", "one"], ["y"]),
    ]
    weights: Weights = {"w": (8, 4), "wi": (1, gates * 6, 4), "wr": (1, gates * 6, 6), "bias": (1, gates * 12)}
    return save(path, nodes, {"x": (5, 3, 8)}, weights, {"one": np.array([1], np.int64)})


class Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 4, bias=False)
        self.cell: nn.RNNBase = {"LSTM": nn.LSTM, "GRU": nn.GRU}[kind](4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.embed(x))[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kind", "attributes"), [("LSTM", {}), ("GRU", {"linear_before_reset": 1})])
def test_recurrent_layers_count_what_pytorch_does(tmp_path: Path, kind: str, attributes: dict[str, int]) -> None:
    step = onnx_workload(recurrent(tmp_path / "r.onnx", kind, **attributes))
    assert step.dense_macs == trace(partial(Recurrent, kind), 5, 3, 8).dense_macs
    gates = {"LSTM": 4, "GRU": 3}[kind]
    assert trained(step) == sorted((32, gates * 24, gates * 36, gates * 12))


def test_the_batch_behind_the_steps_of_a_recurrent_network(tmp_path: Path) -> None:
    nodes = [helper.make_node("LSTM", ["x", "wi", "wr"], ["y"], hidden_size=6)]
    path = save(tmp_path / "r.onnx", nodes, {"x": (5, "N", 4)}, {"wi": (1, 24, 4), "wr": (1, 24, 6)})
    step = onnx_workload(path, batch=3)
    assert (step.batch, step.input) == (3, "5 x 3 x 4")
    with pytest.raises(InputError, match="batch dimension 'N' of input 'x' is symbolic"):
        onnx_workload(path)


def test_weights_made_of_weights_have_a_weight_update(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["qkv"], ["q", "kv"], axis=1),
        helper.make_node("MatMul", ["x", "q"], ["h"], name="part"),
        helper.make_node("Mul", ["v", "g"], ["scaled"]),
        helper.make_node("MatMul", ["h", "scaled"], ["y"], name="norm"),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": (2, 4)}, {"qkv": (4, 6), "v": (3, 5), "g": (1, 5)}, opset=13)
    step = onnx_workload(path)
    assert described_passes(step) == [
        ("part", "FF", "qkv"),
        ("norm", "FF", "v+g"),
        ("norm", "BP", "v+g"),
        ("norm", "WU", "v+g"),
        ("part", "WU", "qkv"),
    ]
    assert trained(step) == [5, 15, 24]


def test_a_scaled_position_beside_a_weight_is_an_activation(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["place", "scale"], ["p"]),
        helper.make_node("MatMul", ["p", "w"], ["e"], name="m"),
        helper.make_node("Add", ["x", "e"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": (5, 6)}, {"place": (5, 4), "scale": (4,), "w": (4, 6)})
    assert described_passes(onnx_workload(path)) == [("m", p, "w") for p in ("FF", "BP", "WU")]


def described_passes(step: Workload) -> list[tuple[str, str, str | None]]:
    return [(op.name, str(op.pass_), op.parameter) for op in step.matrix_ops]


def test_statistics_that_nothing_reads_need_no_shape(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y", "m1", "v1", "sm", "sv"]),
    ]
    weights: Weights = {"w": (4, 3, 3, 3), **dict.fromkeys("gbmv", (4,))}
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (2, 3, 8, 8)}, weights, opset=9))
    assert trained(step) == [4, 4, 108]


def test_what_is_read_and_not_trained_is_frozen(tmp_path: Path) -> None:
    """A layer whose result only decides: no gradient passes ArgMax, so its weight is there as it is."""
    path = save(
        tmp_path / "net.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("MatMul", ["x", "gate"], ["g"]),
            helper.make_node("ArgMax", ["g"], ["i"], axis=1),
            helper.make_node("Cast", ["i"], ["f"], to=1),
            helper.make_node("Mul", ["h", "f"], ["y"]),
        ],
        {"x": ("N", 4)},
        {"w": (4, 8), "gate": (4, 6)},
    )
    step = onnx_workload(path, batch=3)

    assert [(t.name, t.dtype, t.elements) for t in step.frozen] == [("gate", "float32", 24)]
    assert [op.name for op in step.ops if isinstance(op, UpdateOp)] == ["w"]


@pytest.mark.parametrize(
    ("equation", "shapes", "gemm"),
    [
        ("bij,jk->bik", ((2, 3, 4), (4, 5)), Gemm(m=6, k=4, n=5)),
        ("bhid,bhjd->bhij", ((2, 3, 4, 5), (2, 3, 6, 5)), Gemm(m=4, k=5, n=6, groups=6)),
        ("bij,jk", ((2, 3, 4), (4, 5)), Gemm(m=6, k=4, n=5)),
        ("...j,jk->...k", ((2, 3, 4), (4, 5)), Gemm(m=6, k=4, n=5)),
        ("...id,...jd->...ij", ((2, 3, 4, 5), (1, 3, 6, 5)), Gemm(m=4, k=5, n=6, groups=6)),
        ("...id,...dj", ((2, 4, 5), (2, 5, 6)), Gemm(m=4, k=5, n=6, groups=2)),
    ],
)
def test_einsum_of_two_operands(tmp_path: Path, equation: str, shapes: Any, gemm: Gemm) -> None:
    nodes = [helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation)]
    step = onnx_workload(save(tmp_path / "e.onnx", nodes, {"x": shapes[0]}, {"w": shapes[1]}))
    assert [op.gemm.macs for op in step.matrix_ops] == [gemm.macs] * 2
    operands = [np.zeros(shape, np.float32) for shape in shapes]
    assert gemm.groups * gemm.m * gemm.n == np.einsum(equation, *operands).size
    assert step.matrix_ops[0].gemm == gemm
    assert [op.pass_ for op in step.matrix_ops] == [Pass.FF, Pass.WU]


def test_external_weights_are_not_read(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "net.onnx")
    inline = onnx_workload(path, batch=2)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=256)
    (tmp_path / "weights.bin").unlink()
    assert onnx_workload(path, batch=2) == inline


def test_importing_needs_no_torch() -> None:
    code = "import sys, weft.workloads.onnx; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_every_pass_of_a_weight_is_named_alike(tmp_path: Path) -> None:
    step = onnx_workload(conv_net(tmp_path / "net.onnx"), batch=1)
    for pass_ in GEMM_PASSES:
        ops: list[MatrixOp] = [op for op in step.matrix_ops if op.pass_ is pass_ and op.name == "grouped"]
        assert [(op.parameter, op.op) for op in ops] == [("w2", "Conv")]


def linear(path: Path, shape: Sequence[int | str] = ("N", 4), **options: Any) -> Path:
    return save(
        path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": shape}, {"w": (4, 3)}, **options
    )


def test_a_fixed_batch_may_be_repeated_but_not_changed(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx", (7, 4))
    assert onnx_workload(path) == onnx_workload(path, batch=7)
    with pytest.raises(InputError, match="batch 8 given, but the file fixes it at 7"):
        onnx_workload(path, batch=8)


@pytest.mark.parametrize("batch", [0, -1, True, 2.0, 2**40])
def test_bad_batches_are_refused(tmp_path: Path, batch: Any) -> None:
    with pytest.raises(InputError, match="batch must be an integer"):
        onnx_workload(linear(tmp_path / "m.onnx"), batch=batch)


def test_symbolic_dimensions(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch dimension 'N' of input 'x' is symbolic: give a batch size"):
        onnx_workload(linear(tmp_path / "m.onnx"))
    with pytest.raises(
        InputError, match=r"symbolic: 'seq' \(axis 1 of input 'x'\); give them, as in --batch 8 --dim seq=128"
    ):
        onnx_workload(linear(tmp_path / "m.onnx", ("N", "seq", 4)), batch=2)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.onnx: not an ONNX model"):
        onnx_workload(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="not an ONNX model, or cut short"):
        onnx_workload(path, batch=1)


def test_a_damaged_initializer_is_refused(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "net.onnx")
    model = onnx.load(path)
    next(tensor for tensor in model.graph.initializer if tensor.name == "zero").dims[0] = 86
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"initializer 'zero' has .* bytes, but"):
        onnx_workload(path, batch=1)


def test_a_recurrent_layer_of_endless_directions_or_steps_is_refused(tmp_path: Path) -> None:
    """2^62 directions filled the memory, an op each."""
    path = recurrent(tmp_path / "m.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.dims[0] == 1:
            tensor.dims[0] = 2**62
            tensor.ClearField("raw_data")
    onnx.save(model, path)
    with pytest.raises(InputError):
        onnx_workload(path, batch=2)
    model = onnx.load(recurrent(path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**21
    onnx.save(model, path)
    with pytest.raises(InputError, match="2,097,152 steps make that many products"):
        onnx_workload(path)


def test_empty_operands_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (2, 0)}, {"w": (0, 3)})
    with pytest.raises(InputError):
        onnx_workload(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        onnx_workload(tmp_path / "none.onnx")


def refused(path: Path, nodes: list[Any], weights: Weights | None = None, **options: Any) -> str:
    """Message with which a graph over ``x`` [2, 3, 4] is refused."""
    save(path, nodes, {"x": (2, 3, 4)}, weights or {"w": (4, 4)}, **options)
    with pytest.raises(InputError) as caught:
        onnx_workload(path)
    message = str(caught.value)
    assert len(message) < 600
    return message


def test_operators_without_a_rule_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    node = helper.make_node
    assert "node 'odd' (Det) has no rule" in refused(path, [node("Det", ["x"], ["y"], name="odd")])
    assert "domain 'com.microsoft'" in refused(path, [node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")])
    assert "did you mean 'MatMul'?" in refused(path, [node("Matmul", ["x", "w"], ["y"])])
    three = [node("Einsum", ["x", "w", "w"], ["y"], name="e", equation="bij,jk,kl->bil")]
    assert "node 'e' (Einsum): equation" in refused(path, three)
    for equation, said in {
        "...j,kj->...k": "'j' of equation '...j,kj->...k' is 4",
        "bi,jk": "equation",
        "b1j,jk->bk": "is 'b1j,jk->bk': letters",
        ".ij,jk->ik": "is '.ij,jk->ik': letters",
    }.items():
        assert said in refused(path, [node("Einsum", ["x", "w"], ["y"], equation=equation)], {"w": (4, 5)}), equation
    assert "sums an index of one operand" in refused(path, [node("Einsum", ["x", "w"], ["y"], equation="bij,kl->bjk")])
    # A scalar has no axis to name: this is an equation, but no product.
    scalar = [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Einsum", ["s"], ["y"], equation="->")]
    assert "'->' is not a product of two operands" in refused(path, scalar)
    assert "no parameter is trained" in refused(path, [node("Relu", ["x"], ["y"])])


def test_shapes_that_cannot_be_known_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    node = helper.make_node
    mismatch = [node("MatMul", ["x", "w"], ["y"], name="mm")]
    assert "shape inference failed" in refused(path, mismatch, {"w": (5, 4)})
    dynamic = [
        node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        node("ReduceMax", ["i"], ["n"], keepdims=0),
        node("Range", ["zero", "n", "one"], ["rows"], name="count"),
        node("Gather", ["w", "rows"], ["y"]),
    ]
    message = refused(path, dynamic, constants={"zero": np.int64(0), "one": np.int64(1)})
    assert "the shape of 'rows' of node 'count' (Range) cannot be inferred" in message


def test_gru_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"node 'cell' \(GRU\): only linear_before_reset = 1"):
        onnx_workload(recurrent(tmp_path / "r.onnx", "GRU"))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"group": 0}, "attribute 'group' of node 'c' (Conv) is 0; the least it can be is 1"),
        ({"strides": [0, 1]}, "attribute 'strides' of node 'c' (Conv) is [0, 1]; the least it can be is 1"),
        ({"dilations": [-1, 1]}, "the least it can be is 1"),
        ({"group": [1, 1]}, "attribute 'group' of node 'c' (Conv) is of type INTS; the operator takes INT"),
        ({"pads": 1}, "is of type INT; the operator takes INTS"),
        ({"strides": "two"}, "is of type STRING; the operator takes INTS"),
    ],
)
def test_attributes_that_no_operator_has_are_refused(tmp_path: Path, attributes: dict[str, Any], said: str) -> None:
    """Zeros ended as divisions, lists as faults; shape inference divides by some of them itself."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "c", **attributes)]
    path = save(tmp_path / "m.onnx", nodes, {"x": (1, 2, 4, 4)}, {"w": (2, 2, 3, 3)})
    with pytest.raises(InputError) as caught:
        onnx_workload(path)
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "some_name")]
    path = save(tmp_path / "m.onnx", nodes, {"x": (4, 4)}, {"w": (4, 4)})
    path.write_bytes(path.read_bytes().replace(b"some_name", b"some\xffname"))
    with pytest.raises(InputError, match="a name of a node is not UTF-8 text"):
        onnx_workload(path)
