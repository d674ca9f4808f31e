"""Operators as every opset from 7 on writes them: by attributes once, by inputs later, one count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from weft.workloads.errors import InputError
from weft.workloads.onnx import onnx_workload

from .test_onnx import save

OPSETS = range(7, onnx.defs.onnx_opset_version() + 1)


class Written:
    """Nodes of a graph that goes from ``x`` to ``h`` in some opset, and the constants they are fed."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def node(self, op: str, ins: Sequence[str], out: str | Sequence[str], **attributes: Any) -> None:
        outs = [out] if isinstance(out, str) else list(out)
        self.nodes.append(helper.make_node(op, list(ins), outs, name=outs[0], **attributes))

    def told(self, op: str, since: int, x: str, out: str | Sequence[str], more: Any = None, **by: Any) -> None:
        """A node that is told ``by`` inputs since an opset, before by attributes; ``more`` stay attributes."""
        if self.opset < since:
            self.node(op, [x], out, **by, **(more or {}))
            return
        fed = []
        for name, value in by.items():
            if value is None:
                fed.append("")
                continue
            fed.append(f"{op}_{len(self.constants)}_{name}")
            dtype = np.float32 if isinstance(np.ravel(value)[0], float) else np.int64
            self.constants[fed[-1]] = np.array(value, dtype)
        self.node(op, [x, *fed], out, **(more or {}))


def squeeze(net: Written) -> None:
    net.told("Unsqueeze", 13, "x", "u", axes=[1])
    net.told("Squeeze", 13, "u", "h", axes=[1])


def slice_(net: Written) -> None:
    net.told("Slice", 10, "x", "h", starts=[0, 2], ends=[4, 6], axes=[2, 3])


def reduce_sum(net: Written) -> None:
    net.told("ReduceSum", 13, "x", "h", axes=[3], more={"keepdims": 0})


def reduce_mean(net: Written) -> None:
    net.told("ReduceMean", 18, "x", "h", axes=[2, 3], more={"keepdims": 1})


def split(net: Written) -> None:
    net.told("Split", 13, "x", ("a", "b"), split=[1, 2], more={"axis": 1})
    net.node("Concat", ["b", "a", "b"], "h", axis=1)


def pad(net: Written) -> None:
    by = {"value": 0.0} if net.opset < 11 else {"constant_value": 0.0}
    net.told("Pad", 11, "x", "h", pads=[0, 0, 1, 1, 0, 0, 1, 1], **by)


def clip(net: Written) -> None:
    net.told("Clip", 11, "x", "h", min=0.0, max=6.0)


def resize(net: Written) -> None:
    scales = [1.0, 1.0, 2.0, 2.0]
    if net.opset < 10:
        net.told("Upsample", 9, "x", "h", scales=scales, more={"mode": "nearest"})
    elif net.opset == 10:
        net.told("Resize", 10, "x", "h", scales=scales)
    else:
        net.told("Resize", 11, "x", "h", roi=[0.0] * 8, scales=scales)


def dropout(net: Written) -> None:
    net.told("Dropout", 12, "x", "h", ratio=0.5)


def top_k(net: Written) -> None:
    net.told("TopK", 10, "x", ("h", "index"), k=[4] if net.opset >= 10 else 4)


def batch_norm(net: Written) -> None:
    for name in ("scale", "shift", "mean", "var"):
        net.constants[name] = np.ones(3, np.float32)
    net.node("BatchNormalization", ["x", "scale", "shift", "mean", "var"], "h", epsilon=1e-5)


def view(net: Written) -> None:
    """``x.view(x.size(0), -1)`` as PyTorch writes it."""
    net.constants["zero"] = np.array(0, np.int64)
    net.constants["minus"] = np.array([-1], np.int64)
    net.node("Shape", ["x"], "s")
    net.node("Gather", ["s", "zero"], "s0", axis=0)
    net.told("Unsqueeze", 13, "s0", "s1", axes=[0])
    net.node("Concat", ["s1", "minus"], "target", axis=0)
    net.node("Reshape", ["x", "target"], "h")


def computed(net: Written) -> None:
    """A target that is sliced, reduced, split and squeezed out of a shape."""
    net.node("Shape", ["x"], "s")
    net.told("Slice", 10, "s", "rest", starts=[1], ends=[4], axes=[0])
    net.told("ReduceSum", 13, "rest", "sum", axes=[0], more={"keepdims": 1})
    net.node("Sub", ["sum", "sum"], "none")
    net.told("Split", 13, "rest", ("c", "hw"), split=[1, 2], more={"axis": 0})
    # Before opset 18 the axes of the operator are an attribute.
    net.told("ReduceProd", 18, "hw", "area", axes=[0], more={"keepdims": 0})
    net.told("Unsqueeze", 13, "area", "pixels", axes=[0])
    net.node("Concat", ["none", "c", "pixels"], "target", axis=0)
    net.node("Reshape", ["x", "target"], "h")


@pytest.mark.parametrize(
    ("write", "rows", "deep"),
    [
        # Of x, 2 x 3 x 8 x 8: elements of h by its last axis.
        (squeeze, 48, 8),
        (slice_, 24, 4),
        (reduce_sum, 6, 8),
        (reduce_mean, 6, 1),
        (split, 80, 8),
        (pad, 60, 10),
        (clip, 48, 8),
        (resize, 96, 16),
        (dropout, 48, 8),
        (top_k, 48, 4),
        (batch_norm, 48, 8),
        (view, 2, 192),
        (computed, 6, 64),
    ],
)
def test_every_opset_counts_alike(tmp_path: Path, write: Callable[[Written], None], rows: int, deep: int) -> None:
    counts = set()
    for opset in OPSETS:
        net = Written(opset)
        write(net)
        net.node("MatMul", ["h", "w"], "y")
        path = save(
            tmp_path / f"{opset}.onnx", net.nodes, {"x": ("N", 3, 8, 8)}, {"w": (deep, 5)}, net.constants, opset=opset
        )
        step = onnx_workload(path, batch=2)
        counts.add(tuple(sorted((str(pass_), macs) for pass_, macs in step.dense_macs.items())))
    # The input needs no gradient, unless a norm in front has parameters.
    backward = rows * deep * 5 if write is batch_norm else 0
    assert counts == {(("BP", backward), ("FF", rows * deep * 5), ("WU", rows * deep * 5))}


def test_what_decides_a_shape_and_cannot_be_computed_is_named(tmp_path: Path) -> None:
    """Not swallowed: nothing else would say why the shape behind it is not known."""
    net = Written(12)
    net.constants.update(many=np.array([5000], np.int64))
    net.node("ConstantOfShape", ["many"], "zeros", value=helper.make_tensor("v", onnx.TensorProto.INT64, [1], [1]))
    net.node("ReduceMax", ["zeros"], "target", keepdims=1)
    net.node("Reshape", ["x", "target"], "h")
    net.node("MatMul", ["h", "w"], "y")
    path = save(tmp_path / "bad.onnx", net.nodes, {"x": (2, 3, 8, 8)}, {"w": (8, 5)}, net.constants, opset=12)
    said = r"node 'zeros' \(ConstantOfShape\) decides a shape, but its value cannot be computed: 5,000 elements"
    with pytest.raises(InputError, match=said):
        onnx_workload(path)
