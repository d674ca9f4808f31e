"""One result has one time: in its JSON, its pictures, its page, its explanation, whatever the level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from weft.analysis.explain import explain_energy
from weft.analysis.figures import layers_figure, roofline_figure
from weft.analysis.level import AnyResult, cycles_of, level_of, seconds_of, step_of
from weft.analysis.report.folder import read_folder
from weft.analysis.report.page import report_page
from weft.analysis.save import save_run
from weft.analysis.saved import saved_run
from weft.analysis.system import result_dict
from weft.analysis.throughput import throughput
from weft.analysis.words import seconds
from weft.cli import main
from weft.dataflow.schedule import schedule
from weft.simulator.result import SimResult
from weft.simulator.system import simulate_system


@pytest.fixture(scope="module", params=["step", "system"])
def result(request: pytest.FixtureRequest, bdwp: SimResult) -> AnyResult:
    return bdwp if request.param == "step" else simulate_system(schedule(bdwp.workload, bdwp.spec))


@pytest.fixture
def folder(result: AnyResult, tmp_path: Path) -> Path:
    save_run(result, tmp_path / "out", "weft run")
    return tmp_path / "out"


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


def test_the_levels_differ(bdwp: SimResult, result: AnyResult) -> None:
    assert step_of(result).cycles == bdwp.cycles
    assert (cycles_of(result) < bdwp.cycles.total) == (level_of(result) == "system")


def test_every_place_says_the_same_time(
    result: AnyResult, folder: Path, bdwp: SimResult, capsys: pytest.CaptureFixture[str]
) -> None:
    took, other = seconds(seconds_of(result)), seconds(bdwp.cycles.total / bdwp.spec.clock_hz)
    named = {"step": "op after op", "system": "with ops overlapped"}[level_of(result)]
    for draw in (layers_figure, roofline_figure):
        assert f"one training step, {took} {named}" in words(draw(result))
        assert level_of(result) == "step" or other not in words(draw(result))
    document = json.loads((folder / "result.json").read_text())
    assert document == json.loads(json.dumps(result_dict(result, "weft run")))
    assert document["level"] == level_of(result)
    assert (document["cycles"], document["seconds"]) == (cycles_of(result), seconds_of(result))
    assert throughput(result).seconds == seconds_of(result)
    assert f"takes {took} and" in report_page(read_folder(folder), "one")

    assert main(["explain", "energy", str(folder)]) == 0
    assert named in " ".join(capsys.readouterr().out.split())
    assert main(["explain", "energy", str(folder), "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["energy_j"] == explained["reported_j"] == document["energy_j"]
    assert explained["level"] == level_of(result) and not any("the folder says" in note for note in explained["notes"])


def test_a_folder_is_simulated_at_its_level(result: AnyResult, folder: Path) -> None:
    again = saved_run(folder).simulated()

    assert (level_of(again), cycles_of(again)) == (level_of(result), cycles_of(result))
    assert explain_energy(again).document() == explain_energy(result).document()
