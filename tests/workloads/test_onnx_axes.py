"""The batch of recurrent ONNX networks: the rows of the product of the state, wherever an input has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.onnx import onnx_workload

STEPS, BATCH, WIDTH, HIDDEN = 5, 3, 4, 6
node = helper.make_node


def cell(x: str, *more: str, kind: str = "LSTM", **attributes: Any) -> Any:
    return node(kind, [x, "wi", "wr", *more], ["y"], name="cell", hidden_size=HIDDEN, **attributes)


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
NETWORKS: dict[str, tuple[list[Any], dict[str, tuple[int, list[int]]]]] = {
    "steps first": ([cell("x")], {"x": (FLOAT, [STEPS, BATCH, WIDTH])}),
    "words": ([node("Gather", ["table", "x"], ["e"]), cell("e")], {"x": (INT64, [STEPS, BATCH])}),
    "batch first by layout": ([cell("x", layout=1)], {"x": (FLOAT, [BATCH, STEPS, WIDTH])}),
    "batch first by a transpose": (
        [node("Gather", ["table", "x"], ["e"]), node("Transpose", ["e"], ["t"], perm=[1, 0, 2]), cell("t")],
        {"x": (INT64, [BATCH, STEPS])},
    ),
    "lines of an image": (
        [
            node("Conv", ["x", "k"], ["c"], kernel_shape=[3, 3], pads=[0, 1, 0, 1]),
            node("Squeeze", ["c", "two"], ["s"]),
            node("Transpose", ["s"], ["t"], perm=[2, 0, 1]),
            cell("t", kind="RNN"),
        ],
        {"x": (FLOAT, [BATCH, 1, 3, STEPS])},
    ),
    "reshaped": ([node("Reshape", ["x", "shape"], ["r"]), cell("r")], {"x": (FLOAT, [STEPS, BATCH, 2, WIDTH // 2])}),
    "state of two": (
        [node("MatMul", ["x", "square"], ["e"]), cell("e", "", "", "h0", "c0")],
        {"x": (FLOAT, [STEPS, BATCH, WIDTH]), "h0": (FLOAT, [1, BATCH, HIDDEN]), "c0": (FLOAT, [1, BATCH, HIDDEN])},
    ),
    "known by its state alone": (
        [node("Reshape", ["x", "written"], ["r"]), cell("r", "", "", "h0", "c0")],
        {"h0": (FLOAT, [1, BATCH, HIDDEN]), "c0": (FLOAT, [1, BATCH, HIDDEN]), "x": (FLOAT, [BATCH, STEPS * WIDTH])},
    ),
}


def save(path: Path, name: str, free: str = "") -> Path:
    """The network with its batch written down, or under the name ``free`` in every input."""
    nodes, inputs = NETWORKS[name]
    gates = 1 if any(each.op_type == "RNN" for each in nodes) else 4
    weights = {
        "wi": (1, gates * HIDDEN, WIDTH),
        "wr": (1, gates * HIDDEN, HIDDEN),
        "table": (9, WIDTH),
        "square": (WIDTH, WIDTH),
        "k": (WIDTH, 1, 3, 3),
    }
    numbers = {"two": [2], "shape": [0, 0, -1], "written": [STEPS, BATCH, WIDTH]}
    stored = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    stored += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    shown = {name: [free if free and size == BATCH else size for size in shape] for name, (_, shape) in inputs.items()}
    if name == "lines of an image":
        shown["x"][2] = 3
    values = [helper.make_tensor_value_info(name, kind, shown[name]) for name, (kind, _) in inputs.items()]
    graph = helper.make_graph(nodes, "g", values, [helper.make_tensor_value_info("y", FLOAT, None)], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_the_batch_is_the_rows_of_the_product_of_the_state(tmp_path: Path, name: str) -> None:
    step = onnx_workload(save(tmp_path / "m.onnx", name))
    states = {op.gemm.m for op in step.matrix_ops if op.name == "cell" and op.pass_ is Pass.FF and op.gemm.k == HIDDEN}
    assert states == {BATCH} and step.batch == BATCH


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "known by its state alone"])
def test_a_free_batch_is_set_where_it_is(tmp_path: Path, name: str) -> None:
    """Seven samples do seven times the work of one, in as many steps."""
    path = save(tmp_path / "m.onnx", name, free="N")
    steps = {size: onnx_workload(path, batch=size) for size in (1, 7)}
    for size, step in steps.items():
        assert (
            step.batch == size and sum(op.gemm.k == HIDDEN and op.pass_ is Pass.FF for op in step.matrix_ops) == STEPS
        )
    assert {p: 7 * macs for p, macs in steps[1].dense_macs.items()} == steps[7].dense_macs
    with pytest.raises(InputError, match="batch dimension 'N' of input 'x' is symbolic"):
        onnx_workload(path)


def test_another_batch_than_the_file_has_is_refused_with_the_one_it_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"batch {STEPS} given, but the file fixes it at {BATCH}"):
        onnx_workload(save(tmp_path / "m.onnx", "words"), batch=STEPS)
