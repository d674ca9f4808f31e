"""What of an ONNX graph is a parameter, whether the exporter wrote an initializer or a node; and what is frozen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import weft
from weft.cli import main
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.onnx import onnx_workload
from weft.workloads.onnx.batch import at_batch
from weft.workloads.onnx.constants import store
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp

from .test_onnx import Weights, attention, conv_net, described, recurrent, save, trained
from .test_onnx_shapes import as_written, chains

node = helper.make_node


def constants(path: Path, wrap: str = "") -> Path:
    """The same file with every initializer in a ``Constant``, behind an operator ``wrap`` that only moves floats."""
    model = onnx.load(path)
    made = []
    for tensor in model.graph.initializer:
        name = tensor.name
        wrapped = wrap and tensor.data_type == TensorProto.FLOAT
        if wrapped:
            tensor = numpy_helper.from_array(
                numpy_helper.to_array(tensor).T if wrap == "Transpose" else numpy_helper.to_array(tensor), name
            )
            made.append(node("Constant", [], [f"{name}_stored"], value=tensor))
            made.append(node(wrap, [f"{name}_stored"], [name], **({"to": 1} if wrap == "Cast" else {})))
        else:
            made.append(node("Constant", [], [name], value=tensor))
    del model.graph.initializer[:]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*made, *nodes])
    other = path.with_stem(f"{path.stem}_constants")
    onnx.save(model, other)
    return other


def biased(path: Path) -> Path:
    """Layers whose biases, scales and slopes are operators of their own, as some write them."""
    nodes = [
        node("Sub", ["x", "mean"], ["x0"]),
        node("Div", ["x0", "std"], ["x1"]),
        node("Conv", ["x1", "w"], ["c0"], "conv"),
        node("Add", ["c0", "cb"], ["c1"], "bias"),
        node("PRelu", ["c1", "slope"], ["c2"], "prelu"),
        node("GlobalAveragePool", ["c2"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("MatMul", ["f", "v"], ["m"], "fc"),
        node("Add", ["m", "vb"], ["a"], "fcb"),
        node("Mul", ["a", "half"], ["h"], "half"),
        node("Mul", ["h", "gamma"], ["y"], "scale"),
    ]
    weights: Weights = {
        "w": (8, 3, 3, 3),
        "cb": (1, 8, 1, 1),
        "slope": (8, 1, 1),
        "v": (8, 6),
        "vb": (6,),
        "gamma": (6,),
    }
    scalars = {"half": np.float32(0.5), "mean": np.float32(127), "std": np.ones(1, np.float32)}
    return save(path, nodes, {"x": ("N", 3, 8, 8)}, weights, scalars)


def embedding(path: Path) -> Path:
    nodes = [
        node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        node("Gather", ["table", "i"], ["e"], "tokens"),
        node("Gather", ["places", "at"], ["p"], "places"),
        node("Add", ["e", "p"], ["s"]),
        node("LayerNormalization", ["s", "g", "b"], ["n"], "norm"),
        node("MatMul", ["n", "w"], ["y"], "head"),
    ]
    weights: Weights = {"table": (50, 16), "places": (9, 16), "g": (16,), "b": (16,), "w": (16, 50)}
    return save(path, nodes, {"x": ("N", 7)}, weights, {"at": np.arange(7)})


GRAPHS: dict[str, Callable[[Path], Path]] = {
    "convolutions": conv_net,
    "attention": attention,
    "recurrent": recurrent,
    "biased": biased,
    "embedding": embedding,
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_weight_in_a_node_is_trained_as_one_in_an_initializer(tmp_path: Path, graph: str) -> None:
    path = GRAPHS[graph](tmp_path / "net.onnx")
    batch = None if graph == "recurrent" else 4
    stored = onnx_workload(path, batch=batch)
    moved = onnx_workload(constants(path), batch=batch)
    assert moved.ops == stored.ops
    assert moved.frozen == stored.frozen


@pytest.mark.parametrize("wrap", ["Identity", "Cast", "Transpose"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_constant_is_followed_through_what_only_moves_it(tmp_path: Path, graph: str, wrap: str) -> None:
    path = GRAPHS[graph](tmp_path / "net.onnx")
    batch = None if graph == "recurrent" else 4
    stored = onnx_workload(path, batch=batch)
    moved = onnx_workload(constants(path, wrap), batch=batch)
    assert described(moved) == described(stored)
    assert trained(moved) == trained(stored)


def outcome(path: Path) -> Any:
    try:
        step = onnx_workload(path)
    except InputError as error:
        assert "multiplies no matrices" in str(error) or "no parameter is trained" in str(error)
        return None
    return step.ops, step.frozen


@settings(max_examples=15)
@given(chains())
def test_whatever_layers_store_their_weights_in_nodes(chain: Any) -> None:
    nodes, arrays = chain
    stored = {name: value for name, value in arrays.items() if name != "x"}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        save(path, nodes, {"x": arrays["x"].shape}, {}, stored, outputs=(nodes[-1].output[0],))
        assert outcome(path) == outcome(constants(path))


def test_scalars_and_what_prepares_the_input_are_no_parameters(tmp_path: Path) -> None:
    """No gradient goes to the input for their sake, so the first layer has no BP, and nothing is updated."""
    path = biased(tmp_path / "net.onnx")
    for file in (path, constants(path)):
        step = onnx_workload(file, batch=4)
        assert {op.name for op in step.ops if isinstance(op, UpdateOp)} == {"w", "cb", "slope", "v", "vb", "gamma"}
        assert [op.pass_ for op in step.ops if isinstance(op, MatrixOp) and op.name == "conv"] == [Pass.FF, Pass.WU]
        assert [op.pass_ for op in step.ops if op.name == "half"] == [Pass.FF, Pass.BP]


def test_masks_grids_and_preparation_in_constants_are_no_parameters(tmp_path: Path) -> None:
    shapes = {"mean": (1, 3, 1, 1), "w": (8, 3, 1, 1), "grid": (1, 8, 4, 4), "place": (1, 4, 4), "strides": (1, 4)}
    stored = [
        node("Constant", [], [name], value=numpy_helper.from_array(np.ones(shape, np.float32)))
        for name, shape in shapes.items()
    ]
    nodes = [
        *stored,
        node("Sub", ["x", "mean"], ["x0"]),
        node("Conv", ["x0", "w"], ["c"], "conv"),
        node("Add", ["c", "grid"], ["d"]),
        node("Concat", ["d", "grid"], ["e"], axis=0),
        node("Mul", ["e", "place"], ["f"]),
        node("Concat", ["f", "f"], ["boxes"], axis=1),
        node("Mul", ["boxes", "strides"], ["y"]),
    ]
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (1, 3, 4, 4)}, {}))
    assert [op.name for op in step.ops if isinstance(op, UpdateOp)] == ["w"]
    assert [op.pass_ for op in step.matrix_ops] == [Pass.FF, Pass.WU]
    assert {tensor.name for tensor in step.frozen} == {"mean", "grid", "place", "strides"}


def test_scales_of_a_resize_are_no_parameters(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Resize", ["c", "", "scales"], ["y"])]
    path = save(
        tmp_path / "m.onnx", nodes, {"x": ("N", 3, 4, 4)}, {"w": (8, 3, 1, 1)}, {"scales": np.float32([1, 1, 2, 2])}
    )
    for file in (path, constants(path)):
        assert trained(onnx_workload(file, batch=2)) == [24]


def test_scales_put_together_of_constants(tmp_path: Path) -> None:
    nodes = [
        node("Constant", [], ["one"], value_floats=[1.0, 1.0]),
        node("Constant", [], ["two"], value_floats=[2.0, 3.0]),
        node("Concat", ["one", "two"], ["scales"], axis=0),
        node("Resize", ["x", "", "scales"], ["r"]),
        node("Conv", ["r", "w"], ["y"]),
    ]
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (1, 3, 4, 4)}, {"w": (8, 3, 1, 1)}))
    assert step.dense_macs[Pass.FF] == 8 * 12 * 3 * 8
    assert trained(step) == [24]


def test_a_lone_number_is_a_parameter_as_a_weight_alone(tmp_path: Path) -> None:
    lone, alpha = np.ones((1, 1), np.float32), np.float32(2)
    weight = node("Constant", [], ["w"], value=numpy_helper.from_array(lone))
    nodes = [
        weight,
        node("Transpose", ["w"], ["v"]),
        node("MatMul", ["x", "v"], ["h"]),
        node("Constant", [], ["a"], value=numpy_helper.from_array(alpha)),
        node("Mul", ["m", "a"], ["n"]),
        node("MatMul", ["h", "n"], ["y"]),
    ]
    step = onnx_workload(constants(save(tmp_path / "m.onnx", nodes, {"x": (5, 1)}, {"m": (1, 4)})))
    assert [op.name for op in step.ops if isinstance(op, UpdateOp)] == ["m", "w"]


def test_a_later_use_tells_what_an_earlier_one_is(tmp_path: Path) -> None:
    """The norm's scale is added to the input first, so a gradient flows there, and what is added next is a bias."""
    stored = [node("Constant", [], [name], value=numpy_helper.from_array(np.ones(4, np.float32))) for name in "cd"]
    nodes = [
        *stored,
        node("Add", ["x", "c"], ["e"]),
        node("Add", ["e", "d"], ["f"]),
        node("MatMul", ["f", "w"], ["g"]),
        node("LayerNormalization", ["g", "c"], ["y"]),
    ]
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (3, 4)}, {"w": (4, 4)}))
    assert {op.name for op in step.ops if isinstance(op, UpdateOp)} == {"c", "d", "w"}
    assert [op.pass_ for op in step.matrix_ops] == [Pass.FF, Pass.BP, Pass.WU]


def test_a_slope_a_channel_of_opset_6(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["c"]), node("PRelu", ["c", "s"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"x": (1, 3, 4, 4)}, {"w": (8, 3, 1, 1), "s": (8,)}, opset=6)
    assert trained(onnx_workload(constants(path))) == [8, 24]


def test_a_table_of_places_is_data_beside_a_weight(tmp_path: Path) -> None:
    """Swin V2 makes its position biases of a small table: the layers are trained, the table is not."""
    table = node("Constant", [], ["table"], value=numpy_helper.from_array(np.ones((9, 2), np.float32)))
    nodes = [table, node("MatMul", ["table", "w"], ["b"], "bias"), node("Add", ["x", "b"], ["y"])]
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (9, 4)}, {"w": (2, 4)}))
    assert [(op.pass_, op.parameter) for op in step.matrix_ops] == [(Pass.FF, "w"), (Pass.WU, "w")]
    assert trained(step) == [8]
    second = node("Constant", [], ["v"], value=numpy_helper.from_array(np.ones((4, 5), np.float32)))
    nodes = [
        table,
        second,
        node("MatMul", ["table", "w"], ["b"]),
        node("Relu", ["b"], ["r"]),
        node("MatMul", ["r", "v"], ["s"]),
        node("Add", ["x", "s"], ["y"]),
    ]
    step = onnx_workload(save(tmp_path / "n.onnx", nodes, {"x": (9, 5)}, {"w": (2, 4)}))
    assert trained(step) == [8, 20]


@pytest.mark.parametrize("size", [(4, 3), (80, 64)])
def test_a_weight_of_zeros_made_by_a_node(tmp_path: Path, size: tuple[int, int]) -> None:
    nodes = [node("ConstantOfShape", ["size"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"x": (2, size[0])}, {}, {"size": np.array(size)})
    step = onnx_workload(path)
    other = onnx_workload(save(tmp_path / "n.onnx", nodes[1:], {"x": (2, size[0])}, {"w": size}))
    assert step.ops == other.ops
    nodes[1:] = [node("Transpose", ["w"], ["v"]), node("MatMul", ["x", "v"], ["y"])]
    turned = onnx_workload(save(tmp_path / "t.onnx", nodes, {"x": (2, size[1])}, {}, {"size": np.array(size)}))
    assert trained(turned) == [size[0] * size[1]]


def test_a_state_of_zeros_is_no_weight(tmp_path: Path) -> None:
    """Its size comes from that of the data."""
    nodes = [
        node("Shape", ["x"], ["s"], end=1),
        node("Concat", ["s", "four"], ["t"], axis=0),
        node("ConstantOfShape", ["t"], ["h"]),
        node("MatMul", ["h", "r"], ["hr"]),
        node("MatMul", ["x", "w"], ["xw"]),
        node("Add", ["xw", "hr"], ["z"]),
        node("Mul", ["z", "h"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": (1, 3)}, {"r": (4, 4), "w": (3, 4)}, {"four": np.array([4])})
    assert trained(onnx_workload(path)) == [12, 16]


def test_sparse_and_listed_constants(tmp_path: Path) -> None:
    values = helper.make_tensor("", TensorProto.FLOAT, [2], [1.0, 2.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("", TensorProto.INT64, [2], [0, 7]), [4, 3])
    nodes = [
        node("Constant", [], ["w"], sparse_value=sparse),
        node("MatMul", ["x", "w"], ["m"]),
        node("Constant", [], ["b"], value_floats=[1.0, 2.0, 3.0]),
        node("Add", ["m", "b"], ["y"]),
    ]
    assert trained(onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (2, 4)}, {}))) == [3, 12]


def test_constants_of_files_older_than_ir_4(tmp_path: Path) -> None:
    """There every initializer is listed among the inputs."""
    path = constants(save(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], {"x": ("N", 4)}, {"w": (4, 3)}))
    model = onnx.load(path)
    model.ir_version = 3
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((3,), np.float32), "b"))
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [3]))
    model.graph.node[-1].output[0] = "m"
    model.graph.node.append(node("Add", ["m", "b"], ["y"]))
    onnx.save(model, path)
    step = onnx_workload(path, batch=2)
    assert (trained(step), step.input) == ([3, 12], "2 x 4")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.body = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x).relu()).mean((2, 3)))  # type: ignore[no-any-return]


def net(path: Path) -> Path:
    nodes = [
        node("Conv", ["x", "stem.weight"], ["a"], "stem", pads=[1] * 4),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "body.weight"], ["b"], "body", pads=[1] * 4),
        node("ReduceMean", ["b", "axes"], ["m"], keepdims=0),
        node("Gemm", ["m", "head.weight"], ["y"], "head", transB=1),
    ]
    weights: Weights = {"stem.weight": (8, 3, 3, 3), "body.weight": (8, 8, 3, 3), "head.weight": (5, 8)}
    return save(path, nodes, {"x": ("N", 3, 6, 6)}, weights, {"axes": np.array([2, 3])})


@pytest.mark.parametrize(
    ("freeze", "passes"),
    [
        ([], {"stem": "FF WU", "body": "FF BP WU", "head": "FF BP WU"}),
        (["stem.*"], {"stem": "FF", "body": "FF WU", "head": "FF BP WU"}),
        (["body.weight"], {"stem": "FF WU", "body": "FF BP", "head": "FF BP WU"}),
        (["stem*", "b*"], {"stem": "FF", "body": "FF", "head": "FF WU"}),
        (["[!s]*"], {"stem": "FF WU", "body": "FF BP", "head": "FF BP"}),
    ],
)
def test_freezing_is_one_rule_at_both_doors(tmp_path: Path, freeze: list[str], passes: dict[str, str]) -> None:
    """A product has a WU where its weight is trained and a BP where one before it is; by hand, and as autograd says."""
    module = Net()
    traced = weft.trace(module, torch.empty(2, 3, 6, 6), loss=lambda y: y.sum(), freeze=freeze)
    step = onnx_workload(net(tmp_path / "net.onnx"), batch=2, freeze=freeze)
    for found in (traced, step):
        by_layer: dict[str, list[str]] = {name: [] for name in passes}
        for op in found.matrix_ops:
            by_layer[op.name.split(".")[0]].append(str(op.pass_))
        assert {name: " ".join(sorted(of, key="FF BP WU".index)) for name, of in by_layer.items()} == passes
    assert described(step) == described(traced)
    assert trained(step) == trained(traced)
    assert {(t.name, t.elements) for t in traced.frozen} == {
        (t.name, t.elements) for t in step.frozen if t.name != "axes"
    }
    assert all(parameter.requires_grad for parameter in module.parameters())
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in {layer for layer, found in passes.items() if "WU" in found})
    assert weft.trace(module, torch.empty(2, 3, 6, 6), loss=lambda y: y.sum()).ops == traced.ops


def test_tied_weights_freeze_by_either_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.out = nn.Linear(4, 2, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.two(self.one(x)))  # type: ignore[no-any-return]

    step = weft.trace(Tied(), torch.empty(2, 4), loss=lambda y: y.sum(), freeze=["two.weight"])
    assert trained(step) == [8]


def test_patterns_that_freeze_nothing_or_all_are_refused(tmp_path: Path) -> None:
    path = net(tmp_path / "net.onnx")
    with pytest.raises(InputError, match=r"net\.onnx: no parameter matches 'bodi\.weight': did you mean 'body.weight'"):
        onnx_workload(path, batch=2, freeze=["bodi.weight"])
    with pytest.raises(InputError, match="no parameter is trained"):
        onnx_workload(path, batch=2, freeze=["*"])
    with pytest.raises(InputError, match="no parameter matches 'mean'"):
        onnx_workload(conv_net(tmp_path / "norm.onnx"), batch=2, freeze=["mean"])
    options: dict[str, Any] = {"inputs": torch.empty(2, 3, 6, 6), "loss": lambda y: y.sum()}
    with pytest.raises(InputError, match=r"no parameter matches 'bodi\.weight': did you mean 'body.weight'"):
        weft.trace(Net(), **options, freeze=["bodi.weight"])
    with pytest.raises(InputError, match="no parameter to train, all are frozen"):
        weft.trace(Net(), **options, freeze=["*"])


def test_freezing_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(net(tmp_path / "net.onnx"))
    assert main(["trace", path, "--batch", "2", "--freeze", "stem.*", "--freeze", "b*", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 5 * 8


NO_PRODUCTS = {
    "batch norm": (
        [node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"])],
        (2, 3, 4, 4),
        dict.fromkeys("gbmv", (3,)),
        nn.BatchNorm2d(3),
        torch.empty(2, 3, 4, 4),
    ),
    "embedding": (
        [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("Gather", ["w", "i"], ["y"])],
        (2, 5),
        {"w": (9, 4)},
        nn.Embedding(9, 4),
        torch.zeros(2, 5, dtype=torch.int64),
    ),
}


@pytest.mark.parametrize("kind", NO_PRODUCTS)
def test_a_model_without_a_product_is_refused_at_every_door(tmp_path: Path, kind: str) -> None:
    nodes, shape, weights, module, inputs = NO_PRODUCTS[kind]
    said = "multiplies no matrices, so there is nothing to place on an array"
    with pytest.raises(InputError, match=said):
        onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": shape}, weights))
    with pytest.raises(InputError, match=said):
        weft.trace(module, inputs, loss=lambda y: y.sum())
    path = tmp_path / "m.json"
    path.write_text(
        '{"schema": 1, "model": "m", "batch": 1, "ops": [{"kind": "update", "name": "w", "elements": 4, '
        '"dense_copy": true, "copies": []}]}'
    )
    with pytest.raises(InputError, match=said):
        weft.trace(path)


def test_gradients_pass_straight_through_a_quantisation(tmp_path: Path) -> None:
    arrays = {"w": np.zeros((4, 3), np.float32), "scale": np.float32(1), "zero": np.int8(0)}
    nodes = [
        node("QuantizeLinear", ["w", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        node("MatMul", ["x", "d"], ["y"]),
    ]
    model = onnx.load(save(tmp_path / "m.onnx", nodes, {"x": (2, 4)}, {}, arrays))
    graph, _ = at_batch(store(model), None, as_written, lambda _: ())
    assert [one.op for one in graph.backward] == ["MatMul", "DequantizeLinear", "QuantizeLinear"]
    assert [tensor.name for tensor in graph.backward[-1].differentiated] == ["w"]


@pytest.mark.parametrize("stored", ["initializer", "constant"])
def test_a_quantised_weight_is_a_parameter_and_its_scales_are_not(tmp_path: Path, stored: str) -> None:
    arrays = {"q": np.zeros((4, 3), np.int8), "scale": np.ones(3, np.float32), "zero": np.zeros(3, np.int8)}
    nodes = [node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=1), node("MatMul", ["x", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"x": (2, 4)}, {}, arrays)
    model = onnx.load(path if stored == "initializer" else constants(path))
    graph, _ = at_batch(store(model), None, as_written, lambda _: ())
    product = graph.nodes[-1]
    assert [tensor.parameter for tensor in product.ins if tensor] == [None, "q"]
    assert [tensor.name for tensor in graph.backward[-1].differentiated] == ["q"]


class Broadcast(nn.Module):
    """A weight for each head, the same for every sample; a projection from the left."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(5, 6))
        self.heads = nn.Parameter(torch.empty(1, 4, 3, 7))

    def forward(self, x: Tensor) -> Tensor:
        return (self.left @ x) @ self.heads  # type: ignore[no-any-return]


def test_the_gradient_of_a_repeated_weight_is_added_up(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["left", "x"], ["h"], "left"), node("MatMul", ["h", "heads"], ["y"], "heads")]
    path = save(tmp_path / "m.onnx", nodes, {"x": ("N", 4, 6, 3)}, {"left": (5, 6), "heads": (1, 4, 3, 7)})
    step = onnx_workload(path, batch=2)
    traced = weft.trace(Broadcast(), torch.empty(2, 4, 6, 3), loss=lambda y: y.sum())
    assert step.dense_macs == traced.dense_macs
    assert trained(step) == trained(traced)
    sums = {
        (op.name, op.pass_): (op.read_bytes, op.write_bytes)
        for op in step.ops
        if isinstance(op, VectorOp) and op.op == "ReduceSum"
    }
    assert sums == {
        ("heads", Pass.WU): (2 * 4 * 3 * 7 * 4, 4 * 3 * 7 * 4),
        ("left", Pass.WU): (8 * 5 * 6 * 4, 5 * 6 * 4),
    }


@settings(max_examples=15)
@given(chains(), st.data())
def test_what_is_frozen_takes_its_gradients_along(chain: Any, data: st.DataObject) -> None:
    """Layers in a row: a weight has a WU if it is trained, a layer a BP if one before it is."""
    nodes, arrays = chain
    stored = {name: value for name, value in arrays.items() if name != "x"}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        save(path, nodes, {"x": arrays["x"].shape}, {}, stored, outputs=(nodes[-1].output[0],))
        if (full := outcome(path)) is None:
            return
        names = sorted(op.name for op in full[0] if isinstance(op, UpdateOp))
        frozen = data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 1))
        step = onnx_workload(path, freeze=sorted(frozen))
    at = {name: index for index, one in enumerate(nodes) for name in one.input}
    first = min(at[name] for name in names if name not in frozen)
    order = {one.name: index for index, one in enumerate(nodes)}
    # The state of a recurrence comes from its own steps before.
    states = {one.input[2] for one in nodes if one.op_type == "LSTM"}
    kept = [
        op
        for op in full[0]
        if isinstance(op, MatrixOp)
        if op.pass_ is Pass.FF
        or (op.pass_ is Pass.WU and op.parameter not in frozen)
        or (op.pass_ is Pass.BP and order[op.name] + (op.parameter in states) > first)
    ]
    assert list(step.matrix_ops) == kept
    assert {op.name for op in step.ops if isinstance(op, UpdateOp)} == set(names) - frozen


def test_a_product_of_parameters_without_names_of_modules_says_what_it_is_taken_for(tmp_path):
    """A learned query through a projection, or two factors of a weight: without names nobody can tell."""
    stored = {"q": (8, 6), "wq": (6, 4)}
    made = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["q", "wq"], ["query"], name="p"),
            onnx.helper.make_node("MatMul", ["x", "query"], ["y"], name="s"),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 4])],
        [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in stored.items()],
    )
    onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "flat.onnx")

    (said,) = onnx_workload(tmp_path / "flat.onnx").assumed

    assert said.startswith("p: of parameters alone, and no name tells a layer")
