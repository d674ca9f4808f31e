"""Which reader each form of MODEL goes to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from weft.workloads.catalog import open_model, trace_module
from weft.workloads.errors import InputError
from weft.workloads.io import save_workload
from weft.workloads.step import Workload

BERT = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 64,
    "max_position_embeddings": 16,
}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Workload]:
    step = trace_module(nn.Linear(16, 8), torch.randn(4, 16))
    path = tmp_path / "step.json"
    save_workload(step, path)
    return path, step


def test_name() -> None:
    phases: list[str] = []
    step = open_model("resnet9@16", batch=2, optimizer="adam", progress=phases.append)
    assert (step.model.partition("@")[0], step.batch, step.optimizer) == ("resnet9", 2, "adam")
    assert phases == ["build", "forward", "backward"]


def test_workload_file_as_it_is(saved: tuple[Path, Workload]) -> None:
    path, step = saved
    assert open_model(str(path)) == open_model(str(path), batch=4) == step
    assert open_model(str(path), optimizer="adam").optimizer == "adam"


def test_configuration_by_file_and_by_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    by_file = open_model(str(tmp_path / "config.json"), batch=2, seq=8)
    assert by_file == open_model(str(tmp_path), batch=2, seq=8)
    assert by_file.batch == 2


def test_function_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from torch import nn\n\ndef net():\n    return nn.Linear(16, 8)\n")
    step = open_model(f"{file}:net", batch=4, input_shape=(16,))
    assert [str(op.gemm) for op in step.matrix_ops] == ["4 x 16 x 8", "8 x 4 x 16"]


def test_onnx(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    weight = helper.make_tensor("w", TensorProto.FLOAT, [16, 8], [0.0] * 128)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", size]) for n, size in (("x", 16), ("y", 8))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    path = tmp_path / "m.onnx"
    save(helper.make_model(graph), path)
    assert open_model(str(path), batch=4).batch == 4
    with pytest.raises(InputError, match="no sequence, but axes by name: give --dim NAME="):
        open_model(str(path), batch=4, seq=3)


def test_a_workload_file_needs_no_torch(saved: tuple[Path, Workload]) -> None:
    code = f"import sys; from weft.workloads.catalog import open_model; open_model({str(saved[0])!r}); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("resnet9", {"optimizer": "adm"}, "did you mean 'adam'"),
        ("resnet9", {"input_shape": (3, 8, 8)}, "file.py:function and ONNX files only"),
        ("a.safetensors", {}, "no such file"),
        ("a/b", {}, "no such file"),
        ("a.json", {}, "no such file"),
        ("mine.py", {}, "file.py:function"),
        ("", {}, "choose one of"),
    ],
)
def test_refused(model: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_model(model, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["[]", "3", '{"a": 1}', '"text"'])
def test_json_of_another_kind(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match="neither a workload"):
        open_model(str(path))
