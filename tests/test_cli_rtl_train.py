"""`weft rtl-train`: what is wrong is refused before anything is built; results and how one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from weft.analysis.verify.rtl_train import RtlTrainer
from weft.cli import main

from .analysis.verify.rtl_networks import NETWORKS


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--lr", "0"], "learning rate must be a number above 0"),
        (["--lr", "nan"], "learning rate must be a number above 0"),
        (["--steps", "0"], "--steps"),
        (["--seed", "-1"], "seed"),
        (["--arch", "tny"], "did you mean 'tiny'"),
        (["--model", "mpl"], "did you mean 'mlp'"),
        (["--nm", "2:8"], "scheme 'dense' keeps no N:M groups"),
        (["--scheme", "bwdp"], "did you mean 'bdwp'"),
        (["--batch", "100000"], "is larger than the"),
    ],
)
def test_bad_arguments_are_refused_before_a_build_is_announced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: list[str], why: str
) -> None:
    monkeypatch.setattr(RtlTrainer, "build", None)
    assert main(["rtl-train", "digits", *args]) == 2
    said = capsys.readouterr()
    assert why in said.err.replace("\n", " ")
    assert "RTL, which takes minutes" not in said.err and said.out == ""


def test_a_folder_that_is_a_file_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["rtl-train", "digits", "-o", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "networks.py").write_text(NETWORKS)
    return f"{tmp_path / 'networks.py'}:mlp"


@pytest.mark.slow
def test_losses_cycles_and_a_picture_are_kept(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    args = ["rtl-train", "digits", "--model", model, "--batch", "8", "--steps", "3", "-o", str(out)]
    assert main([*args, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    kept = json.loads((out / "rtl-train.json").read_text())
    assert kept["steps"] == document["steps"] and len(kept["steps"]) == 3
    assert kept["accuracy"] == document["accuracy"] > 0
    assert all(s["loss"] == s["model_loss"] and s["cycles"] == s["predicted"] == 6979 for s in kept["steps"])
    assert (out / "rtl-train.png").read_bytes().startswith(b"\x89PNG")
    assert main(args) == 0
    assert "cycle of each of 62 commands a step" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
def test_ctrl_c_keeps_the_steps_and_the_same_command_goes_on(tmp_path: Path, model: str) -> None:
    def command(folder: Path, steps: int) -> list[str]:
        args = ["rtl-train", "digits", "--model", model, "--batch", "8", "--steps", str(steps), "-o", str(folder)]
        return [sys.executable, "-m", "weft", *args]

    broken, whole = tmp_path / "broken", tmp_path / "whole"
    subprocess.run(command(whole, 6), check=True, capture_output=True)
    process = subprocess.Popen(command(broken, 6), stderr=subprocess.PIPE, text=True)
    document = broken / "rtl-train.json"
    while process.poll() is None and not document.is_file():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    if process.returncode:  # on a quick machine it may have ended before
        assert process.returncode == 130 and "of 6 steps are in" in said.replace("\n", " ")
        assert json.loads(document.read_text())["accuracy"] is None
    again = subprocess.run(command(broken, 6), check=True, capture_output=True, text=True)
    assert process.returncode == 0 or "going on from there" in again.stderr.replace("\n", " ")
    assert json.loads(document.read_text()) == json.loads((whole / "rtl-train.json").read_text())
