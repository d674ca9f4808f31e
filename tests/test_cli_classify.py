"""`weft classify`: what it shows, one JSON document, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weft.cli import main
from weft.dataflow.program.program import read_program

BINARY = ("--option", "norm=none", "--option", "ends=int5", "--epochs", "1", "--batch", "256")
OWN = '''\
"""A convolution and a pool."""
from torch import nn


def small(classes, size):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Hardtanh(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(72, classes),
    )
'''


def trained(folder: Path, model: str, *options: str) -> Path:
    assert main(["train", model, "-o", str(folder), "--json", *options]) == 0
    return folder


@pytest.fixture(scope="module")
def tfc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "tfc", "tfc", "--scheme", "xnor", *BINARY)


def document(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["classify", *map(str, args), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    capsys.readouterr()
    assert main(["classify", *map(str, args)]) == 2
    out, said = capsys.readouterr()
    assert not out and "Traceback" not in said and "fault of Weft" not in said
    return " ".join(said.split())


def test_a_table_and_a_document(capsys: pytest.CaptureFixture[str], tfc: Path) -> None:
    found = document(capsys, tfc, "--images", 20)
    assert [layer["name"] for layer in found["layers"]] == ["1", "4", "7", "10"]
    assert [layer["levels"] for layer in found["layers"]] == [["int5", "binary"], *[["binary", "binary"]] * 3]
    assert [(layer["m"], layer["k"], layer["n"]) for layer in found["layers"]] == [(20, 64, 64)] * 3 + [(20, 64, 10)]
    assert found["cycles"] == sum(layer["cycles"] for layer in found["layers"]) > 0
    assert found["seconds"] == found["cycles"] / found["clock_hz"]
    right = [a == b for a, b in zip(found["classes"], found["labels"], strict=True)]
    assert (found["images"], found["batch"], found["accuracy"]) == (20, 20, sum(right) / 20)
    assert found["equal"] is True
    for other in found["agreement"]:
        assert (other["images"], other["bits"]) == (20, 20 * 3 * 64)
        assert not other["classes_that_differ"] and not other["bits_that_differ"]

    assert main(["classify", str(tfc), "--images", "20"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    assert "20 test images on bnn-ecp5 at 60.00 MHz" in " ".join(out.split())
    assert f"{found['cycles']:,}" in out and "20 of 20" in out and "3,840 of 3,840" in out


def test_another_class_is_exit_code_one(
    capsys: pytest.CaptureFixture[str], tfc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch, as it were, found others."""
    from weft.workloads.training import Deployed, Evaluated

    single = Deployed.single

    def wrong(self: Deployed, pixels: Any) -> Evaluated:
        found = single(self, pixels)
        found.inputs[1][1, 5] *= -1
        return Evaluated(inputs=found.inputs, classes=(found.classes + 1) % 10)

    monkeypatch.setattr(Deployed, "single", wrong)
    assert main(["classify", str(tfc), "--images", "2"]) == 1
    out = capsys.readouterr().out
    assert "0 of 2" in out and "PyTorch, FP32: of image 1 layer 4 first reads another bit 5" in out


def test_convolutions_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    folder = trained(tmp_path / "run", f"{file}:small", "--scheme", "bireal", *BINARY)
    said = refused(capsys, folder)
    assert f"only what you name yourself is run: weft classify {folder} --model {file}:small" in said
    found = document(capsys, folder, "--model", f"{file}:small", "--images", 30)
    assert [(layer["m"], layer["k"], layer["n"]) for layer in found["layers"]] == [(1080, 9, 8), (30, 72, 10)]
    assert found["equal"] is True and found["agreement"][0]["bits"] == 30 * 72


def test_what_is_refused(capsys: pytest.CaptureFixture[str], tfc: Path, tmp_path: Path) -> None:
    assert "is not the folder of a training: it holds no checkpoint.pt" in refused(capsys, tmp_path)
    assert "nowhere: is not the folder of a training" in refused(capsys, tmp_path / "nowhere")
    assert "'sat-vcu1525' has no XNOR engine: give it a table [xnor]" in refused(capsys, tfc, "--arch", "sat-vcu1525")
    assert "must be an integer from 1 to 355, not 0" in refused(capsys, tfc, "--images", 0)
    assert "batch must be an integer from 1 to 355, not 356" in refused(capsys, tfc, "--batch", 356)
    assert "holds a training with model tfc, not sfc" in refused(capsys, tfc, "--model", "sfc")
    dense = trained(tmp_path / "dense", "mlp", "--scheme", "dense", "--epochs", "1")
    assert "scheme 'dense' leaves real numbers" in refused(capsys, dense)
    usual = trained(tmp_path / "usual", "mlp", "--scheme", "xnor", "--epochs", "1")
    assert "train with --option norm=none" in refused(capsys, usual)
    (tmp_path / "dense" / "checkpoint.pt").write_bytes(b"no checkpoint")
    assert "is not a whole checkpoint of Weft" in refused(capsys, dense)


def test_a_training_that_is_not_finished_is_not_classified_by(
    capsys: pytest.CaptureFixture[str], tfc: Path, tmp_path: Path
) -> None:
    from weft.workloads.training import plan, train

    def stop(done: int, steps: int) -> None:
        if done == 2:
            raise ZeroDivisionError

    spec = plan("tfc", scheme="xnor", epochs=1, options={"norm": "none", "ends": "int5"})
    with pytest.raises(ZeroDivisionError):
        train(spec, tmp_path / "run", progress=stop)
    said = refused(capsys, tmp_path / "run")
    assert f"its training is in step 0 of 16; finish it first: weft train --resume {tmp_path / 'run'}" in said


def test_nothing_is_written(capsys: pytest.CaptureFixture[str], tfc: Path) -> None:
    before = {path.name: path.read_bytes() for path in tfc.iterdir()}
    document(capsys, tfc, "--images", 1)
    assert {path.name: path.read_bytes() for path in tfc.iterdir()} == before


def test_without_the_tools_of_the_rtl_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], tfc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "amaranth" else object())
    assert "weft classify --rtl needs amaranth: pip install 'weft[hdl]'" in refused(capsys, tfc, "--rtl")


def test_as_a_program_of_the_whole_machine(capsys: pytest.CaptureFixture[str], tfc: Path, tmp_path: Path) -> None:
    found = document(capsys, tfc, "--images", 40, "--program")
    model = next(other for other in found["agreement"] if other["with"] == "program, model")
    assert found["equal"] and (model["images"], model["bits"]) == (40, 40 * 3 * 64)
    assert not model["classes_that_differ"] and not model["bits_that_differ"]
    assert found["program"]["images"] == 32 and found["program"]["cycles"] > 0
    assert main(["compile", str(tfc), "--arch", "bnn-ecp5", "--batch", "32", "-o", str(tmp_path / "p"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["programs"]["inference"]["instructions"] == found["program"]["instructions"]
    program, where = (
        read_program(tmp_path / "p" / "inference.weft"),
        json.loads((tmp_path / "p/memory.json").read_text()),
    )
    assert program.machine == said["hash"] == where["machine"]
    assert (tmp_path / "p" / "memory.bin").stat().st_size == said["window"] == where["window"]
    assert list(where["inputs"]) == [layer["name"] for layer in found["layers"]]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--arch", "tiny"), "'tiny' has no XNOR engine"),
        (("--arch", "bnn-ecp5", "--scheme", "bdwp"), "leave out --scheme, --nm, --data"),
        (("--arch", "bnn-ecp5", "--batch", "5000"), "--batch must be"),
    ],
)
def test_what_is_not_compiled_is_refused(
    capsys: pytest.CaptureFixture[str], tfc: Path, options: tuple[str, ...], why: str
) -> None:
    capsys.readouterr()
    assert main(["compile", str(tfc), *options]) == 2
    out, said = capsys.readouterr()
    assert not out and why in " ".join(said.split())
