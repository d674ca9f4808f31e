"""Axes that an ONNX file leaves free: by name, by the shape of a sample, and the batch wherever it stands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import weft
from weft.cli import app
from weft.workloads.errors import InputError
from weft.workloads.onnx import onnx_workload
from weft.workloads.step import Workload

from .test_onnx import save


def conv(path: Path, *shape: int | str) -> Path:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    return save(path / "conv.onnx", [node], {"x": shape}, {"w": (4, 3, 3, 3)})


def linear(path: Path, *shapes: Sequence[int | str]) -> Path:
    """One matrix for every input, the results added up."""
    names = [f"x{i}" for i in range(len(shapes))]
    nodes = [helper.make_node("MatMul", [name, "w"], [f"h_{name}"]) for name in names]
    nodes.append(helper.make_node("Sum", [f"h_{name}" for name in names], ["y"]))
    return save(path / "linear.onnx", nodes, dict(zip(names, shapes, strict=True)), {"w": (8, 5)})


def forward(step: Workload) -> int:
    return step.dense_macs[next(iter(step.dense_macs))]


def test_named_axes_and_a_sample_are_the_fixed_export(tmp_path: Path) -> None:
    fixed = onnx_workload(conv(tmp_path, 2, 3, 10, 12))
    assert forward(fixed) == 2 * 10 * 12 * 4 * 27
    for shape in (("N", 3, "h", "w"), (0, 3, -1, "w"), ("batch_size", "c", "h", "w")):
        path = conv(tmp_path, *shape)
        assert onnx_workload(path, batch=2, sample=(3, 10, 12)) == fixed
    path = conv(tmp_path, "N", 3, "h", "w")
    assert onnx_workload(path, batch=2, dims={"h": 10, "w": 12}) == fixed
    assert onnx_workload(path, dims={"N": 2, "h": 10, "x:3": 12}) == fixed
    assert weft.trace(path, batch=2, dims={"h": 10, "w": 12}) == fixed


def test_an_input_without_a_shape_gets_one(tmp_path: Path) -> None:
    path = conv(tmp_path, 2, 3, 10, 12)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    assert forward(onnx_workload(path, batch=2, sample=(3, 10, 12))) == 2 * 10 * 12 * 4 * 27
    with pytest.raises(InputError, match=r"input 'x' has no shape: give that of one sample, as in --input 3x224x224"):
        onnx_workload(path, batch=2)


def test_the_command_line_takes_them(tmp_path: Path) -> None:
    path = str(conv(tmp_path, "N", 3, "h", "w"))
    for asked in (["--input", "3x10x12"], ["--dim", "h=10", "--dim", "w=12"]):
        done = CliRunner().invoke(app, ["trace", path, "--batch", "2", *asked, "--json"])
        assert json.loads(done.stdout)["macs"]["FF"] == 2 * 10 * 12 * 4 * 27
    for wrong in ("h", "=3", "h=x", "h="):
        done = CliRunner().invoke(app, ["trace", path, "--dim", wrong])
        assert done.exit_code
        assert isinstance(done.exception, InputError | SystemExit)


@pytest.mark.parametrize(
    ("shapes", "asked", "batch"),
    [
        # Steps first, the batch by its name.
        ([("seq", "batch", 8)], {"batch": 3, "dims": {"seq": 7}}, 3),
        ([("seq", "batch", 8)], {"dims": {"seq": 7, "batch": 3}}, 3),
        # By no name: what is left when the first is given.
        ([("seq", "N", 8)], {"batch": 3, "dims": {"seq": 7}}, 3),
        ([("batch", "seq", 8)], {"batch": 3, "dims": {"seq": 7}}, 3),
        ([("batch", "seq", 8), ("batch", "seq", 8)], {"batch": 3, "dims": {"seq": 7}}, 3),
        ([("seq", "batch", 8), ("seq", 3, 8)], {"batch": 3, "dims": {"seq": 7}}, 3),
    ],
)
def test_the_batch_is_found_where_it_is(
    tmp_path: Path, shapes: list[Sequence[int | str]], asked: dict[str, object], batch: int
) -> None:
    step = onnx_workload(linear(tmp_path, *shapes), **asked)  # type: ignore[arg-type]
    assert step.batch == batch
    assert forward(step) == len(shapes) * 7 * 3 * 8 * 5


@pytest.mark.parametrize(
    ("shape", "asked", "said"),
    [
        (
            ("N", 3, "h", "w"),
            {},
            r"symbolic: 'N' \(axis 0 of input 'x'\), 'h' \(axis 2 of input 'x'\), 'w' .*"
            r"as in --batch 8 --dim h=128 --dim w=128",
        ),
        (("N", 3, "h", 8), {"batch": 2}, r"'h' \(axis 2 of input 'x'\); give them, as in --batch 8 --dim h=128"),
        (("N", 3, -1, 8), {"batch": 2}, r"--dim x:2=128"),
        (("N", 3, "h", 8), {"dims": {"hh": 2}}, r"dim 'hh' is no free axis.*did you mean 'h'.*free are 'N' \(axis 0"),
        (("N", 3, 8, 8), {"dims": {"x:2": 9}}, r"dim x:2 = 9 given, but the file fixes it at 8"),
        ((2, 3, 8, 8), {"dims": {"h": 9}}, r"the file leaves no axis free"),
        (("N", 3, "h", 8), {"dims": {"h": 0}}, r"dim h"),
        (("N", 3, "h", 8), {"batch": 2, "dims": {"N": 3, "h": 8}}, r"the batch is given as 2 and as 3"),
        (("N", 3, "h", 8), {"batch": 2, "sample": (3, 8)}, r"input 3x8 has 2 axes, but a sample of 'x' .* has 3"),
        (("N", 3, "h", 8), {"batch": 2, "sample": (3, 8, 9)}, r"input 3x8x9 given, but the file fixes axis 3 .* at 8"),
        (("N", 3, "h", 8), {"batch": 2, "sample": (3, 0, 8)}, r"input"),
        (("N", 3, "h", 8), {"batch": 2, "sample": (3, 9, 8), "dims": {"h": 8}}, r"axis 2 of input 'x' is given as 8"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, shape: Sequence[int | str], asked: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        onnx_workload(conv(tmp_path, *shape), **asked)  # type: ignore[arg-type]


def test_a_sample_is_of_one_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input 7x8 given, but there are 2: 'x0', 'x1'"):
        onnx_workload(linear(tmp_path, ("N", "s", 8), ("N", "s", 8)), batch=2, sample=(7, 8))


def test_other_models_have_no_named_axes() -> None:
    with pytest.raises(InputError, match=r"resnet18@32: dim 'h' given, but only the axes of ONNX files have names"):
        weft.trace("resnet18@32", dims={"h": 3})
