"""The same module through both doors, traced and exported: where values come from is told by names in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch import Tensor

from weft.workloads.gemm import Pass
from weft.workloads.onnx import onnx_workload
from weft.workloads.trace import trace_step

from .oracle_idioms import LAYERS, LEARNED, WEIGHTS
from .oracles import Case
from .test_onnx import save

NOT_EXPORTED = {
    "bias of a network (Swin v2)",
    "weight norm of a convolution",
    "orthogonal weight",
    "raw query",
    "experts by group",
    "encoder",
    "similarity",
    "token mixing",
    "reentrant checkpoints",
}
"""What PyTorch's exporter has no operators for."""
NOT_ALIKE = {
    # The exporter makes one product of two that are the same; an outer product is element-wise in PyTorch; an Einsum
    # of three operands is refused.
    "query behind its projection",
    "outer product",
    "experts gathered by token",
}
IDIOMS = {name: case for name, case in {**LEARNED, **WEIGHTS, **LAYERS}.items() if name not in NOT_EXPORTED | NOT_ALIKE}


def exported(path: Path, case: Case, *, folded: bool) -> Path:
    """The model of ``case`` as PyTorch's exporter writes it, with weights stored the other way round if ``folded``."""
    torch.manual_seed(0)
    model = case.build().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    args, kwargs = case.inputs()
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    given = (*map(on_cpu, args), {name: on_cpu(value) for name, value in kwargs.items()})
    torch.onnx.export(
        model, given, str(path), opset_version=17, dynamo=False, do_constant_folding=folded, training=mode
    )
    return path


def on_cpu(value: Any) -> Any:
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, Tensor) else value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folded", [True, False], ids=["folded", "as written"])
@pytest.mark.parametrize("name", IDIOMS)
def test_both_doors_count_the_same(tmp_path: Path, name: str, folded: bool) -> None:
    case = IDIOMS[name]
    path = exported(tmp_path / "m.onnx", case, folded=folded)
    # A file does not tell a buffer from a parameter.
    freeze = ["basis"] if name == "basis" else []
    assert onnx_workload(path, freeze=freeze).dense_macs == trace_step(case.source()).dense_macs


def places(names: tuple[str, str, str, str]) -> tuple[list[Any], dict[str, tuple[int, ...]]]:
    """A query of 6 x 16 behind a projection asks two samples of five rows; names of the nodes, query and weights."""
    project, query, wq, wk = names
    nodes = [
        helper.make_node("MatMul", [query, wq], ["q"], name=project),
        helper.make_node("MatMul", ["x", wk], ["k"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "k"], ["y"]),
    ]
    return nodes, {query: (6, 16), wq: (16, 16), wk: (16, 16)}


@pytest.mark.parametrize(
    "names",
    [
        ("/q/MatMul", "query", "q.weight", "k.weight"),
        ("/q/MatMul", "query", "onnx::MatMul_7", "onnx::MatMul_8"),
        ("/net/q_1/MatMul", "net.query", "net.q.weight", "net.k.weight"),
        ("model/q/MatMul", "model/query:0", "model/q/kernel:0", "model/k/kernel:0"),
        ("", "query", "q.weight", "k.weight"),
    ],
)
def test_names_say_what_enters_a_layer(tmp_path: Path, names: tuple[str, str, str, str]) -> None:
    nodes, weights = places(names)
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (2, 5, 16)}, weights, opset=17))
    # Six rows of a query twice, in the gradients of both operands of two products, and of the query itself.
    assert step.dense_macs == {Pass.FF: 6016, Pass.BP: 4 * 960 + 1536, Pass.WU: 1536 + 2560}
    assert [op.parameter for op in step.matrix_ops if op.name == "s"] == [None] * 3


def test_a_table_of_numbers_in_front_of_a_weight_is_data(tmp_path: Path) -> None:
    """The file stores 9 x 16 places in a node; behind their projection they are keys, and not trained."""
    table = np.ones((9, 16), np.float32)
    nodes = [
        helper.make_node("Constant", [], ["places"], value=helper.make_tensor("t", 1, table.shape, table.ravel())),
        helper.make_node("MatMul", ["places", "w"], ["k"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "v"], ["q"]),
        helper.make_node("MatMul", ["q", "kt"], ["y"], name="scores"),
    ]
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (5, 16)}, {"w": (16, 16), "v": (16, 16)}, opset=17))
    projected, asked, scores = 9 * 16 * 16, 5 * 16 * 16, 5 * 16 * 9
    assert step.dense_macs == {Pass.FF: projected + asked + scores, Pass.BP: 2 * scores, Pass.WU: projected + asked}
    assert [op.elements for op in step.ops if op.kind == "update"] == [256, 256]
