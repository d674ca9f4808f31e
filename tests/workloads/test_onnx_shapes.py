"""Shapes of an ONNX graph: those that onnx.reference computes, and what contradicts itself or its batch is refused."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from weft.workloads.errors import InputError, reading
from weft.workloads.onnx.batch import at_batch
from weft.workloads.onnx.constants import store
from weft.workloads.onnx.file import require_attributes
from weft.workloads.onnx.folding import Folding, fold

from ..examples_drawn import examples

node = helper.make_node
Arrays = dict[str, Any]


def model_of(nodes: list[Any], fed: str, stored: Arrays, opset: int = 20) -> Any:
    """A model that is fed ``stored[fed]`` and gives out everything it makes."""
    kind = helper.np_dtype_to_tensor_dtype(stored[fed].dtype)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(fed, kind, list(stored[fed].shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for one in nodes for name in one.output],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items() if name != fed],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


DOES_NOT_FIT = (ValueError, IndexError, TypeError, RuntimeError)
"""What the reference raises where shapes do not fit: what NumPy raises, wrapped or not, and RuntimeErrors of its own.
An operator that it does not have, or a fault of it, is another error, and fails the test."""


def by_reference(model: Any, fed: str, stored: Arrays) -> dict[str, tuple[int, ...]] | None:
    """Shapes of what ``onnx.reference`` computes of zeros, None where it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = ReferenceEvaluator(model).run(None, {fed: stored[fed]})
        except NotImplementedError:
            # A RuntimeError to Python.
            raise
        except DOES_NOT_FIT:
            return None
    return {out.name: value.shape for out, value in zip(model.graph.output, found, strict=True)}


def as_written(_: Any, batch: int | None) -> int:
    """Leaves the sizes of a graph as they are."""
    return batch or 1


def by_import(model: Any) -> dict[str, tuple[int, ...]] | None:
    """Shapes as they are imported, None where the graph is refused."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    try:
        with reading("the graph", "one that ONNX allows"):
            require_attributes(copied)
            graph, _ = at_batch(store(copied), None, as_written, lambda _: ())
    except InputError:
        return None
    return {tensor.name: tensor.shape for one in graph.nodes for tensor in one.outs}


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def listed(*values: int) -> Any:
    return np.array(values, np.int64)


CASES: dict[str, tuple[Any, Arrays, int]] = {}


def case(
    name: str, op: str, ins: str, /, opset: int = 20, outs: str = "y", attributes: Any = None, **arrays: Any
) -> None:
    named = ["" if one == "-" else one for one in ins.split()]
    CASES[name] = node(op, named, outs.split(), "n", **(attributes or {})), arrays, opset


case("conv", "Conv", "x w b", x=zeros(2, 4, 6, 6), w=zeros(6, 4, 3, 3), b=zeros(6))
case("grouped", "Conv", "x w b", attributes={"group": 2}, x=zeros(2, 4, 6, 6), w=zeros(6, 2, 3, 3), b=zeros(6))
case("kernel", "Conv", "x w", attributes={"kernel_shape": [3, 3]}, x=zeros(2, 4, 6, 6), w=zeros(6, 4, 3, 3))
case("line", "Conv", "x w", attributes={"strides": [2]}, x=zeros(2, 4, 9), w=zeros(6, 4, 3))
case("up", "ConvTranspose", "x w b", x=zeros(1, 4, 6, 6), w=zeros(4, 3, 3, 3), b=zeros(3))
case("gemm", "Gemm", "x w b", x=zeros(2, 4), w=zeros(4, 6), b=zeros(6))
case("gemm turned", "Gemm", "x w b", attributes={"transB": 1}, x=zeros(2, 4), w=zeros(6, 4), b=zeros(6))
case("matmul", "MatMul", "x w", x=zeros(3, 2, 4), w=zeros(4, 6))
case("matmuls", "MatMul", "x w", x=zeros(3, 2, 4), w=zeros(3, 4, 6))
case("einsum", "Einsum", "x w", attributes={"equation": "bij,bjk->bik"}, x=zeros(3, 2, 4), w=zeros(3, 4, 6))
case("batch norm", "BatchNormalization", "x g b m v", x=zeros(2, 4, 3), **dict.fromkeys("gbmv", zeros(4)))
case("instance norm", "InstanceNormalization", "x g b", x=zeros(2, 4, 3, 3), g=zeros(4), b=zeros(4))
case("layer norm", "LayerNormalization", "x g b", attributes={"axis": -1}, x=zeros(2, 4, 5), g=zeros(5), b=zeros(5))
case(
    "group norm",
    "GroupNormalization",
    "x g b",
    21,
    attributes={"num_groups": 2},
    x=zeros(2, 4, 5),
    g=zeros(4),
    b=zeros(4),
)
case("rms norm", "RMSNormalization", "x g", 23, attributes={"axis": -1}, x=zeros(2, 4, 5), g=zeros(5))
case("prelu", "PRelu", "x s", x=zeros(2, 4, 5, 5), s=zeros(4, 1, 1))
case("add", "Add", "x w", x=zeros(2, 4, 5), w=zeros(4, 5))
case("sum", "Sum", "x w", x=zeros(5, 3), w=zeros(5, 3))
case("concat", "Concat", "x w", attributes={"axis": 1}, x=zeros(2, 4, 5), w=zeros(2, 3, 5))
case("split", "Split", "x s", outs="y z", attributes={"axis": 1}, x=zeros(2, 4, 5), s=listed(1, 3))
case("halves", "Split", "x", 11, outs="y z", attributes={"axis": 1, "split": [1, 3]}, x=zeros(2, 4, 5))
case("reshape", "Reshape", "x s", x=zeros(2, 4, 6), s=listed(2, 24))
case("reshape rest", "Reshape", "x s", x=zeros(2, 4, 6), s=listed(0, -1, 3))
case("depth to space", "DepthToSpace", "x", attributes={"blocksize": 2}, x=zeros(2, 8, 3, 3))
case("space to depth", "SpaceToDepth", "x", attributes={"blocksize": 2}, x=zeros(2, 2, 4, 6))
case("expand", "Expand", "x s", x=zeros(2, 1, 6), s=listed(2, 4, 6))
case("tile", "Tile", "x s", x=zeros(2, 1, 6), s=listed(1, 4, 1))
case("pad", "Pad", "x s", x=zeros(2, 3, 6), s=listed(2, 2, 2, 2, 2, 2))
case("slice", "Slice", "x a b c", x=zeros(2, 3, 6), a=listed(1), b=listed(4), c=listed(2))
case("squeeze", "Squeeze", "x a", x=zeros(2, 1, 6), a=listed(1))
case("unsqueeze", "Unsqueeze", "x a", x=zeros(2, 1, 6), a=listed(1))
case("transpose", "Transpose", "x", attributes={"perm": [0, 2, 1]}, x=zeros(2, 1, 6))
case("gather", "Gather", "w x", w=zeros(5, 6), x=np.zeros((2, 3), np.int64))
case(
    "gather elements",
    "GatherElements",
    "w x",
    attributes={"axis": 1},
    w=zeros(2, 5, 3),
    x=np.zeros((2, 4, 3), np.int64),
)
case("resize", "Resize", "x - s", x=zeros(2, 5, 3, 3), s=np.float32([1, 1, 2, 2]))
case("resize to", "Resize", "x - - s", x=zeros(2, 5, 3, 3), s=listed(2, 5, 6, 6))
case("max pool", "MaxPool", "x", attributes={"kernel_shape": [3, 3]}, x=zeros(2, 5, 3, 3))
case("average pool", "AveragePool", "x", attributes={"kernel_shape": [3, 3], "pads": [1] * 4}, x=zeros(2, 5, 3, 3))
case("flatten", "Flatten", "x", x=zeros(2, 5, 3, 3))
case("mean", "ReduceMean", "x a", attributes={"keepdims": 0}, x=zeros(2, 5, 3, 3), a=listed(2, 3))
case("pool all", "GlobalAveragePool", "x", x=zeros(2, 5, 3, 3))
for kind, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    case(
        kind,
        kind,
        "x w r b - h",
        attributes={"hidden_size": 6},
        x=zeros(5, 3, 4),
        w=zeros(1, 6 * gates, 4),
        r=zeros(1, 6 * gates, 6),
        b=zeros(1, 12 * gates),
        h=zeros(1, 3, 6),
    )

MADE_UP = {"reshape", "expand", "split", "resize to"}
"""Cases whose list is a shape, so that any other numbers in it are another shape."""

ANY = {"average pool", "flatten", "gather", "matmul", "mean", "pool all", "tile"}
"""Cases in which every change makes another graph that can be computed."""


def test_every_operator_has_the_shapes_of_the_reference() -> None:
    for name, (one, arrays, opset) in CASES.items():
        model = model_of([one], "x", arrays, opset)
        assert by_import(model) == by_reference(model, "x", arrays), name


def corrupted(name: str) -> Iterator[tuple[str, Arrays]]:
    """Every input of a case with one dimension changed, an axis more or less; lists of sizes with one entry changed."""
    _, arrays, _ = CASES[name]
    for key, value in arrays.items():
        others = []
        for axis, size in enumerate(value.shape):
            for other in {size - 1, size + 1, 2 * size} - {0}:
                others.append(np.resize(value, (*value.shape[:axis], other, *value.shape[axis + 1 :])))
        if key == "s" and name in MADE_UP:
            others += [value + change for change in np.eye(len(value), dtype=np.int64)]
        for other in (*others, value[None]):
            yield f"{name}: {key} {value.shape} -> {other.shape}", {**arrays, key: other}


@pytest.mark.parametrize("name", CASES)
def test_what_the_reference_cannot_compute_is_refused(name: str) -> None:
    one, _, opset = CASES[name]
    refused = 0
    for what, arrays in corrupted(name):
        model = model_of([one], "x", arrays, opset)
        expected, found = by_reference(model, "x", arrays), by_import(model)
        if name == "gather elements" and expected is None and arrays["w"].ndim == arrays["x"].ndim:
            # Elsewhere an index may be smaller than the data along the other axes too.
            continue
        refused += found is None
        assert found is None or found == expected, what
    assert refused or name in ANY


class Chain:
    """Layers one after the other, whose weights fit, over images of ``batch`` x ``channels`` x ``size`` x ``size``."""

    def __init__(self, batch: int, channels: int, size: int) -> None:
        self.batch, self.channels, self.size = batch, channels, size
        self.arrays: Arrays = {"x": zeros(batch, channels, size, size)}
        self.nodes: list[Any] = []
        self.last = "x"

    def add(self, op: str, *stored: Any, outs: int = 1, twice: bool = False, **attributes: Any) -> None:
        """One node more; ``twice``: what comes before is its second input too."""
        names = [self.last] * (1 + twice)
        for value in stored:
            names.append("" if value is None else f"s{len(self.arrays)}")
            if value is not None:
                self.arrays[names[-1]] = value
        made = [f"n{len(self.nodes)}_{i}" for i in range(outs)]
        self.nodes.append(node(op, names, made, f"n{len(self.nodes)}", **attributes))
        self.last = made[0]


def conv(chain: Chain, width: int) -> None:
    chain.add("Conv", zeros(width, chain.channels // 4, 3, 3), zeros(width), group=4, pads=[1] * 4)
    chain.channels = width


def strided(chain: Chain, width: int) -> None:
    chain.add("Conv", zeros(width, chain.channels, 1, 1), strides=[2, 2])
    chain.channels, chain.size = width, -(-chain.size // 2)


def upwards(chain: Chain, width: int) -> None:
    chain.add("ConvTranspose", zeros(chain.channels, width, 2, 2), strides=[2, 2])
    chain.channels, chain.size = width, 2 * chain.size


def normal(chain: Chain, _: int) -> None:
    chain.add("BatchNormalization", *[zeros(chain.channels) for _ in range(4)])
    chain.add("PRelu", zeros(chain.channels, 1, 1))
    chain.add("InstanceNormalization", zeros(chain.channels), zeros(chain.channels))


def pooled(chain: Chain, _: int) -> None:
    chain.add("Pad", listed(0, 0, 1, 1, 0, 0, 1, 1))
    chain.add("MaxPool", kernel_shape=[3, 3])
    chain.add("AveragePool", kernel_shape=[1, 1])


def blocks(chain: Chain, _: int) -> None:
    chain.add("DepthToSpace", blocksize=2)
    chain.add("SpaceToDepth", blocksize=2)
    chain.add("Resize", None, np.float32([1, 1, 2, 2]))
    chain.size *= 2


def parted(chain: Chain, _: int) -> None:
    half = chain.channels // 2
    chain.add("Split", listed(half, half), outs=2, axis=1)
    chain.add("Slice", listed(0), listed(half), listed(1))
    chain.add("Concat", twice=True, axis=1)


def linear(chain: Chain, width: int) -> None:
    chain.add("MatMul", zeros(chain.channels, width))
    chain.add("Add", zeros(width))
    chain.channels = width


def layer_norm(chain: Chain, _: int) -> None:
    chain.add("LayerNormalization", zeros(chain.channels), zeros(chain.channels), axis=-1)


def heads(chain: Chain, _: int) -> None:
    tokens, each = chain.size**2, chain.channels // 4
    chain.add("Reshape", listed(0, 0, 4, each))
    chain.add("Transpose", perm=[0, 2, 1, 3])
    chain.add("MatMul", zeros(1, 4, each, tokens))
    chain.add("MatMul", zeros(1, 4, tokens, each))
    chain.add("Transpose", perm=[0, 2, 1, 3])
    chain.add("Reshape", listed(chain.batch, tokens, chain.channels))


def memory(chain: Chain, width: int) -> None:
    chain.add("Transpose", perm=[1, 0, 2])
    chain.add(
        "LSTM", zeros(1, 4 * width, chain.channels), zeros(1, 4 * width, width), zeros(1, 8 * width), hidden_size=width
    )
    chain.add("Squeeze", listed(1))
    chain.add("Transpose", perm=[1, 0, 2])
    chain.channels = width


def flat(chain: Chain, width: int) -> None:
    chain.add("Reshape", listed(-1, chain.channels))
    chain.add("Gemm", zeros(width, chain.channels), zeros(width), transB=1)
    chain.add("Unsqueeze", listed(0))
    chain.add("Reshape", listed(chain.batch, chain.size**2, width))
    chain.channels = width


@st.composite
def chains(draw: st.DrawFn, most: int = 3) -> tuple[list[Any], Arrays]:
    """Layers over an image, then over its pixels as tokens."""
    number = st.integers(1, 3)
    chain = Chain(draw(st.integers(1, most)), 4 * draw(number), 4)
    over_images = st.sampled_from([conv, strided, upwards, normal, pooled, blocks, parted])
    over_tokens = st.sampled_from([linear, layer_norm, heads, memory, flat])
    for layer in draw(st.lists(over_images, max_size=4)):
        layer(chain, 4 * draw(number))
    chain.add("Reshape", listed(chain.batch, chain.channels, chain.size**2))
    chain.add("Transpose", perm=[0, 2, 1])
    for layer in draw(st.lists(over_tokens, max_size=4)):
        layer(chain, 4 * draw(number))
    return chain.nodes, chain.arrays


def check_chain(nodes: list[Any], arrays: Arrays) -> None:
    model = model_of(nodes, "x", arrays)
    found = by_import(model)
    assert found is not None
    assert found == by_reference(model, "x", arrays)


def check_corrupted(nodes: list[Any], arrays: Arrays, data: st.DataObject) -> None:
    """One dimension of one tensor, or one number of one list of sizes, is another."""
    name = data.draw(st.sampled_from(sorted(arrays)))
    value = arrays[name]
    if value.dtype == np.int64 and data.draw(st.booleans()):
        value = value.copy()
        value[data.draw(st.integers(0, len(value) - 1))] += data.draw(st.integers(1, 3))
    else:
        axis = data.draw(st.integers(0, value.ndim - 1))
        size = data.draw(st.integers(1, 9).filter(lambda size: size != value.shape[axis]))
        value = np.resize(value, (*value.shape[:axis], size, *value.shape[axis + 1 :]))
    changed = {**arrays, name: value}
    model = model_of(nodes, "x", changed)
    found = by_import(model)
    assert found is None or found == by_reference(model, "x", changed)


@settings(max_examples=20)
@given(chains())
def test_chains_of_layers_have_the_shapes_of_the_reference(chain: tuple[list[Any], Arrays]) -> None:
    check_chain(*chain)


@settings(max_examples=examples(40))
@given(chains(), st.data())
def test_corrupted_chains_are_refused_or_computed(chain: tuple[list[Any], Arrays], data: st.DataObject) -> None:
    check_corrupted(*chain, data)


@pytest.mark.slow
@settings(max_examples=examples(600))
@given(chains(), st.data())
def test_many_chains(chain: tuple[list[Any], Arrays], data: st.DataObject) -> None:
    check_chain(*chain)
    check_corrupted(*chain, data)


@pytest.mark.parametrize("op", ["Add", "Less", "And", "Pow", "Max"])
def test_what_stretches_is_bounded_before_it_is_computed(op: str) -> None:
    """A mask of all places with all places took seconds and the memory for it, only to be thrown away."""
    kind = bool if op == "And" else np.int64
    ins = {"a": np.ones((4096, 1), kind), "b": np.ones((1, 4096), kind)}
    made = helper.make_graph([node(op, ["a", "b"], ["y"], "n")], "g", [], [])
    with pytest.raises(InputError, match="16,777,216 elements; at most 4,096 are computed"):
        fold(made, dict(ins), {}, Folding(20, asked={"y"}))
    square = {name: np.ones((64, 64), kind) for name in ins}
    assert fold(made, square, {}, Folding(20, asked={"y"})) and square["y"].shape == (64, 64)


@pytest.mark.parametrize(("op", "ins"), [("Conv", ["x", "w"]), ("MaxPool", ["x"]), ("AveragePool", ["x"])])
@pytest.mark.parametrize(
    ("given", "fits"), [({}, False), ({"pads": [1, 0, 0, 0]}, True), ({"dilations": [2, 1]}, False)]
)
def test_a_window_has_room(op: str, ins: list[str], given: dict[str, Any], fits: bool) -> None:
    """Kernels of 5 rows at 4, stride 2: by ONNX's inference one result, as (4 - 5) / 2 is none when it is rounded."""
    arrays = {"x": np.zeros((1, 4, 4, 4), np.float32), "w": np.zeros((4, 4, 5, 1), np.float32)}
    one = node(op, ins, ["y"], "n", strides=[2, 2], kernel_shape=[5, 1], **given)
    model = model_of([one], "x", {name: arrays[name] for name in ins})
    found = by_import(model)
    assert (found is not None) == fits
    assert found is None or found == {"y": (1, 4, 1, 2)}
