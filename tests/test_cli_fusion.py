"""`--fusion`: what is saved in words, the same figures from every command, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

import weft
from weft.analysis.explore.saved import read_explored
from weft.analysis.fused import savings
from weft.cli import main
from weft.workloads.io import save_workload
from weft.workloads.step import Workload
from weft.workloads.trace import trace_step

from .dataflow.test_fusion import graph
from .workloads.toy_models import floats, source_of


@pytest.fixture
def step() -> Workload:
    return graph(3)


@pytest.fixture
def model(step: Workload, tmp_path: Path) -> Path:
    path = tmp_path / "toy.json"
    save_workload(step, path)
    return path


def test_a_run_says_what_is_saved(step: Workload, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(model), "--arch", "tiny", "--scheme", "dense", "--fusion", "full"]) == 0
    out = capsys.readouterr().out
    found = savings(weft.simulate(weft.schedule(weft.fuse(step), "tiny")))
    assert found[0].write > 0
    assert f"Fused (full): {_si(sum(s.write for s in found))}B not written" in out
    assert f"fused into {found[0].into} ({found[0].pass_})" in out


def _si(value: float) -> str:
    return f"{value / 1000:#.4g} k" if value >= 1000 else f"{value:#.4g} "


def test_what_is_saved_is_what_dram_moves_less(step: Workload) -> None:
    for fusion in ("elementwise", "full"):
        before, after = (weft.simulate(weft.schedule(s, "tiny")) for s in (step, weft.fuse(step, fusion)))
        saved = savings(after)
        assert sum(s.read for s in saved) == before.counts.dram_read_bytes - after.counts.dram_read_bytes > 0
        assert sum(s.write for s in saved) == before.counts.dram_write_bytes - after.counts.dram_write_bytes > 0


def test_compare_and_explore_have_the_figures_of_a_run(
    step: Workload, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse = weft.simulate(weft.schedule(weft.sparsify(weft.fuse(step), "bdwp", "2:8"), "tiny"))
    asked = ["compare", str(model), "--arch", "tiny", "--schemes", "dense,bdwp", "--fusion", "full", "--json"]
    assert main(asked) == 0
    assert f'"cycles": {sparse.cycles.total}' in json.dumps(json.loads(capsys.readouterr().out))

    space = tmp_path / "space.toml"
    space.write_text(
        f'model = "{model}"\narch = "tiny"\n[axes]\n"vector.lanes" = [4, {weft.machine("tiny").vector.lanes}]'
    )
    for fusion in ("none", "full"):
        assert main(["explore", str(space), "-o", str(tmp_path / fusion), "--fusion", fusion]) == 0
    found = read_explored(tmp_path / "full").frame()
    assert (
        found["cycles"].iloc[1]
        == weft.simulate(weft.schedule(weft.sparsify(weft.fuse(step), "bdwp", "2:8"), "tiny", "cycles")).cycles.total
    )
    assert (found["cycles"] < read_explored(tmp_path / "none").frame()["cycles"]).all()


def test_what_no_trace_tells_of_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = weft.sparsify(trace_step(source_of(_two, floats(8, 16))), "xnor")
    save_workload(old, tmp_path / "few.json")
    assert main(["run", str(tmp_path / "few.json"), "--arch", "tiny", "--fusion", "full"]) != 0
    assert "trace it again" in capsys.readouterr().err


def _two() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
