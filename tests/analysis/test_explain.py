"""A reported energy taken apart: the parts are the whole, and a folder is only explained by what made it."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.analysis.explain import explain_energy, table_of
from weft.analysis.save import save_run
from weft.analysis.saved import saved_run
from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.simulator.result import SimResult
from weft.workloads.errors import InputError


def test_the_parts_are_the_reported_energy(bdwp: SimResult) -> None:
    found = explain_energy(bdwp)
    document = json.loads(json.dumps(found.document()))

    assert document["zeptojoules"] == sum(row["zeptojoules"] for row in document["rows"]) == energy(bdwp).zeptojoules
    assert document["energy_j"] == document["step_j"] == energy(bdwp).joules
    shares = [row["share"] for row in document["rows"]]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    assert sum(document["marks"].values()) == pytest.approx(document["energy_j"])


def test_marks_hold_what_the_rows_do(bdwp: SimResult) -> None:
    report = explain_energy(bdwp, load_table("asic-45nm")).report
    for mark, joules in report.by_mark.items():
        own = sum(row.zeptojoules for row in report.rows if row.mark == mark)
        assert joules == float(Fraction(own, 10**21))
    assert sum(j > 0 for j in report.by_mark.values()) >= 4


def test_ops_add_up_to_the_step(bdwp: SimResult) -> None:
    layers = ("net.0.conv", "net.1.conv", "net.2.conv", "head")
    names = [*layers, *(f"{name}.relu" for name in layers)]
    parts = [explain_energy(bdwp, op=name).report.zeptojoules for name in names]

    assert sum(parts) == energy(bdwp).zeptojoules
    # A layer takes in the update of its weight, which goes by its own name too.
    update = explain_energy(bdwp, op="head.weight").report.zeptojoules
    assert 0 < update < explain_energy(bdwp, op="head").report.zeptojoules


def test_an_unknown_op_names_the_nearest(bdwp: SimResult) -> None:
    with pytest.raises(InputError, match=r"--op 'heads' is no op of toy: did you mean 'head'"):
        explain_energy(bdwp, op="heads")


def test_notes_say_scaling_patterns_and_what_is_left_out(bdwp: SimResult) -> None:
    notes = " ".join(explain_energy(bdwp).notes)

    assert "Stillmaker" in notes and "DeepScaleTool" in notes
    assert "random reads of 64 bytes 18.01" in notes and "not counted: registers" in notes


def test_other_banks_are_for_chips_we_know() -> None:
    table = table_of("asic-22nm", 256)

    assert table != load_table("asic-22nm") and table.name == "asic-22nm"
    with pytest.raises(InputError, match="only the tables asic-"):
        table_of("fpga-ultrascale-plus", 256)


def test_a_folder_is_explained_as_it_was_reported(
    bdwp: SimResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_run(bdwp, tmp_path / "out", "weft run")

    assert main(["explain", "energy", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    reported = json.loads((tmp_path / "out" / "result.json").read_text())["energy_j"]
    assert found["reported_j"] == found["energy_j"] == reported == energy(bdwp).joules
    assert not any("the folder says" in note for note in found["notes"])

    assert main(["explain", "energy", str(tmp_path / "out"), "--op", "head", "--technology", "asic-45nm"]) == 0
    shown = capsys.readouterr().out
    assert "of the step" in shown and "the folder says" in shown and "Rests on figures that are" in shown

    fabric = ["--technology", "fpga-ultrascale-plus", "--json"]
    assert main(["explain", "energy", str(tmp_path / "out"), *fabric]) == 0
    assert "multiply-add in LUTs" in {row["action"] for row in json.loads(capsys.readouterr().out)["rows"]}

    assert main(["explain", "energy", str(tmp_path / "out"), "--batch", "3"]) == 2
    assert "brings its own step; leave out --batch" in capsys.readouterr().err


def test_a_folder_of_another_machine_is_refused(bdwp: SimResult, tmp_path: Path) -> None:
    save_run(bdwp, tmp_path / "out", "weft run")
    saved = saved_run(tmp_path / "out")
    saved.require(bdwp.spec)

    with pytest.raises(InputError, match="give the same --arch and --pregenerate"):
        saved.require(replace(load_spec("tiny"), clock_hz=5_000_000))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"result\.json: cannot be read"):
        saved_run(tmp_path)
    for text in ("[]", "{", '{"spec": "tiny"}'):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(InputError, match="is not a result of `weft run -o`"):
            saved_run(tmp_path)
