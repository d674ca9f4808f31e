"""What a scheme saves by every table, against the reports of each table; published machines by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from weft.analysis.compare import compare
from weft.analysis.comparison_files import comparison_dict
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table, table_names
from weft.analysis.published import on_chip_pj, on_chip_words, published_machines
from weft.analysis.report.folder import Contents, Run
from weft.analysis.report.page import report_page
from weft.analysis.savings import Saving, range_words, saving, saving_words
from weft.cli import main
from weft.dataflow.actions import Component
from weft.dataflow.schedule import schedule
from weft.simulator.result import SimResult
from weft.simulator.system import simulate_system
from weft.workloads.io import save_workload

from .conftest import step


def test_the_shares_are_those_of_every_table(bdwp: SimResult, dense: SimResult) -> None:
    shares = {
        name: 1 - energy(bdwp, load_table(name)).joules / energy(dense, load_table(name)).joules
        for name in table_names()
    }
    found = saving(bdwp, dense)

    assert found.share == pytest.approx(shares[bdwp.spec.technology])
    assert found.tables == pytest.approx(shares)
    assert found.low < found.share < found.high


def test_where_ops_overlap_it_is_the_overlapped_step_that_is_charged(bdwp: SimResult, dense: SimResult) -> None:
    one, other = (simulate_system(schedule(r.workload, r.spec)) for r in (bdwp, dense))

    assert saving(one, other).share == pytest.approx(1 - energy(one).joules / energy(other).joules)


def test_a_table_that_cannot_charge_a_machine_is_left_out(
    bdwp: SimResult, dense: SimResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    spec = replace(bdwp.spec, pe=replace(bdwp.spec.pe, add_latency=5))
    found = saving(replace(bdwp, spec=spec), replace(dense, spec=spec))

    assert set(table_names()) - set(found.tables) == {"fpga-ultrascale-plus", "fpga-ecp5"}


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((0.057, 0.039, 0.112), "5.7 % less energy (3.9-11.2 %; by other tables 3.1-42.2 %)"),
        ((0.006, -0.006, 0.205), "0.6 % less energy (-0.6 to 20.5 % less; by other tables 3.1-42.2 %)"),
        ((-0.02, -0.05, -0.01), "2.0 % more energy (-5.0 to -1.0 % less; by other tables 3.1-42.2 %)"),
    ],
)
def test_words(shares: tuple[float, float, float], words: str) -> None:
    share, low, high = shares
    found = Saving(share=share, low=low, high=high, tables={"one": 0.031, "other": 0.422})

    assert saving_words(found) == words


def test_a_comparison_a_page_and_the_terminal_say_the_range(
    bdwp: SimResult, dense: SimResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = saving(bdwp, dense)
    rows = json.loads(json.dumps(comparison_dict(compare([dense, bdwp]))))["schemes"]
    assert rows[0]["saving"] is None
    assert [rows[1]["saving"][key] for key in ("share", "low", "high")] == [found.share, found.low, found.high]

    runs = tuple(
        Run(place=name, label=name, name=name, result=r, system=None, command="", weft_version="0")
        for name, r in (("dense", dense), ("bdwp", bdwp))
    )
    page = report_page(Contents(runs=runs, study=None), "two")
    assert f"<strong>{saving_words(found)}</strong>" in page
    assert f"{100 * found.share:.1f} ({range_words(found)})" in page
    assert on_chip_words(energy(bdwp)) in page.replace("&#x27;", "'")

    save_workload(step(), tmp_path / "step.json")
    assert main(["compare", str(tmp_path / "step.json"), "--arch", "tiny", "--schemes", "dense,bdwp"]) == 0
    assert f"bdwp {saving_words(found)}" in " ".join(capsys.readouterr().out.split())


def test_energy_on_chip_stands_beside_published_machines(
    bdwp: SimResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = energy(bdwp)
    own = 1e12 * sum(j for c, j in report.by_component.items() if c != Component.DRAM) / bdwp.counts.macs
    assert on_chip_pj(report) == pytest.approx(own)
    by_hand = {"RedMulE's cluster": 2 / 0.755, "SIGMA": 2 * 22.33 / 10.8, "TPU v4": 2 * 192 / 275}
    assert {m.name: m.pj_per_mac for m in published_machines()} == pytest.approx(by_hand, rel=1e-3)

    save_workload(bdwp.workload, tmp_path / "step.json")
    assert main(["explain", "energy", str(tmp_path / "step.json"), "--arch", "tiny"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert on_chip_words(report) in shown
    for machine in published_machines():
        assert machine.source in shown and f"{machine.pj_per_mac / own:.2g} times ours" in shown
    assert on_chip_words(energy(bdwp, of=lambda r: r.op.name == "head.relu")) is None
