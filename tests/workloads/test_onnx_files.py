"""What docs/results/onnx.md says of the files of the package ``onnx`` is true; examples/onnx_files.py prints it."""

from __future__ import annotations

import runpy
import warnings
from math import prod
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import shape_inference

import weft
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.onnx import onnx_workload

ROOT = Path(__file__).parents[2]
FILES = runpy.run_path(str(ROOT / "examples" / "onnx_files.py"), run_name="onnx_files")
LIGHT = sorted((FILES["DATA"] / "light").glob("*.onnx"))
PAGE = (ROOT / "docs" / "results" / "onnx.md").read_text()


def by_shapes(path: Path) -> int:
    """Multiply-accumulates of convolutions and linear layers, from their shapes by ONNX's own inference alone."""
    graph = shape_inference.infer_shapes(onnx.load(path), data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    shapes.update((tensor.name, list(tensor.dims)) for tensor in graph.initializer)
    found = 0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight, made = shapes[node.input[1]], shapes[node.output[0]]
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            found += prod(made) * (prod(weight[1:]) if node.op_type == "Conv" or transposed else weight[0])
    return found


def test_the_classifiers_are_there() -> None:
    assert len(LIGHT) == 9 and f"onnx {onnx.__version__}" in PAGE


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: str(path.stem))
def test_classifiers_count_what_their_shapes_say(path: Path) -> None:
    step = onnx_workload(path)
    assert step.dense_macs[Pass.FF] == by_shapes(path) > 10**8
    published = FILES["PUBLISHED"].get(path.stem.removeprefix("light_"))
    if published is not None:
        assert round(step.dense_macs[Pass.FF] / 1e9, 2) == published


@pytest.mark.parametrize("name", ["resnet50", "vgg19"])
def test_classifiers_count_what_the_zoo_does(name: str) -> None:
    step = onnx_workload(next(path for path in LIGHT if path.stem == f"light_{name}"))
    zoo = weft.trace(name, batch=1)
    assert step.dense_macs == zoo.dense_macs
    assert step.parameters == zoo.parameters


def test_the_classifiers_are_as_written() -> None:
    assert FILES["light_table"]() in PAGE


def test_the_small_files_are_as_written() -> None:
    table = FILES["group_table"]("file of `simple`, `pytorch-converted`, `pytorch-operator`", FILES["shipped"]())
    assert table in PAGE


def test_a_reason_without_a_name_is_an_error(tmp_path: Path) -> None:
    """Among them whatever a library raised: it is an error of ours, though it is refused."""
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(AssertionError, match="no reason that is known"):
        FILES["outcome"](tmp_path / "m.onnx")


@pytest.mark.slow
def test_the_cases_of_operators_are_as_written() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = FILES["group_table"]("case of an operator", FILES["operator_cases"]())
    assert table in PAGE


@pytest.mark.slow
def test_definitions_count_what_onnx_writes_out_itself(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = FILES["stored_cases"]()
    compared = 0
    for name, model in cases.items():
        twin = cases.get(f"{name}_expanded")
        if twin is not None:
            ours, theirs = (_macs(each, tmp_path) for each in (model, twin))
            assert ours is None or theirs is None or ours == theirs, name
            compared += ours is not None and theirs is not None
    assert compared > 100


def _macs(model: Any, folder: Path) -> Any:
    try:
        return onnx_workload(FILES["written"](model, folder)).dense_macs
    except InputError:
        return None
