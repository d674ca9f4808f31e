"""What DRAM cannot hold: refused at the system level before anything is scheduled, a word of warning at the step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft._cli import pipeline
from weft.cli import main
from weft.dataflow.config_io import preset_text
from weft.workloads.io import save_workload

from .analysis.conftest import step


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """A step, and a machine whose DRAM is smaller than its weights."""
    save_workload(step(), tmp_path / "step.json")
    text = preset_text("tiny").replace("[dram]", "[dram]\ncapacity_bytes = 20_000")
    (tmp_path / "small.toml").write_text(text)
    return [str(tmp_path / "step.json"), "--arch", str(tmp_path / "small.toml")]


def test_the_system_level_refuses_before_it_schedules(
    places: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "schedule_step", lambda *_: pytest.fail("was scheduled"))

    assert main(["run", *places, "--level", "system"]) == 2
    assert "of DRAM (" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "compare", "explain energy"])
def test_the_step_level_says_so_once(command: str, places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), *places, "--json"]) == 0
    found = capsys.readouterr()

    assert json.loads(found.out)
    assert found.err.count("warning: a step of 'toy' at batch 10 needs") == 1
    assert "dram.capacity_bytes of 'tiny' is 20 kB: no batch fits" in " ".join(found.err.split())
