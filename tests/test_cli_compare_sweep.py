"""`weft compare` of several patterns, machines and batches: every row is that of a single comparison, or a reason."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from weft.analysis.compare_sweep import SweepRow, bound_of, sweep
from weft.cli import main
from weft.dataflow.batch.bound import bound_rows
from weft.dataflow.batch.evaluate import depths
from weft.dataflow.batch.points import points_of
from weft.dataflow.batch.step import step_of
from weft.dataflow.config_io import load_spec, preset_text
from weft.simulator.memory import memory_need
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import LayerPatterns, NMPattern
from weft.workloads.step import Workload

from .analysis.conftest import run, step

MODEL = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 48)

def net(batch=4):
    return Net(), torch.empty(batch, 64)
"""
ROOT = Path(__file__).parents[1]


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(MODEL)
    return f"{path}:net"


def machine(folder: Path, name: str, *changes: tuple[str, str], preset: str = "tiny") -> str:
    text = preset_text(preset).replace(f'name = "{preset}"', f'name = "{name}"')
    for old, new in changes:
        text, times = re.subn(old, new, text)
        assert times
    (folder / f"{name}.toml").write_text(text)
    return str(folder / f"{name}.toml")


def document(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    assert main(["compare", *map(str, args), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["compare", *map(str, args)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "Traceback" not in shown.err
    return " ".join(shown.err.split())


# --- rows


def test_every_row_is_that_of_a_single_comparison(capsys: pytest.CaptureFixture[str], model: str) -> None:
    asked = ("--schemes", "bdwp,xnor", "--nm", "two=1:4", "--objective", "cycles")
    found = document(capsys, model, *asked, "--nm", "2:4,2:8", "--arch", "tiny,bnn-ecp5", "--batch", "3,8")

    same = {"scheme", "pattern", "machine", "cycles", "seconds", "samples_per_s", "speedup", "mac_speedup"}
    same |= {"ideal_speedup", "utilization", "energy_j"}
    singles: dict[tuple[str, int, str, str | None], dict[str, Any]] = {}
    for arch in ("tiny", "bnn-ecp5"):
        for batch in (3, 8):
            for pattern in ("2:4", "2:8"):
                args = ("--nm", pattern, "--arch", arch, "--batch", batch)
                one = document(capsys, model, "--schemes", "dense,bdwp,xnor", *asked[2:], *args)
                for row in one["schemes"]:
                    singles[arch, batch, row["scheme"], row["pattern"]] = row
    rows = {(row["machine"], row["batch"], row["scheme"], row["pattern"]): row for row in found["rows"]}

    assert rows.keys() == singles.keys() and len(rows) == len(found["rows"]) == 2 * 2 * (1 + 2 + 1)
    for key, row in rows.items():
        one = singles[key]
        assert {name: row[name] for name in same} == {name: one[name] for name in same}
        saved = one["saving"] or dict.fromkeys(("share", "low", "high"))
        assert (row["saving"], row["saving_low"], row["saving_high"]) == (saved["share"], saved["low"], saved["high"])
        assert not row["reason"]
        assert row["gap"] == row["cycles"] / row["bound_cycles"] - 1 >= 0
    assert found["layer_patterns"] == ["two=1:4"]
    # By machine, then by batch, dense first, though it was not asked for.
    assert [key[:2] for key in rows][::4] == [("tiny", 3), ("tiny", 8), ("bnn-ecp5", 3), ("bnn-ecp5", 8)]
    assert {key[2] for key in list(rows)[::4]} == {"dense"}


def test_a_scheme_that_makes_nothing_sparse_comes_once() -> None:
    patterns = [LayerPatterns.read(text) for text in ("2:4", "2:8")]
    found = sweep({10: step()}, {"tiny": load_spec("tiny")}, ("erk", "srste"), patterns)

    assert [row.run for row in found.rows] == ["dense", "erk", "srste 2:4", "srste 2:8"]
    assert "4 combinations" in repr(found)


def test_the_bound_is_below_the_step_and_above_that_of_any_passes_dense() -> None:
    """Against the kernel that many machines are ruled out by, which looks for the best set of dense passes."""
    spec = load_spec("tiny")
    points = points_of([spec])
    for scheme, pattern in (("dense", "2:8"), ("bdwp", "2:8"), ("srste", "2:4"), ("bdwp", "1:8")):
        result, least = run(scheme, pattern), np.zeros(1, np.int64)
        bound_rows(step_of(result.workload, spec), points.rows, depths(points, result.workload.rule), least)

        assert 0 < least[0] <= bound_of(result) <= result.cycles.total
        if scheme == "dense":
            assert least[0] == bound_of(result)


# --- what cannot run


def test_what_cannot_run_is_a_row_with_its_reason(
    capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path
) -> None:
    cramped = machine(tmp_path, "cramped", (r"(w2e|n2s|output)_bytes = .*", r"\1_bytes = 64"), preset="sat-vcu1525")
    poor = machine(tmp_path, "poor", (r"\[dram\]", "[dram]\ncapacity_bytes = 20_000"))
    asked = (model, "--schemes", "bdwp", "--nm", "2:8,1:16", "--batch", "1,4", "--arch", f"tiny,{cramped},{poor}")
    rows = document(capsys, *asked)["rows"]

    why = {(row["machine"], row["batch"], row["scheme"], row["pattern"]): row["reason"] for row in rows}
    assert len(why) == len(rows) == 3 * 2 * 3
    assert why["tiny", 4, "dense", None] == why["tiny", 4, "bdwp", "2:8"] == ""
    assert "pe.max_group of 'tiny' is 8" in why["tiny", 4, "bdwp", "1:16"]
    assert "more than 1 value per channel" in why["tiny", 1, "dense", None], "batch norm of one value"
    assert "fits the buffers of 'cramped'" in why["cramped", 4, "dense", None]
    assert "dram.capacity_bytes of 'poor' is 20 kB" in why["poor", 4, "dense", None]
    numbers = set(SweepRow.__dataclass_fields__) - {"machine", "batch", "scheme", "pattern", "reason"}
    assert all(bool(row["reason"]) == all(row[name] is None for name in numbers - {"saving"}) for row in rows)

    assert main(["compare", *asked]) == 0
    shown = capsys.readouterr().out
    assert shown.count("cannot run") == sum(bool(reason) for reason in why.values())
    assert "Cannot run: tiny, batch 4: bdwp 1:16; cramped, batch 4: bdwp 1:16" not in shown, "another machine's words"
    assert "Cannot run: tiny, batch 4: bdwp 1:16: pattern 1:16 has groups of 16" in shown
    assert max(map(len, shown.splitlines())) <= 132


def test_without_a_dense_step_there_is_no_speed_up(tmp_path: Path) -> None:
    """The compact copies of 1:8 take less than the dense one."""
    sparse, spec = annotate(step(), "bdwp", NMPattern.parse("1:8")), load_spec("tiny")
    needs = [memory_need(work, spec).total for work in (sparse, step())]
    assert needs[0] < needs[1]
    poor = load_spec(machine(tmp_path, "poor", (r"\[dram\]", f"[dram]\ncapacity_bytes = {needs[0]}")))

    dense, bdwp = sweep({10: step()}, {"poor": poor}, ("dense", "bdwp"), [LayerPatterns.read("1:8")]).rows

    assert "of DRAM" in dense.reason and dense.cycles is None
    assert bdwp.cycles == run("bdwp", "1:8").cycles.total and bdwp.samples_per_s is not None
    assert (bdwp.speedup, bdwp.saving) == (None, None) and (bdwp.ideal_speedup or 0.0) > 1


def test_a_step_that_no_batch_can_be_traced_of_ends_it(
    capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path
) -> None:
    assert "1 value per channel" in refused(capsys, model, "--arch", "tiny,sat-ecp5", "--batch", "1")
    missing = refused(capsys, f"{model}t", "--arch", "tiny", "--batch", "2,3")
    assert "mine.py" in missing and "'net'" in missing


# --- bad input


BAD = [
    ("--schemes dense,bdpw", "did you mean 'bdwp'"),
    ("--schemes bdwp,bdwp", "--schemes names 'bdwp' twice"),
    ("--arch tiny,sat-vcu1520", "did you mean 'sat-vcu1525'"),
    ("--arch tiny,tiny", "--arch names 'tiny' twice"),
    ("--arch tiny,", "machine '' is neither a preset"),
    ("--nm 2:4,3:2", "3:2"),
    ("--nm 2:4,dense", "'dense' is not of the form keep:group"),
    ("--nm 2:4,2:4", "--nm names '2:4' twice"),
    ("--nm 2:4,2:8 --nm 1:4", "put them together, 2:4,2:8,1:4, or name the layers of one, as in layer4.*=1:4"),
    ("--nm 2:4 --nm 1:4", "two N:M patterns are for all layers"),
    ("--nm 2:4,2:8 --nm two=1-4", "'1-4' is not of the form keep:group"),
    ("--batch 1,x", "--batch '1,x' is not of the form 64, or 1,64 for several"),
    ("--batch 4,0", "batch must be an integer from 1"),
    ("--batch 4,4", "--batch names 4 twice"),
    ("--objective speed", "'thrift'"),
    ("-o {model}", "is a file"),
    ("--mapping nowhere.toml", "nowhere.toml: cannot be read"),
]


@pytest.mark.parametrize(("options", "said"), BAD, ids=[options for options, _ in BAD])
def test_what_is_wrong_by_itself_ends_it_before_anything_is_traced(
    capsys: pytest.CaptureFixture[str], model: str, monkeypatch: pytest.MonkeyPatch, options: str, said: str
) -> None:
    monkeypatch.setattr("weft.workloads.catalog.open_model", lambda *_, **__: pytest.fail("it was traced"))
    asked = {"--arch": "tiny,sat-ecp5", "--batch": "2,4"}
    given = options.format(model=model.partition(":")[0]).split()
    rest = [word for name, value in asked.items() if name not in given for word in (name, value)]

    assert said in refused(capsys, model, *given, *rest)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--nm tow=1:4", "rule tow=1:4 matches no layer with a weight: did you mean 'two'"),
        ("--mapping {mapping}", "tow"),
    ],
)
def test_a_layer_that_is_not_there_ends_it_before_anything_is_simulated(
    capsys: pytest.CaptureFixture[str],
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: str,
    said: str,
) -> None:
    (tmp_path / "map.toml").write_text('[[op]]\nlayers = "tow"\ndataflow = "os"\n')
    monkeypatch.setattr("weft.analysis.compare_sweep.simulate", lambda *_: pytest.fail("it was simulated"))
    given = options.format(mapping=tmp_path / "map.toml").split()

    assert said in refused(capsys, model, "--schemes", "bdwp", "--nm", "2:4,2:8", *given)


def test_a_machine_that_its_table_cannot_charge_ends_it(
    capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.workloads.catalog.open_model", lambda *_, **__: pytest.fail("it was traced"))
    odd = machine(tmp_path, "odd", (r'technology = ".*"', 'technology = "asic-16mn"'))
    assert "asic-16nm" in refused(capsys, model, "--arch", f"tiny,{odd}")


# --- several of one name, commas in paths


def test_machines_of_one_name_go_by_what_was_asked_for(
    capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path
) -> None:
    other = machine(tmp_path, "tiny", (r"clock_hz = \S+", "clock_hz = 77_000_000"))
    found = document(capsys, model, "--schemes", "dense", "--arch", f"tiny,{other}")
    assert [row["machine"] for row in found["rows"]] == ["tiny", other]
    assert [one["spec"] for one in found["machines"]] == ["tiny", "tiny"]
    assert len({one["spec_hash"] for one in found["machines"]}) == 2


def test_a_path_with_a_comma_is_one_machine(capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path) -> None:
    found = document(capsys, model, "--schemes", "dense", "--arch", machine(tmp_path, "a,b"))
    assert "schemes" in found and "rows" not in found


# --- the folder


def test_the_folder(capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = (model, "--schemes", "dense,bdwp", "--nm", "2:8,1:16", "--arch", "tiny", "--batch", "2,4", "-o", out)
    found = document(capsys, *asked)

    files = {"manifest.json", *(f"sweep.{kind}" for kind in ("json", "csv", "parquet", "md", "png"))}
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == files
    assert json.loads((out / "sweep.json").read_text()) == found
    assert found["command"].startswith("weft compare ")
    table, text = pd.read_parquet(out / "sweep.parquet"), pd.read_csv(out / "sweep.csv", keep_default_na=True)
    assert list(table.columns) == list(text.columns) == list(found["rows"][0])
    for column in table:
        values = [row[column] for row in found["rows"]]
        assert [None if pd.isna(value) else value for value in table[column]] == values
    assert text["cycles"].dropna().astype(int).tolist() == table["cycles"].dropna().tolist()
    page = (out / "sweep").with_suffix(".md").read_text()
    assert page.count("\n| tiny |") == len(found["rows"]) == 6
    assert "- tiny, batch 2: bdwp 1:16; tiny, batch 4: bdwp 1:16: pattern 1:16 has groups of 16" in page

    assert main(["compare", *map(str, asked), "--draw-all"]) == 0
    assert (out / "sweep-dark.png").is_file()
    capsys.readouterr()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sweep.csv").write_text("mine")
    said = refused(capsys, *asked[:-1], tmp_path / "other")
    assert "was not written by weft" in said and (tmp_path / "other" / "sweep.csv").read_text() == "mine"


# --- the tutorial


def test_the_tutorial_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text()
    found = re.search(r"```\n\$ weft (compare [^\n]+)\n(.*?)```", text, re.DOTALL)
    assert found is not None
    assert main(shlex.split(found[1])) == 0
    printed, written = (" ".join(shown.split()) for shown in (capsys.readouterr().out, found[2]))
    assert printed == written


def test_traces_are_made_once_a_batch(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def opened(*_: object, batch: int, **__: object) -> Workload:
        asked.append(batch)
        return step()

    monkeypatch.setattr("weft.workloads.catalog.open_model", opened)
    assert (
        main(["compare", model, "--schemes", "bdwp", "--nm", "2:4,2:8", "--arch", "tiny,sat-ecp5", "--batch", "8,3"])
        == 0
    )
    assert asked == [8, 3]
