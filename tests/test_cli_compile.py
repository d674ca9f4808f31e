"""`weft compile`: files that are the programs, which train as the step does; a summary; refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.dataflow.operand import E5M2, FP32, OPERAND_FORMATS
from weft.dataflow.program.assembly import assemble
from weft.dataflow.program.checker import check
from weft.dataflow.program.layout import Atom, Region
from weft.dataflow.program.program import read_program
from weft.dataflow.program.spaces import Element, Form, Target
from weft.simulator.machine.chip import Chip
from weft.simulator.machine.host import get, put
from weft.simulator.machine.step import Execution
from weft.workloads.training import plan
from weft.workloads.training.model import new_model, training_graph
from weft.workloads.update_rule import NESTEROV

from .simulator.machine.program_run import held_of, require_same


def region(said: dict) -> Region:
    axes = tuple(tuple(Atom(*atom) for atom in axis) for axis in said["axes"])
    numbers = {n.name: n for n in (FP32, *(e for f in OPERAND_FORMATS.values() for e in f.encodings))}
    number = numbers[said["number"]]
    found = Region(said["address"], axes, Element(Form[said["form"]], number, gradient=number is E5M2))
    assert list(found.shape) == said["shape"]
    return found


def test_the_files_alone_run_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, asked = tmp_path / "out", ["compile", "cnn", "--arch", "tiny", "--batch", "3"]
    assert main([*asked, "-o", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    target = Target(spec=load_spec("tiny"), rule=NESTEROV)
    where = json.loads((folder / "memory.json").read_text())
    assert where["machine"] == said["hash"] == target.hash and said["bound"] <= said["peak"] <= where["window"]
    programs = {name: read_program(folder / f"{name}.weft") for name in ("forward", "backward")}
    for name, program in programs.items():
        assert assemble((folder / f"{name}.asm").read_text()) == program
        counted = said["programs"][name]
        assert check(program, target, where["window"]) == sum(counted["commands"].values())
        assert counted["instructions"] == len(program.instructions)
        assert counted["size"] == (folder / f"{name}.weft").stat().st_size

    spec = plan("cnn", batch=3, scheme="dense")
    held, rng = held_of(new_model(spec)), np.random.default_rng(0)
    pixels = rng.standard_normal((3, 1, 8, 8)).astype(np.float32)
    memory = np.zeros(where["window"], np.uint8)
    for name, parameter in where["parameters"].items():
        for copy in (parameter["master"], parameter["weight"]):
            if copy is not None:
                put(memory, region(copy), held[name], "fp16")
    for name, buffer in where["buffers"].items():
        put(memory, region(buffer), held[name], "fp16")
    put(memory, region(where["input"]), pixels, "fp16")
    Chip(target, memory).run(programs["forward"].instructions)
    run = Execution(training_graph(spec), held, pixels, "fp16")
    require_same("scores", get(memory, region(where["output"]), "fp16"), run.forward())
    # bytes that a transfer moves: at least scores and input once
    assert said["programs"]["forward"]["read"] > 2 * pixels.size
    assert said["programs"]["forward"]["written"] > 2 * 3 * 10


def test_the_summary_names_the_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "mlp", "--arch", "sat-ecp5", "--scheme", "bdwp", "--batch", "4"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    assert "mlp, batch 4, on sat-ecp5 with nesterov" in out
    for word in ("load", "store", "product", "vector", "update", "forward", "backward", "Memory: "):
        assert word in out


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("cnn", "--arch", "tiny", "--scheme", "sdgp", "--batch", "2"), "runs on pairs of its gradient"),
        (("nothing",), "nothing"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    args: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", *args]) == 2
    assert why in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_large_step_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "resnet50", "--batch", "2", "--arch", "sat-vcu1525", "--json"]) == 0
    programs = json.loads(capsys.readouterr().out)["programs"]
    assert sum(one["size"] for one in programs.values()) < 1_000_000
    assert sum(sum(one["commands"].values()) for one in programs.values()) > 30_000


@pytest.mark.slow
def test_what_the_host_computes_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["compile", "vit_s", "--data", "digits", "--batch", "2", "--arch", "tiny", "-o", str(tmp_path / "out")]
    assert main(asked) == 0
    assert "The host computes between programs: 2 x aten._softmax, 2 x aten.gelu" in capsys.readouterr().out
    said = json.loads((tmp_path / "out" / "memory.json").read_text())
    assert [each["op"] for each in said["host"][:2]] == ["aten._softmax", "aten.gelu"]
    assert all((tmp_path / "out" / f"{each['behind']}.weft").is_file() for each in said["host"])
