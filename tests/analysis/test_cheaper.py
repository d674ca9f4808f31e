"""Another objective is named where it saves a tenth of the energy of a nearly equal step."""

from __future__ import annotations

from dataclasses import replace

import pytest

import weft
from weft.analysis import cheaper as module
from weft.analysis.cheaper import cheaper
from weft.analysis.energy import energy
from weft.cli import main
from weft.dataflow.config_io import dumps_spec

CHIP = replace(weft.machine("sat-vcu1525"), technology="asic-16nm")
"""Whose joules are bytes; those of an FPGA are seconds, of which little is saved."""


def test_what_is_named_is_what_a_run_under_that_objective_takes():
    step = weft.sparsify(weft.trace("mobilenet_v2", batch=4), "bdwp", "2:8")
    result = weft.simulate(weft.schedule(step, CHIP, "cycles"))
    found = cheaper(result)
    assert found is not None
    other = weft.simulate(weft.schedule(step, CHIP, str(found.objective)))

    assert found.joules == energy(other).joules
    assert found.saved == pytest.approx(1 - energy(other).joules / energy(result).joules) and found.saved >= 0.1
    assert found.slower == other.cycles.total / result.cycles.total - 1 <= 0.02


def test_nothing_is_named_for_a_step_that_is_cheap_already(monkeypatch):
    step = weft.sparsify(weft.trace("resnet9", batch=64), "bdwp", "2:8")
    assert cheaper(weft.simulate(weft.schedule(step, "tiny"))) is None
    result = weft.simulate(weft.schedule(weft.trace("mobilenet_v2", batch=4), CHIP, "cycles"))
    monkeypatch.setattr(module, "MOST_SLOWER", -1.0)
    assert cheaper(result) is None


def test_the_command_line_names_it(capsys, tmp_path):
    (tmp_path / "chip.toml").write_text(dumps_spec(CHIP))
    given = ["--arch", str(tmp_path / "chip.toml"), "--batch", "4", "--objective", "cycles"]
    assert main(["run", "mobilenet_v2", *given]) == 0
    assert "% less energy, for 0.1 % more time." in capsys.readouterr().out
