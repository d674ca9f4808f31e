"""What -o takes: places are tried before the work, pictures are those that are looked at."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from weft._cli import outputs, pipeline
from weft.cli import main
from weft.workloads.io import save_workload

from .test_cli import tiny_step


@pytest.fixture
def step(tmp_path: Path) -> Path:
    path = tmp_path / "step.json"
    save_workload(tiny_step(), path)
    return path


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main([*map(str, args)]) == 2
    return capsys.readouterr().err


def test_what_is_no_file_is_not_replaced(capsys: pytest.CaptureFixture[str], step: Path, tmp_path: Path) -> None:
    """`-o /dev/null` put a file in the place of the device."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "linked").symlink_to(tmp_path / "target.json")
    for name, said in (("pipe", "is no regular file"), ("linked", f"give {tmp_path / 'target.json'} itself")):
        before = (tmp_path / name).lstat()
        assert said in refused(capsys, "trace", step, "-o", tmp_path / name)
        assert (tmp_path / name).lstat().st_ino == before.st_ino


@pytest.mark.parametrize("command", ["run {step} --arch tiny", "compare {step} --arch tiny", "verilog --arch tiny"])
def test_a_place_is_tried_before_the_work(
    command: str, capsys: pytest.CaptureFixture[str], step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By writing a file there: access rights say nothing of a full disk, a quota, or a server's mapping of root."""

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    def work(*_: object, **__: object) -> None:
        raise AssertionError("it worked first")

    monkeypatch.setattr(pipeline, "simulate_step", work)
    monkeypatch.setattr("weft.analysis.verify.benches.emit", work)
    monkeypatch.setattr(outputs, "tempfile", SimpleNamespace(TemporaryFile=full))
    said = refused(capsys, *command.format(step=step).split(), "-o", tmp_path / "out")
    assert f"out: cannot be written: no space left on device at {tmp_path}" in said


def test_files_of_the_user_are_seen_before_the_work(
    capsys: pytest.CaptureFixture[str], step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (out / "bdwp").mkdir(parents=True)
    (out / "bdwp" / "thesis.tex").write_text("mine")
    said = refused(capsys, "compare", step, "--arch", "tiny", "-o", out)
    assert f"{out / 'bdwp'}: is not empty and was not written by weft" in said
    for command, name in (("compare", "comparison.png"), ("verilog", "README.txt"), ("study", "study.csv")):
        own = tmp_path / command
        own.mkdir()
        (own / name).write_text("mine")
        args = [str(step)] if command == "compare" else []
        said = refused(capsys, command, *args, "--arch", "tiny", "-o", own)
        assert f"{own / name}: was not written by weft and would be replaced" in said
        assert (own / name).read_text() == "mine"


def test_a_comparison_is_drawn_once_and_its_runs_when_asked(step: Path, tmp_path: Path) -> None:
    asked = ["compare", str(step), "--arch", "tiny", "--schemes", "dense,bdwp", "-o", str(tmp_path / "out")]

    def drawn() -> set[str]:
        return {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}

    assert main(asked) == 0
    assert drawn() == {"comparison.png", "promise.png"}
    assert main([*asked, "--draw-all"]) == 0
    runs = {f"{scheme}/{name}" for scheme in ("dense", "bdwp") for name in ("layers", "roofline", "energy", "dram")}
    assert drawn() == {f"{name}{dark}.png" for name in {"comparison", "promise", *runs} for dark in ("", "-dark")}


def test_what_an_earlier_comparison_wrote_goes(step: Path, tmp_path: Path) -> None:
    """A scheme of another machine or model beside those of this one would be reported with them."""
    out = tmp_path / "out"
    for schemes, found in (("dense,bdwp,srste", {"dense", "bdwp", "srste"}), ("dense,bdwp", {"dense", "bdwp"})):
        assert main(["compare", str(step), "--arch", "tiny", "--schemes", schemes, "-o", str(out)]) == 0
        assert {path.name for path in out.iterdir() if path.is_dir()} == found
