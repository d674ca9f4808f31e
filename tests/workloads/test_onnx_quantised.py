"""Quantised ONNX files are the products of the float model that they were made from, whatever the format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.onnx import onnx_workload
from weft.workloads.onnx.quantised import as_floats
from weft.workloads.step import UpdateOp, VectorOp, Workload

from .oracles import Case, counted
from .test_onnx import described, save, trace, trained

node = helper.make_node


class Net(nn.Module):
    """Two convolutions, one of groups, a linear layer, and a product without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, groups=2)
        self.fc, self.out = nn.Linear(8 * 7 * 7, 32), nn.Linear(32, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc(self.two(self.one(x).relu()).flatten(1)))  # type: ignore[no-any-return]


_WEIGHTS = {"one": (8, 3, 3, 3), "two": (8, 4, 3, 3), "fc": (32, 392), "out": (32, 10)}
_BIASES = {"one": 8, "two": 8, "fc": 32}
_CONV: dict[str, dict[str, Any]] = {"one": {"pads": [1, 1, 1, 1]}, "two": {"group": 2, "strides": [2, 2]}}


def _stored(per_channel: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"s": np.float32(0.1), "z": np.uint8(128), "flat": np.array([0, -1])}
    for name, shape in _WEIGHTS.items():
        columns = shape[1] if name == "out" else shape[0]
        found[f"{name}_w"] = np.ones(shape, np.int8)
        found[f"{name}_s"] = np.full(columns, 0.1, np.float32) if per_channel else np.float32(0.1)
        found[f"{name}_z"] = np.zeros(columns, np.int8) if per_channel else np.int8(0)
    for name, size in _BIASES.items():
        found[f"{name}_b"] = np.ones(size, np.int32)
        found[f"{name}_f"] = np.ones(size, np.float32)
    return found


def _rounded(name: str) -> list[Any]:
    """A value rounded, as it stands between two layers."""
    return [
        node("QuantizeLinear", [name, "s", "z"], [f"{name}_q"]),
        node("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_d"]),
    ]


def by_pairs(per_channel: bool) -> list[Any]:
    """The format that keeps float operators between pairs of rounding."""
    nodes = []
    for name in _WEIGHTS:
        axis = {"axis": 1 if name == "out" else 0} if per_channel else {}
        nodes.append(node("DequantizeLinear", [f"{name}_w", f"{name}_s", f"{name}_z"], [f"{name}_wd"], **axis))
    for name in _BIASES:
        nodes.append(node("DequantizeLinear", [f"{name}_b", f"{name}_s"], [f"{name}_bd"], axis=0))
    return [
        *nodes,
        *_rounded("x"),
        node("Conv", ["x_d", "one_wd", "one_bd"], ["a"], "one", **_CONV["one"]),
        node("Relu", ["a"], ["r"]),
        *_rounded("r"),
        node("Conv", ["r_d", "two_wd", "two_bd"], ["c"], "two", **_CONV["two"]),
        *_rounded("c"),
        node("Reshape", ["c_d", "flat"], ["h"]),
        node("Gemm", ["h", "fc_wd", "fc_bd"], ["g"], "fc", transB=1),
        *_rounded("g"),
        node("MatMul", ["g_d", "out_wd"], ["f"], "out"),
        *_rounded("f"),
        node("Identity", ["f_d"], ["y"]),
    ]


def by_operators(_: bool) -> list[Any]:
    """The format of integer operators, with those that onnxruntime adds."""

    def args(x: str, name: str) -> list[str]:
        return [x, "s", "z", f"{name}_w", f"{name}_s", f"{name}_z"]

    return [
        node("QuantizeLinear", ["x", "s", "z"], ["x_q"]),
        node("QLinearConv", [*args("x_q", "one"), "s", "z", "one_b"], ["a"], "one", **_CONV["one"]),
        # Of integers, which are floats in training.
        node("MaxPool", ["a"], ["r"], "pool", kernel_shape=[1, 1]),
        node("QLinearConv", [*args("r", "two"), "s", "z", "two_b"], ["c"], "two", **_CONV["two"]),
        node("Reshape", ["c", "flat"], ["h"]),
        node("QGemm", [*args("h", "fc"), "fc_b", "s", "z"], ["g"], "fc", domain="com.microsoft", transB=1),
        node("QLinearMatMul", [*args("g", "out"), "s", "z"], ["f"], "out"),
        node("DequantizeLinear", ["f", "s", "z"], ["y"]),
    ]


def by_measure(_: bool) -> list[Any]:
    """The format whose activations are scaled by what they are."""
    nodes: list[Any] = []

    def layer(x: str, name: str, op: str, out: str, **given: Any) -> None:
        nodes.extend(
            [
                node("DynamicQuantizeLinear", [x], [f"{x}_q", f"{x}_s", f"{x}_z"], f"{x}_round"),
                node("Mul", [f"{x}_s", f"{name}_s"], [f"{name}_m"]),
                node(op, [f"{x}_q", f"{name}_w", f"{x}_z", f"{name}_z"], [f"{name}_i"], name, **given),
                node("Cast", [f"{name}_i"], [f"{name}_c"], to=TensorProto.FLOAT),
            ]
        )
        if op == "ConvInteger":
            nodes.append(node("Reshape", [f"{name}_m", "channels"], [f"{name}_n"]))
        scaled = out if name == "out" else f"{name}_y"
        nodes.append(node("Mul", [f"{name}_c", f"{name}_{'n' if op == 'ConvInteger' else 'm'}"], [scaled]))
        if name != "out":
            bias = f"{name}_f"
            if op == "ConvInteger":
                nodes.append(node("Reshape", [bias, "channels"], [f"{bias}4"]))
                bias += "4"
            nodes.append(node("Add", [scaled, bias], [out]))

    layer("x", "one", "ConvInteger", "a", **_CONV["one"])
    nodes.append(node("Relu", ["a"], ["r"]))
    layer("r", "two", "ConvInteger", "c", **_CONV["two"])
    nodes.append(node("Reshape", ["c", "flat"], ["h"]))
    layer("h", "fc", "MatMulInteger", "g")
    layer("g", "out", "MatMulInteger", "y")
    return nodes


def quantised(path: Path, form: Any, per_channel: bool = False) -> Workload:
    stored = _stored(per_channel)
    if form is by_measure:
        stored["fc_w"], stored["channels"] = stored["fc_w"].T.copy(), np.array([1, -1, 1, 1])
        if not per_channel:
            stored |= {name: np.full(8, 0.1, np.float32) for name in ("one_s", "two_s")}
    return onnx_workload(save(path, form(per_channel), {"x": ("N", 3, 16, 16)}, {}, stored), batch=2)


@pytest.mark.parametrize("form", [by_pairs, by_operators, by_measure])
@pytest.mark.parametrize("per_channel", [False, True])
def test_products_are_those_of_the_float_model(tmp_path: Path, form: Any, per_channel: bool) -> None:
    step = quantised(tmp_path / "q.onnx", form, per_channel)
    case = Case(build=Net, inputs=lambda: ((torch.randn(2, 3, 16, 16),), {}))
    assert step.dense_macs == counted(case)
    floats = trace(Net, 2, 3, 16, 16)
    assert described(step) == described(floats)
    assert trained(step) == trained(floats)
    assert {op.dtype for op in step.ops if isinstance(op, VectorOp)} == {"float32"}


@pytest.mark.parametrize(
    ("form", "formats"), [(by_pairs, "uint8 x int8"), (by_operators, "uint8 x int8"), (by_measure, "uint8 x int8")]
)
def test_what_is_quantised_is_said(tmp_path: Path, form: Any, formats: str) -> None:
    step = quantised(tmp_path / "q.onnx", form)
    assert step.assumed == (
        f"one, two, fc and 1 more are quantised in the file ({formats}): counted as products of floats that every "
        "step rounds; weights are trained as floats, and gradients pass the rounding as they are",
    )
    plain = save(tmp_path / "f.onnx", [node("MatMul", ["x", "w"], ["y"])], {"x": (2, 3)}, {"w": (3, 4)})
    assert onnx_workload(plain).assumed == ()


def test_activations_of_two_bytes(tmp_path: Path) -> None:
    stored = _stored(False) | {"z": np.uint16(9)}
    step = onnx_workload(save(tmp_path / "q.onnx", by_pairs(False), {"x": (2, 3, 16, 16)}, {}, stored, opset=21))
    assert described(step) == described(trace(Net, 2, 3, 16, 16))
    assert "(uint16 x int8)" in step.assumed[0]


def test_a_rounding_is_one_trip_each_way(tmp_path: Path) -> None:
    """As ``fake_quantize`` has it: floats in, floats out; what is made of the integers before the next one is free."""
    nodes = [*by_pairs(False)]
    step = onnx_workload(save(tmp_path / "q.onnx", nodes, {"x": (2, 3, 16, 16)}, {}, _stored(False)))
    vector = [op for op in step.ops if isinstance(op, VectorOp)]
    rounded = {(op.name, op.pass_): (op.read_bytes, op.write_bytes) for op in vector if op.op == "QuantizeLinear"}
    size = 2 * 8 * 16 * 16 * 4
    assert rounded["r_q", Pass.FF] == rounded["r_q", Pass.BP] == (size, size)
    assert ("x_q", Pass.FF) in rounded and ("x_q", Pass.BP) not in rounded
    weights = {(op.name, op.pass_): op.write_bytes for op in vector if op.op == "DequantizeLinear"}
    assert weights["fc_wd", Pass.FF] == weights["fc_wd", Pass.WU] == 32 * 392 * 4
    assert not any(name.endswith("_d") for name, _ in weights)


def test_scales_and_zero_points_are_not_trained(tmp_path: Path) -> None:
    """Also those that no rounding reads: measured ones are multiplied by them behind the product."""
    step = quantised(tmp_path / "q.onnx", by_measure, per_channel=True)
    assert {op.name for op in step.ops if isinstance(op, UpdateOp)} == {
        "one_w",
        "two_w",
        "fc_w",
        "out_w",
        "one_f",
        "two_f",
        "fc_f",
    }
    assert not any(op.pass_ is not Pass.FF and op.name.endswith(("_m", "_n")) for op in step.ops)


def test_what_is_a_statistic_too_is_trained(tmp_path: Path) -> None:
    """Exporters store zeros once: the mean of a normalisation is then its shift."""
    nodes = [node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", "one", "zero", "zero", "one"], ["y"])]
    weights = {"w": (8, 3, 3, 3), "one": (8,), "zero": (8,)}
    assert trained(onnx_workload(save(tmp_path / "b.onnx", nodes, {"x": (2, 3, 8, 8)}, weights))) == [8, 8, 216]


def test_weights_of_four_bits_in_blocks(tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.INT4, [64, 16], [1] * 1024)
    scales = [
        numpy_helper.from_array(np.ones((2, 16), np.float32), "s"),
        helper.make_tensor("z", TensorProto.INT4, [2, 16], [0] * 32),
    ]
    graph = helper.make_graph(
        [
            node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0, block_size=32),
            node("MatMul", ["x", "d"], ["y"], "m"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight, *scales],
    )
    path = tmp_path / "q.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    step = onnx_workload(path)
    assert step.dense_macs == {Pass.FF: 5 * 64 * 16, Pass.BP: 0, Pass.WU: 5 * 64 * 16}
    assert trained(step) == [1024] and "m is quantised in the file (float x int4)" in step.assumed[0]


def test_an_integer_input_is_read_as_the_bytes_that_it_is(tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", ["x", "s", "z"], ["d"], "d"), node("MatMul", ["d", "w"], ["y"])]
    path = save(tmp_path / "q.onnx", nodes, {"x": (4, 8)}, {"w": (8, 3)}, _stored(False))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, path)
    made = next(op for op in onnx_workload(path).ops if op.name == "d" and isinstance(op, VectorOp))
    assert (made.read_bytes, made.write_bytes) == (4 * 8, 4 * 8 * 4)


@pytest.mark.parametrize("op", ["QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"])
def test_integer_operators_equal_their_float_ones(op: str) -> None:
    """To the last digit that a float has, by ONNX's own reference."""
    draw = np.random.default_rng(0)
    conv = "Conv" in op
    x = draw.integers(0, 9, (2, 3, 6, 6) if conv else (4, 8)).astype(np.uint8)
    stored = {
        "w": draw.integers(-4, 5, (5, 3, 3, 3) if conv else (8, 5)).astype(np.int8),
        "s": np.float32(0.5),
        "ws": np.float32(0.25),
        "ys": np.float32(0.5),
        "z": np.uint8(0),
        "wz": np.int8(0),
        "b": draw.integers(-9, 9, 5).astype(np.int32),
    }
    ins = ["x", "s", "z", "w", "ws", "wz", "ys", "z"] if op.startswith("QL") else ["x", "w"]
    nodes = [node(op, [*ins, "b"] if op == "QLinearConv" else ins, ["y"], "n")]
    kind = TensorProto.UINT8 if op.startswith("QL") else TensorProto.INT32
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    as_floats(model)
    assert not any(made.op_type == op for made in model.graph.node)
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], expected)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (
            [node("QLinearAdd", ["x", "", "z", "x", "s", "z", "s", "z"], ["y"], "a", domain="com.microsoft")],
            "node 'a' (QLinearAdd): an operand or its scale is missing",
        ),
        (
            [
                node(
                    "QLinearAveragePool", ["x", "s", "z", "s", "z"], ["y"], "p", domain="com.microsoft", channels_last=1
                )
            ],
            "node 'p' (QLinearAveragePool): channels_last = 1 has no rule",
        ),
        (
            [node("MatMulNBits", ["x", "w"], ["y"], "n", domain="com.microsoft")],
            "node 'n' (MatMulNBits) is of domain 'com.microsoft'",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, nodes: list[Any], said: str) -> None:
    path = save(tmp_path / "q.onnx", nodes, {"x": (2, 3, 8, 8)}, {"w": (8, 3)}, _stored(False))
    with pytest.raises(InputError) as caught:
        onnx_workload(path)
    assert said in str(caught.value)


def test_the_report_says_it_in_full(tmp_path: Path) -> None:
    path = tmp_path / "q.onnx"
    step = quantised(path, by_pairs)
    done = subprocess.run(
        [sys.executable, "-m", "weft", "run", str(path), "--batch", "2"],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert " ".join(step.assumed[0].split()) in " ".join(done.stdout.split())
