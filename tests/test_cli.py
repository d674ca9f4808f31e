"""The command line: every command on something tiny, one JSON document on stdout, exit codes, and refusals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from weft import InputError
from weft._cli import console, models
from weft.analysis.bands import Joules, band_words
from weft.cli import main
from weft.dataflow.config_io import preset_text
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.io import dumps_workload, load_workload, save_workload
from weft.workloads.operand import Operand, Role
from weft.workloads.schemes.scheme import SCHEMES
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp, Workload

PYTHON = (sys.executable, "-m", "weft")


def tiny_step() -> Workload:
    """Two linear layers of 16 features at batch 8."""
    return Workload(model="two-layers", batch=8, input="8 x 16", ops=(*layer("one"), *layer("two")))


def layer(name: str) -> tuple[MatrixOp | VectorOp | UpdateOp, ...]:
    shared = {"name": name, "op": "aten.mm", "parameter": f"{name}.weight"}
    x, w, y = (
        Operand(role=role, dtype="float32", bytes=4 * size)
        for role, size in ((Role.ACTIVATION, 128), (Role.WEIGHT, 256), (Role.GRADIENT, 128))
    )
    by_features, by_batch = Gemm(m=8, k=16, n=16), Gemm(m=16, k=8, n=16)
    return (
        MatrixOp(**shared, pass_=Pass.FF, gemm=by_features, a=x, b=w, c=x),  # type: ignore[arg-type]
        VectorOp(
            name=name, op="aten.relu", pass_=Pass.FF, dtype="float32", elements=128, read_bytes=512, write_bytes=512
        ),
        MatrixOp(**shared, pass_=Pass.BP, gemm=by_features, a=y, b=w, c=y),  # type: ignore[arg-type]
        MatrixOp(**shared, pass_=Pass.WU, gemm=by_batch, a=x, b=y, c=w),  # type: ignore[arg-type]
        UpdateOp(name=f"{name}.weight", elements=256),
    )


@pytest.fixture
def step(tmp_path: Path) -> Path:
    path = tmp_path / "step.json"
    save_workload(tiny_step(), path)
    return path


@pytest.fixture
def user_model(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch, sys\n"
        "from torch import nn\n"
        "print('noise from the model file')\n"
        "def net(batch=4):\n"
        "    return nn.Linear(16, 8), torch.empty(batch, 16)\n"
        "def bare():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8))\n"
        "def broken():\n"
        "    return nn.Linear(16, 8), torch.empty(4, 15)\n"
        "class Quits(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        sys.exit(0)\n"
        "def quits():\n"
        "    return Quits(3, 3), torch.empty(2, 3)\n"
    )
    return f"{path}:net"


def document(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    """The one JSON document that a command prints."""
    assert main([*map(str, args), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def text(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main([*map(str, args)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    return out


# --- what it says of itself


def test_help_loads_neither_torch_nor_numba() -> None:
    code = (
        "import sys, weft; from weft.cli import main; assert main(['--help']) == 0 and main(['run', '--help']) == 0; "
        "print({'torch', 'numba', 'pandas', 'matplotlib', 'numpy', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_module_and_version() -> None:
    done = subprocess.run([*PYTHON, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "weft")


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    names = [m["name"] for m in document(capsys, "models")["models"]]
    assert {"resnet9", "llama2_70b", "unet_s"} <= set(names)
    assert all(name in text(capsys, "models") for name in names)


def test_archs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    listed = {spec["name"]: spec["hash"] for spec in document(capsys, "archs")["archs"]}
    assert {"sat-vcu1525", "dense-32", "tiny"} <= listed.keys()
    assert all(digest in text(capsys, "archs") for digest in listed.values())
    assert document(capsys, "archs", "tiny")["hash"] == listed["tiny"]
    written = tmp_path / "mine.toml"
    written.write_text(text_of(capsys, "archs", "tiny"))
    assert "# " in written.read_text()
    assert document(capsys, "archs", written)["hash"] == listed["tiny"]


def text_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) == 0
    return capsys.readouterr().out


# --- trace


def test_trace_of_a_users_model(capsys: pytest.CaptureFixture[str], user_model: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "w.json"
    found = document(capsys, "trace", user_model, "--batch", 6, "--optimizer", "adam", "-o", path)
    assert found["macs"] == {"FF": 6 * 16 * 8, "BP": 0, "WU": 6 * 16 * 8}
    saved = load_workload(path)
    assert (saved.batch, saved.optimizer, found["path"]) == (6, "adam", str(path))
    assert str(path) in text(capsys, "trace", path, "-o", path)


def test_input_shape_of_a_users_model(capsys: pytest.CaptureFixture[str], user_model: str) -> None:
    bare = user_model.replace(":net", ":bare")
    found = document(capsys, "trace", bare, "--input", "3x2x2", "--batch", 5)
    assert found["macs"]["FF"] == 5 * 12 * 8


def test_noise_of_a_model_stays_out_of_stdout(user_model: str) -> None:
    done = subprocess.run([*PYTHON, "trace", user_model, "--json"], capture_output=True, text=True)
    assert json.loads(done.stdout)["batch"] == 4
    assert "noise" in done.stderr


# --- run


def test_run(capsys: pytest.CaptureFixture[str], step: Path) -> None:
    found = document(capsys, "run", step, "--arch", "tiny", "--scheme", "bdwp", "--nm", "2:4")
    assert {"seconds", "samples_per_s", "utilization", "energy_j", "ops"} <= found.keys()
    assert (found["scheme"], found["pattern"]) == ("bdwp", "2:4")
    assert found["macs"] == 2 * (2 * 8 * 8 * 16 + 16 * 8 * 16)
    assert set(found["passes"]) == {"FF", "BP", "WU", "OPT"}
    assert found["cycles"] == sum(p["cycles"] for p in found["passes"].values())
    issuing = sum(op["compute"] for op in found["ops"])
    assert found["cycles"] == issuing + sum(found["stalls"].values())
    shown = text(capsys, "run", step, "--arch", "tiny")
    assert "samples/s" in shown.splitlines()[0] and "one" in shown and "asic-16nm" in shown


def test_run_by_layer(capsys: pytest.CaptureFixture[str], step: Path, tmp_path: Path) -> None:
    rules = ("--nm", "2:4", "--nm", "*=1:4", "--nm", "two=dense")
    found = document(capsys, "run", step, "--arch", "tiny", *rules)
    assert {op["name"]: op["pattern"] for op in found["ops"] if (op["pass"], op["kind"]) == ("FF", "matrix")} == {
        "one": "1:4",
        "two": None,
    }
    assert (found["pattern"], found["layer_patterns"]) == ("2:4", ["*=1:4", "two=dense"])
    assert "By layer, 2:4 elsewhere" in text(capsys, "run", step, "--arch", "tiny", *rules)
    compared = text(capsys, "compare", step, "--arch", "tiny", "--schemes", "dense,bdwp", *rules)
    assert "N:M by layer: *=1:4, two=dense; the last to match holds" in compared
    # A folder of results keeps its rules; other rules go with the pattern that it has.
    document(capsys, "run", step, "--arch", "tiny", *rules, "-o", tmp_path / "saved")
    again = document(capsys, "run", tmp_path / "saved" / "workload.json", "--arch", "tiny")
    assert again["ops"] == found["ops"]
    other = document(capsys, "run", tmp_path / "saved" / "workload.json", "--arch", "tiny", "--nm", "one=dense")
    assert (other["pattern"], other["layer_patterns"]) == ("2:4", ["one=dense"])


@pytest.mark.parametrize(("level", "told"), [("step", "The phases of every product"), ("system", "SimPy's processes")])
def test_run_beside_its_witness(capsys: pytest.CaptureFixture[str], step: Path, level: str, told: str) -> None:
    assert main(["run", str(step), "--arch", "tiny", "--scheme", "bdwp", "--level", level, "--witness"]) == 0
    assert told in capsys.readouterr().err


def test_run_at_the_system_level(capsys: pytest.CaptureFixture[str], step: Path, tmp_path: Path) -> None:
    path = tmp_path / "step.perfetto-trace"
    alone = document(capsys, "run", step, "--arch", "tiny")
    found = document(capsys, "run", step, "--arch", "tiny", "--level", "system", "-o", tmp_path / "out")
    assert (found["level"], found["step_cycles"]) == ("system", alone["cycles"])
    assert found["cycles"] <= found["step_cycles"]
    assert set(found["engines"]) == {"STCE", "vector", "WUVE", "DRAM", "SORE"}
    assert json.loads((tmp_path / "out" / "result.json").read_text())["engines"] == found["engines"]
    shown = text(capsys, "run", step, "--arch", "tiny", "--trace", path)
    assert "with ops overlapped" in shown and str(path) in shown
    assert path.stat().st_size > 100


def test_run_takes_the_usual_scheme_of_the_machine(capsys: pytest.CaptureFixture[str], step: Path) -> None:
    assert document(capsys, "run", step, "--arch", "tiny")["pattern"] == "2:8"
    assert document(capsys, "run", step, "--arch", "dense-32")["scheme"] == "dense"


def test_run_keeps_the_scheme_of_a_workload_file(capsys: pytest.CaptureFixture[str], step: Path) -> None:
    saved = step.with_name("out")
    document(capsys, "run", step, "--arch", "tiny", "--scheme", "srste", "--nm", "1:4", "-o", saved)
    again = document(capsys, "run", saved / "workload.json", "--arch", "tiny")
    assert (again["scheme"], again["pattern"]) == ("srste", "1:4")
    assert document(capsys, "run", saved / "workload.json", "--arch", "tiny", "--nm", "2:4")["pattern"] == "2:4"


def test_run_writes_a_folder_with_its_command(capsys: pytest.CaptureFixture[str], step: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    found = document(capsys, "run", step, "--arch", "tiny", "-o", folder)
    saved = json.loads((folder / "result.json").read_text())
    assert saved == found
    assert saved["command"].startswith("weft run ")


@pytest.mark.parametrize("objective", ["energy", "edp"])
def test_run_for_less_energy(capsys: pytest.CaptureFixture[str], step: Path, objective: str) -> None:
    least = document(capsys, "run", step, "--arch", "tiny", "--objective", objective)
    quickest = document(capsys, "run", step, "--arch", "tiny")
    assert least["energy_j"] <= quickest["energy_j"]
    assert least["cycles"] >= quickest["cycles"]


def test_pregeneration_is_a_switch(capsys: pytest.CaptureFixture[str], step: Path) -> None:
    on, off = (
        document(capsys, "run", step, "--arch", "tiny", switch)["spec_hash"]
        for switch in ("--pregenerate", "--no-pregenerate")
    )
    assert on != off


def test_requests_of_a_run(capsys: pytest.CaptureFixture[str], step: Path, tmp_path: Path) -> None:
    trace = tmp_path / "step.trace"
    found = document(capsys, "run", step, "--arch", "tiny", "--dram-trace", trace)
    told = found["dram_trace"]
    assert len(trace.read_text().splitlines()) == told["reads"] + told["writes"]
    assert told["reads"] * told["line_bytes"] >= found["dram_read_bytes"]
    layout = Path(told["layout"]).read_text().splitlines()
    assert layout[0] == "address,bytes,tensor,from_op,to_op" and "one.weight in 32 bits" in "".join(layout)
    replayed = document(capsys, "dram", "--trace", trace, "--arch", "tiny")
    assert (replayed["requests"], replayed["memory"]) == (told["reads"] + told["writes"], told["memory"])
    shown = text(capsys, "run", step, "--arch", "tiny", "--dram-trace", trace, "--dram-form", "ramulator")
    assert "Requests to DRAM" in shown and trace.read_text().startswith("LD 0x")


# --- generate


def test_generate_has_joules_with_their_band(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "vocab_size": 80}
    sizes = {"intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 80}
    (tmp_path / "small.json").write_text(json.dumps(config | sizes))
    # The 64th token, from which on a mask is bits, is among them.
    asked = ("generate", tmp_path / "small.json", "--context", 61, "--new", 5, "--arch", "sat-8x8", "--fusion", "full")
    found = document(capsys, *asked)
    for joules in ("joules_per_token", "prefill_joules"):
        assert 0 < found[f"{joules}_low"] < found[joules] < found[f"{joules}_high"]
    band = Joules(*(found[f"joules_per_token{end}"] for end in ("_low", "", "_high")))
    assert f"{band_words(band)} a token" in text(capsys, *asked)


@pytest.mark.slow
def test_generate_has_the_attention_of_single_steps(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The third token begins a block, so that its step is less than the one before."""
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "vocab_size": 80}
    sizes = {"intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 80}
    (tmp_path / "small.json").write_text(json.dumps(config | sizes))
    how = ("--arch", "tiny", "--scheme", "bdwp", "--nm", "2:8", "--attention", "scatterbrain@8+best-blocks@2/16")
    model = str(tmp_path / "small.json")
    found = document(capsys, "generate", model, "--context", 61, "--new", 5, *how)
    single = [document(capsys, "run", model, "--for", "decode", "--context", 61 + i, *how) for i in range(5)]
    assert found["decode_cycles"] == sum(step["cycles"] for step in single)
    assert single[3]["cycles"] < single[2]["cycles"]
    assert found["input"].endswith("attention scatterbrain@8+best-blocks@2/16")


# --- compare


def test_compare(capsys: pytest.CaptureFixture[str], step: Path, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    found = document(capsys, "compare", step, "--arch", "tiny", "--schemes", "dense,bdwp", "--nm", "2:4", "-o", folder)
    dense, bdwp = found["schemes"]
    assert (dense["scheme"], dense["speedup"], bdwp["pattern"]) == ("dense", 1.0, "2:4")
    assert bdwp["speedup"] == pytest.approx(dense["cycles"] / bdwp["cycles"])
    booked = sum(row["cycles"] for row in found["ledgers"]["bdwp"]["rows"])
    assert booked == pytest.approx(bdwp["cycles"])
    assert json.loads((folder / "comparison.json").read_text()) == found
    assert (folder / "bdwp" / "result.json").exists() and (folder / "comparison.png").exists()
    shown = text(capsys, "compare", step, "--arch", "tiny", "--nm", "2:4")
    assert "bdwp" in shown and "sdgp" in shown and "100.0 %" in shown


# --- gemm


def test_gemm_by_the_scalesim_convention(capsys: pytest.CaptureFixture[str]) -> None:
    args = ("gemm", 3, 5, 4, "--array", "8x8", "--convention", "scalesim")
    assert document(capsys, *args, "--dataflow", "os")["cycles"] == 19
    flows = {flow: document(capsys, *args, "--dataflow", flow)["cycles"] for flow in ("os", "ws", "is")}
    best = document(capsys, *args)
    assert best["cycles"] == min(flows.values()) == flows[best["dataflow"]]
    assert "19 cycles" in text(capsys, *args, "--dataflow", "os")


def test_gemm_in_bf16_takes_the_cycles_of_fp16(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    machine = tmp_path / "bf16.toml"
    machine.write_text(preset_text("tiny").replace("add_latency = 4", 'add_latency = 4\nformat = "bf16"'))
    half, bfloat = (document(capsys, "gemm", 9, 24, 7, "--arch", a, "--level", "cycle") for a in ("tiny", machine))
    assert bfloat == half


def test_gemm_at_both_levels(capsys: pytest.CaptureFixture[str]) -> None:
    for extra in ((), ("--nm", "2:8"), ("--dataflow", "is"), ("--dataflow", "is", "--nm", "1:4")):
        args = ("gemm", 9, 24, 7, "--arch", "tiny", *extra)
        closed, stepped = document(capsys, *args), document(capsys, *args, "--level", "cycle")
        assert stepped == {**closed, "level": "cycle"}
        parts = ("compute", "interleave_stall", "port_stall", "fill_drain")
        assert closed["cycles"] == sum(closed[part] for part in parts)
        assert 0 < closed["utilization"] <= 1
    assert "memory unlimited" in text(capsys, *args)


def test_gemm_auto_is_the_quickest(capsys: pytest.CaptureFixture[str]) -> None:
    args = ("gemm", 5, 40, 31, "--arch", "tiny")
    flows = [document(capsys, *args, "--dataflow", flow)["cycles"] for flow in ("os", "ws", "is")]
    assert document(capsys, *args)["cycles"] <= min(flows)


def test_gemm_on_an_array_of_another_size(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "gemm", 64, 64, 64, "--array", "16x8")
    assert (found["rows"], found["cols"], found["macs"]) == (16, 8, 64**3)


# --- refusals

BAD_TOML = 'name = "x"\nclock_hz = 1000000\ntechnology = "asic-16nm"\nclok = 3\n'

REFUSED: list[tuple[str, str]] = [
    ("run resnet5", "did you mean 'resnet50'"),
    ("run resnet9@7", "input size"),
    ("run resnet9 --seq 4", "reads images"),
    ("run gpt2@4", "reads tokens"),
    ("run resnet9 --batch 0", "batch must be an integer from 1"),
    ("run resnet9 --batch ten", "--batch"),
    ("run missing.json", "missing.json: no such file"),
    ("run missing.onnx", "missing.onnx: no such file"),
    ("run missing.py:net", "missing.py: no such file"),
    ("run no/such/model", "no such file"),
    ("run {folder}", "of no form that can be read"),
    ("run {folder}.json", "no such file"),
    ("run {step} --batch 3", "traced at batch 8"),
    ("run {step} --seq 3", "sequence length"),
    ("run {step} --input 3x3", "file.py:function and ONNX files only"),
    ("run {truncated}", "truncated.json"),
    ("run {hostile}", "hostile.json"),
    ("run {odd}", "neither a workload"),
    ("run {misspelt}", "batch"),
    ("run {user}:nett", "net"),
    ("run {user}:broken", "fails in forward"),
    ("run {user}:quits", "ended the program"),
    ("run {user}:net --input 3xx", "--input"),
    ("run {step} --scheme bdpw", "did you mean 'bdwp'"),
    ("run {step} --nm 3:2", "3:2"),
    ("run {step} --nm 2:4 --nm nowhere.*=1:4", "rule nowhere.*=1:4 matches no layer"),
    ("run {step} --nm 2:4 --nm 1:4", "two N:M patterns"),
    ("run {step} --arch tiny --nm *=2:16", "pe.max_group"),
    ("train mlp --nm fc=2:4", "patterns by layer are for"),
    ("run {step} --limit 5", "name its file with --dram-trace"),
    ("run {step} --arch tiny --dram-trace x.trace --limit 5", "would hold 267 requests or more"),
    ("run {step} --dram-trace x.trace --level system", "leave out --level system"),
    ("run {step} --dram-trace .", "is a folder"),
    ("run {step} --mapping nowhere.toml", "nowhere.toml: cannot be read"),
    ("run {step} --nm 2-8", "2:8"),
    ("run {step} --nm 2:64", "from 1 to 32"),
    ("run {step} --arch tiny --scheme bdwp --nm 2:16", "pe.max_group"),
    ("run {step} --arch dense-32 --scheme bdwp", "pe.max_group"),
    ("run {step} --objective speed", "cycles"),
    ("run {step} --optimizer rmsprop", "'sgd', 'nesterov', 'adam', 'adamw'"),
    ("run {step} --arch sat-vcu1520", "did you mean 'sat-vcu1525'"),
    ("run {step} --arch missing.toml", "missing.toml: cannot be read"),
    ("run {step} --arch {toml}", "did you mean 'clock_hz'"),
    ("run {step} -o {step}", "is a file"),
    ("run {step} -o {folder}", "not empty"),
    ("run {step} -o {step}/sub", "not a folder"),
    ("trace {step} -o {folder}", "is a folder"),
    ("compare {step} --schemes dense,dense", "twice"),
    ("compare {step} --schemes dense,foo", "choose one of"),
    ("compare {step} --schemes DENSE", "did you mean 'dense'"),
    ("explain", "Missing command"),
    ("compare {step} --schemes ,", "scheme ''"),
    ("archs nothing", "neither a preset"),
    ("gemm 0 4 4", "m of a GEMM"),
    ("gemm 4 4", "'N'"),
    ("gemm 4 4 -- -4", "n of a GEMM"),
    ("gemm 4 4 4.5", "'N'"),
    ("gemm 99999999999 99999999999 99999999999", "2^53"),
    ("gemm 4 4 4 --array 0x4", "array.rows"),
    ("gemm 4 4 4 --array 4x-4", "array.cols"),
    ("gemm 4 4 4 --array 4", "32x32"),
    ("gemm 4 4 4 --array 4x4x4", "32x32"),
    ("gemm 4 4 4 --array 4x4 --arch tiny", "one of them"),
    ("gemm 4 4 4 --array 0x4 --convention scalesim", "rows"),
    ("gemm 4 4 4 --convention scalesim --nm 2:8", "--nm"),
    ("gemm 4 4 4 --convention scalesim --level cycle", "--level cycle"),
    ("gemm 4 4 4 --convention stonne", "scalesim"),
    ("gemm 4 4 4 --dataflow rs", "auto"),
    ("gemm 4 4 4 --nm 8:8 --dataflow ws", "weight_pairs"),
    ("gemm 9999 9999 9999 --level cycle", "too large to step"),
    ("gemm 4 4 4 --levle cycle", "--levle"),
    ("run {step} --arch tiny --level step --trace {folder}/a.trace", "--level system"),
    ("run {step} --arch tiny --trace {folder}", "--trace takes the file"),
    ("run {step} --arch tiny --level chip", "system"),
    ("tarce resnet9", "tarce"),
    ("", "Missing command"),
]


@pytest.fixture
def places(tmp_path: Path, step: Path, user_model: str) -> dict[str, str]:
    whole = step.read_text()
    contents = {
        "truncated.json": whole[: len(whole) // 2],
        "hostile.json": "[" * 200_000,
        "odd.json": '{"weights": [1, 2]}',
        "misspelt.json": whole.replace('"batch"', '"batsch"'),
        "bad.toml": BAD_TOML,
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep me")
    files = {name.partition(".")[0]: str(tmp_path / name) for name in contents}
    return {**files, "toml": files["bad"], "folder": str(folder), "step": str(step), "user": user_model[:-4]}


@pytest.mark.parametrize(("command", "said"), REFUSED, ids=[command for command, _ in REFUSED])
def test_refused(
    capsys: pytest.CaptureFixture[str], places: dict[str, str], tmp_path: Path, command: str, said: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main([part.format(**places) for part in command.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    message = shown.err.partition("Error: ")[2]
    assert said in message
    assert "Traceback" not in shown.err and len(message.splitlines()) <= 41
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.mark.parametrize("args", [["--nm", ""], ["--nm="], ["-o", " "], ["--arch", ""]])
def test_nothing_is_no_value(capsys: pytest.CaptureFixture[str], step: Path, args: list[str]) -> None:
    assert main(["run", str(step), *args]) == 2
    assert "is empty; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "compare", "train", "study", "verify", "explain energy"])
def test_help_names_every_scheme(capsys: pytest.CaptureFixture[str], command: str) -> None:
    text_of(capsys, *command.split(), "--help")  # once more: the help of a command is made for good
    words = set(re.findall(r"[\w-]+", text_of(capsys, *command.split(), "--help")))
    assert words >= SCHEMES.keys() and "SCHEMES" not in words


def test_long_errors_are_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise InputError("\n".join(map(str, range(100))))

    monkeypatch.setattr(models, "_show", fails)
    assert main(["models"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), lines[-1]) == (29, "... and 72 lines more")


def test_a_fault_of_weft_is_told_from_bad_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("wheels came off")

    monkeypatch.setattr(models, "_show", fails)
    assert main(["models"]) == 1
    said = capsys.readouterr().err
    assert "wheels came off" in said and "WEFT_TRACEBACK" in said and "Traceback" not in said
    monkeypatch.setenv("WEFT_TRACEBACK", "1")
    assert main(["models"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt(tmp_path: Path) -> None:
    started = tmp_path / "started"
    slow = tmp_path / "slow.py"
    slow.write_text(
        f"import pathlib, time\ndef net():\n    pathlib.Path({str(started)!r}).touch()\n    time.sleep(60)\n"
    )
    output = tmp_path / "w.json"
    with subprocess.Popen(
        [*PYTHON, "trace", f"{slow}:net", "-o", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts background jobs, such as these tests, deaf to SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not started.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "Interrupted.\n")
    assert not output.exists()


def test_an_interrupt_that_a_library_turns_into_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = tmp_path / "deaf.py"
    model.write_text(
        "import signal\n"
        "try:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    raise ImportError('half')\n"
        "def net(): ...\n"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["trace", f"{model}:net"]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "Interrupted.\n"


DEAF = """
import signal, sys, time
from pathlib import Path
from numba import njit
from weft import cli
from weft._cli import models

@njit(nogil=True)
def spin(n):
    x = 1
    for i in range(n):
        x = x * 6364136223846793005 + i
    return x

def show(*_):
    spin(1)
    Path({started!r}).touch()
    {body}

models._show = show
sys.argv = ["weft", "models"]
sys.exit(cli.main())
"""

KERNEL = "spin(2**62)"
SWALLOWS = """
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
"""
SLOW_TO_TIDY = """
    try:
        time.sleep(60)
    finally:
        time.sleep(60)
"""


@pytest.mark.parametrize("body", [KERNEL, SWALLOWS, SLOW_TO_TIDY], ids=["kernel", "swallowed", "tidying"])
def test_ctrl_c_ends_what_python_cannot_end(tmp_path: Path, body: str) -> None:
    """Each of these would go on for a minute or a hundred years."""
    assert interrupted(tmp_path, body, times=1) == (130, "Interrupted.\n")


def test_a_training_may_end_its_step_once(tmp_path: Path) -> None:
    body = "signal.signal(signal.SIGINT, lambda *_: None); spin(2**62)"
    code, said = interrupted(tmp_path, body, times=2)
    assert code == 130
    assert said == "Interrupted: ends after the step that is running; Ctrl-C again ends at once.\nInterrupted.\n"


def interrupted(tmp_path: Path, body: str, times: int) -> tuple[int, str]:
    """How a command whose work is ``body`` ends after so many SIGINTs, and what it says."""
    started, script = tmp_path / "started", tmp_path / "deaf.py"
    script.write_text(DEAF.format(started=str(started), body=body))
    with subprocess.Popen(
        [sys.executable, str(script)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not started.exists() and process.poll() is None:
            time.sleep(0.05)
        for _ in range(times):
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_a_reader_that_leaves() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PYTHON, "archs", "tiny"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


HOSTILE = "\x1b]0;PWNED\x07\x1b[31m[red]m[/red]\n\nfake line\u202e"


def test_names_of_others_do_not_speak_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named = json.loads(dumps_workload(tiny_step()).decode().replace('"one', json.dumps(HOSTILE)[:-1]))
    path, machine = tmp_path / "hostile.json", tmp_path / "hostile.toml"
    path.write_text(json.dumps({**named, "model": HOSTILE}))
    machine.write_text(preset_text("tiny").replace('"tiny"', json.dumps(HOSTILE).replace("\\u202e", "\\u202E")))
    for terminal in ("0", "1"):
        if terminal == "1":
            monkeypatch.setenv("FORCE_COLOR", "1")
        for command in (
            f"run {path} --arch {machine}",
            f"run {path} --arch {machine} --level system",
            f"trace {path}",
            f"compare {path} --arch tiny --schemes dense,bdwp",
            f"explain energy {path} --arch {machine}",
            f"archs {machine}",
            f"gemm 4 4 4 --arch {machine}",
        ):
            assert main(command.split()) == 0
            shown = "".join(capsys.readouterr())
            plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
            assert not set(plain) & set("\x1b\x07\u202e"), command
            assert not any(line.startswith("fake line") for line in plain.splitlines())
        assert main(["explain", "energy", str(path), "--arch", "tiny", "--op", HOSTILE * 99]) == 2
        said = capsys.readouterr().err
        assert "\x1b]" not in said and "\u202e" not in said and len(said) < 3000


# --- on a terminal


def test_progress_only_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with console.phases("tracing x") as phase, console.bar("scheduling x") as bar:
        phase("forward")
        bar(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.bar("scheduling x") as bar:
        bar(1, 2)
    assert "scheduling x" in capsys.readouterr().err
    with console.phases("tracing x") as phase:
        phase("forward")
    assert "tracing x" in capsys.readouterr().err


def test_no_digit_is_lost_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: Path
) -> None:
    found = document(capsys, "run", step, "--arch", "tiny")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["run", str(step), "--arch", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "\u2026" not in shown
    passes = shown.partition("By pass")[2].partition("By cause")[0]
    digits = re.sub(r"\D", "", re.sub(r"\x1b\[[\d;]*m", "", passes))
    assert len(digits) >= sum(len(str(p["cycles"])) + len(str(p["macs"])) for p in found["passes"].values())


def test_streams_that_are_closed_full_or_narrow(tmp_path: Path) -> None:
    command = shlex.join([*PYTHON, "models"])
    assert subprocess.run(f"{command} >&-", shell=True).returncode == 0
    done = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True)
    assert (done.returncode, "fault of Weft" in done.stderr, "No space left" in done.stderr) == (1, False, True)
    (tmp_path / "bl\u00f6ck.py").write_text(
        "import torch\nfrom torch import nn\ndef net():\n    return nn.Linear(3, 3), torch.empty(2, 3)\n"
    )
    done = subprocess.run(
        [*PYTHON, "trace", f"{tmp_path}/bl\u00f6ck.py:net"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, b"bl\\xf6ck.net" in done.stdout) == (0, True)
