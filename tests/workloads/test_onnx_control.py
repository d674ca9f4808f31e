"""Control flow of ONNX whose course is known is the nodes that run; what data decides is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from weft.workloads.errors import InputError
from weft.workloads.onnx import onnx_workload
from weft.workloads.onnx.control import MOST_TURNS

from .test_onnx import described, save, trained

_FLOAT, _INT, _BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def body(nodes: list[Any], ins: dict[str, int], outs: dict[str, int], *stored: Any) -> Any:
    def values(names: dict[str, int]) -> list[Any]:
        return [helper.make_tensor_value_info(name, kind, None) for name, kind in names.items()]

    return helper.make_graph(nodes, "body", values(ins), values(outs), list(stored))


def weight(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


def product(x: str, w: str, y: str) -> Any:
    return helper.make_node("MatMul", [x, w], [y], name=y)


@pytest.mark.parametrize(("rank", "expected"), [(4, 2 * 8 * 5), (8, 2 * 8 * 5 + 2 * 5 * 3)])
def test_a_condition_that_a_size_decides(tmp_path: Path, rank: int, expected: int) -> None:
    """As PyTorch writes a squeeze of an axis that may be longer; the branch not taken could not be."""
    taken = body(
        [product("h", "w2", "z"), helper.make_node("Relu", ["z"], ["a"])], {}, {"a": _FLOAT}, weight("w2", 5, 3)
    )
    other = body([helper.make_node("Squeeze", ["h", "zero"], ["b"])], {}, {"b": _FLOAT})
    if rank == 4:
        other = body([helper.make_node("Identity", ["h"], ["b"])], {}, {"b": _FLOAT})
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["d"]),
        helper.make_node("Equal", ["d", "eight"], ["same"]),
        product("x", "w", "h"),
        helper.make_node("If", ["same"], ["y"], name="if", then_branch=taken, else_branch=other),
    ]
    constants = {"zero": np.array([0]), "one": np.array(1), "eight": np.array(rank)}
    path = save(tmp_path / "if.onnx", nodes, {"x": ("N", 8)}, {"w": (8, 5)}, constants)
    step = onnx_workload(path, batch=2)
    runs = rank == 8
    assert sum(op.gemm.macs for op in step.matrix_ops if str(op.pass_) == "FF") == (expected if runs else 2 * 8 * 5)
    assert trained(step) == ([15, 40] if runs else [40])


def loop(path: Path, turns: int, condition: Any = None, collect: bool = False) -> Path:
    inner = [
        helper.make_node("Identity", ["go"], ["on"]),
        product("h", "w", "g"),
        helper.make_node("Tanh", ["g"], ["hs"]),
        helper.make_node("Identity", ["hs"], ["row"]),
    ]
    outs = {"on": _BOOL, "hs": _FLOAT, **({"row": _FLOAT} if collect else {})}
    each = body(inner, {"i": _INT, "go": _BOOL, "h": _FLOAT}, outs, weight("w", 8, 8))
    nodes = [
        helper.make_node(
            "Loop",
            ["n", "c" if condition is not None else "", "x"],
            ["last", "all"] if collect else ["last"],
            name="loop",
            body=each,
        )
    ]
    constants = {"n": np.array(turns)} | ({} if condition is None else {"c": np.array(condition)})
    nodes.append(product("all" if collect else "last", "v", "y"))
    return save(path / "loop.onnx", nodes, {"x": ("N", 8)}, {"v": (8, 5)}, constants)


def by_hand(path: Path, turns: int) -> Path:
    nodes, at = [], "x"
    for turn in range(turns):
        nodes += [product(at, "w", f"g{turn}"), helper.make_node("Tanh", [f"g{turn}"], [f"h{turn}"])]
        at = f"h{turn}"
    nodes.append(product(at, "v", "y"))
    return save(path / "hand.onnx", nodes, {"x": ("N", 8)}, {"w": (8, 8), "v": (8, 5)})


@pytest.mark.parametrize("condition", [None, True])
def test_a_loop_is_its_turns(tmp_path: Path, condition: Any) -> None:
    step, hand = (onnx_workload(file, batch=2) for file in (loop(tmp_path, 4, condition), by_hand(tmp_path, 4)))
    assert described(step) == described(hand)
    assert trained(step) == trained(hand) == [40, 64]


def test_a_loop_collects(tmp_path: Path) -> None:
    step = onnx_workload(loop(tmp_path, 3, collect=True), batch=2)
    assert sum(op.gemm.macs for op in step.matrix_ops if str(op.pass_) == "FF") == 3 * 2 * 8 * 8 + 3 * 2 * 8 * 5


def test_a_scan_is_its_steps(tmp_path: Path) -> None:
    inner = [
        helper.make_node("Add", ["h", "xt"], ["a"]),
        product("a", "w", "hs"),
        helper.make_node("Identity", ["hs"], ["row"]),
    ]
    each = body(inner, {"h": _FLOAT, "xt": _FLOAT}, {"hs": _FLOAT, "row": _FLOAT})
    nodes = [
        helper.make_node("Scan", ["h0", "x"], ["last", "all"], name="scan", body=each, num_scan_inputs=1),
        product("all", "v", "y"),
    ]
    path = save(tmp_path / "s.onnx", nodes, {"x": (5, "batch", 8), "h0": ("batch", 8)}, {"w": (8, 8), "v": (8, 3)})
    step = onnx_workload(path, batch=2)
    assert step.batch == 2
    assert sum(op.gemm.macs for op in step.matrix_ops if str(op.pass_) == "FF") == 5 * 2 * 8 * 8 + 10 * 8 * 3
    assert trained(step) == [24, 64]


def test_what_data_decides_is_refused(tmp_path: Path) -> None:
    branch = body([helper.make_node("Relu", ["h"], ["b"])], {}, {"b": _FLOAT})
    nodes = [
        product("x", "w", "h"),
        helper.make_node("ReduceSum", ["h"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["some"]),
        helper.make_node("If", ["some"], ["y"], name="if", then_branch=branch, else_branch=branch),
    ]
    path = save(tmp_path / "if.onnx", nodes, {"x": (2, 8)}, {"w": (8, 5)}, {"zero": np.float32(0)})
    with pytest.raises(InputError, match=r"node 'if' \(If\): its condition 'some' depends on data"):
        onnx_workload(path)
    with pytest.raises(InputError, match=r"node 'loop' \(Loop\): it may end before its count"):
        onnx_workload(loop(tmp_path, 3, condition=False), batch=2)


def test_a_long_loop_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"node 'loop' \(Loop\): 9,999 turns; at most {MOST_TURNS:,}"):
        onnx_workload(loop(tmp_path, 9999), batch=2)


def test_an_operator_in_a_body_has_a_rule(tmp_path: Path) -> None:
    branch = body([helper.make_node("Det", ["h"], ["b"], name="det")], {}, {"b": _FLOAT})
    nodes = [product("x", "w", "h"), helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    path = save(tmp_path / "if.onnx", nodes, {"x": (2, 5, 8)}, {"w": (8, 5)}, {"yes": np.array(True)})
    with pytest.raises(InputError, match=r"then_branch/det' \(Det\) has no rule"):
        onnx_workload(path)
