"""The folder of a run: complete, replaced by the next run, and never more of the user's than its own files."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from weft.analysis import save
from weft.analysis.publish import MANIFEST
from weft.analysis.records import to_dict
from weft.analysis.save import save_run
from weft.simulator.result import SimResult
from weft.workloads.errors import InputError
from weft.workloads.io import load_workload

TABLES = {"result.json", "ops.csv", "ops.parquet", "energy.csv", "workload.json", "machine.toml", MANIFEST}
FILES = TABLES | {"layers.png", "roofline.png", "energy.png", "dram.png"}


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture(scope="module")
def saved(bdwp: SimResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "deep" / "toy"
    written = save_run(bdwp, directory, "weft run toy")
    assert {path.name for path in written} == FILES
    return directory


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, which take longer than all else."""
    monkeypatch.setattr(save, "_FIGURES", {})


def test_a_saved_run_is_complete(saved: Path, bdwp: SimResult) -> None:
    assert names(saved) == FILES
    assert names(saved.parent) == {"toy"}
    found = json.loads((saved / "result.json").read_text())
    assert found == json.loads(json.dumps(to_dict(bdwp, "weft run toy")))
    assert load_workload(saved / "workload.json") == bdwp.workload
    for picture in FILES - TABLES:
        assert (saved / picture).read_bytes()[:4] == b"\x89PNG"


def test_tables_of_a_saved_run_read_back(saved: Path, bdwp: SimResult) -> None:
    csv, parquet = pd.read_csv(saved / "ops.csv"), pd.read_parquet(saved / "ops.parquet")

    assert len(csv) == len(parquet) == len(bdwp.ops)
    assert csv["cycles"].sum() == parquet["cycles"].sum() == bdwp.cycles.total


def test_a_name_in_a_table_is_no_formula_and_no_escape_sequence(bdwp: SimResult, tmp_path: Path) -> None:
    hostile = ['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(1)", "\t=1", "\r\n=1", "\x1b[2J", "$\\frac$", 'a,b"c']
    ops = tuple(
        replace(r, op=replace(r.op, name=name)) for r, name in zip(bdwp.ops[-len(hostile) :], hostile, strict=True)
    )
    save_run(replace(bdwp, ops=ops), tmp_path / "run", "weft run toy")
    raw = (tmp_path / "run" / "ops.csv").read_text()
    assert raw.isprintable() or set(raw) - {"\n"} <= {c for c in raw if c.isprintable()}
    rows = list(csv.DictReader(io.StringIO(raw)))
    assert [row["name"] for row in rows[:4]] == [f"'{name}" for name in hostile[:4]]
    assert [row["name"] for row in rows[4:]] == ["\\t=1", "\\r\\n=1", "\\x1b[2J", "$\\frac$", 'a,b"c']
    cells = [cell for row in rows for cell in row.values()]
    assert not [c for c in cells if c[:1] in "=+-@" and c and not re.fullmatch(r"-?[\d.e+-]+", c)]


def test_draw_all_is_drawn_when_asked_and_gone_when_not(bdwp: SimResult, tmp_path: Path) -> None:
    save_run(bdwp, tmp_path, "", draw_all=True)
    assert names(tmp_path) == FILES | {"layers-dark.png", "roofline-dark.png", "energy-dark.png", "dram-dark.png"}
    save_run(bdwp, tmp_path, "")
    assert names(tmp_path) == FILES


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_weft_is_replaced_in_place_and_other_files_in_it_stay(
    dense: SimResult, bdwp: SimResult, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    save_run(dense, directory, "first")
    (directory / "notes.txt").write_text("mine")
    inode = directory.stat().st_ino
    save_run(bdwp, directory, "second")

    assert json.loads((directory / "result.json").read_text())["command"] == "second"
    assert (directory / "notes.txt").read_text() == "mine"
    assert names(directory) == {*TABLES, "notes.txt"}
    assert names(tmp_path) == {"run"} and directory.stat().st_ino == inode


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_an_older_version_is_replaced(dense: SimResult, bdwp: SimResult, tmp_path: Path) -> None:
    save_run(dense, tmp_path, "first")
    (tmp_path / MANIFEST).unlink()
    save_run(bdwp, tmp_path, "second")

    assert json.loads((tmp_path / "result.json").read_text())["command"] == "second"


@pytest.mark.usefixtures("undrawn")
def test_an_empty_directory_is_used(dense: SimResult, tmp_path: Path) -> None:
    save_run(dense, tmp_path, "")

    assert names(tmp_path) == TABLES


@pytest.mark.parametrize("text", [None, "not json", "[1]", '{"version": 1}'])
def test_a_directory_of_somebody_else_is_refused(text: str | None, dense: SimResult, tmp_path: Path) -> None:
    directory = tmp_path / "theirs"
    directory.mkdir()
    (directory / ("thesis.tex" if text is None else "result.json")).write_text(text or "")
    before = names(directory)

    with pytest.raises(InputError, match="is not empty and was not written by weft"):
        save_run(dense, directory, "")
    assert names(directory) == before and names(tmp_path) == {"theirs"}


def test_a_file_is_refused(dense: SimResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="is a file"):
        save_run(dense, tmp_path / "file", "")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.usefixtures("undrawn")
def test_an_interruption_leaves_nothing_half_written(
    error: BaseException, dense: SimResult, bdwp: SimResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    save_run(dense, old, "before")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("os.fsync", fail)
    for directory in (old, new):
        with pytest.raises((KeyboardInterrupt, InputError)) as caught:
            save_run(bdwp, directory, "after")
        expected = "" if isinstance(error, KeyboardInterrupt) else "cannot be written: No space left on device"
        assert expected in str(caught.value)

    assert names(old) == TABLES and names(new) == set()
    assert json.loads((old / "result.json").read_text())["command"] == "before"
