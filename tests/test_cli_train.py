"""`weft train --numerics`: a training in the machine's arithmetic, resumed to the same bits, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import weft
from weft._cli import train as train_command
from weft.cli import main


def document(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    assert main(["train", *map(str, args), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["train", *map(str, args)]) == 2
    out, said = capsys.readouterr()
    assert not out and "Traceback" not in said
    return said


def test_a_training_in_the_machines_arithmetic(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("mlp", "--scheme", "bdwp", "--nm", "2:8", "--epochs", 2, "--numerics", "machine")
    whole = document(capsys, *asked, "-o", tmp_path / "whole")
    assert whole["spec"]["numerics"] == "machine"
    assert (whole["log"][-1]["density_ff"], whole["log"][-1]["density_wu"]) == (0.25, 1.0)
    assert whole["log"][1]["loss"] < whole["log"][0]["loss"]

    @contextmanager
    def broken(_: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, of: os.kill(os.getpid(), signal.SIGINT) if done == 20 else None

    with monkeypatch.context() as patched:
        patched.setattr(train_command, "bar", broken)
        assert main(["train", *map(str, asked), "-o", str(tmp_path / "broken")]) == 130
    assert f"weft train --resume {tmp_path / 'broken'}" in capsys.readouterr().err
    other = refused(capsys, "--resume", tmp_path / "broken", "--numerics", "torch")
    assert "holds a training with numerics machine, not torch" in other
    resumed = document(capsys, "--resume", tmp_path / "broken")
    assert resumed["digest"] == whole["digest"]
    assert main(["train", "--resume", str(tmp_path / "broken")]) == 0
    assert "mlp on digits, bdwp 2:8, seed 0, numerics machine" in capsys.readouterr().out
    assert document(capsys, *asked, "--seed", 1)["digest"] != whole["digest"]
    # The front door gives the same arithmetic.
    again = weft.train("mlp", "bdwp", "2:8", epochs=2, numerics="machine")
    assert again.digest == whole["digest"]
    assert document(capsys, *asked[:-2])["digest"] != whole["digest"]


def test_what_the_machine_does_not_train_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    machine = ("--numerics", "machine")
    assert "amp 'bf16' is PyTorch's" in refused(capsys, "mlp", "--amp", "bf16", *machine)
    assert "train no scheme 'sste'" in refused(capsys, "mlp", "--scheme", "sste", *machine)
    assert "give --option decay=0" in refused(capsys, "mlp", "--scheme", "srste", *machine)
    assert "uses aten" in refused(capsys, "birealnet", "--scheme", "dense", *machine)
    assert "'--numerics': 'machines' is not one of" in refused(capsys, "mlp", "--numerics", "machines")
