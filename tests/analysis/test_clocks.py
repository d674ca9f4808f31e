"""What is known of clocks: only what was routed is claimed, and a table with an origin says it."""

from __future__ import annotations

from pathlib import Path

import pytest

import weft
from weft.analysis import clocks
from weft.analysis.clocks import Routed, closes, routed
from weft.analysis.variants import changed
from weft.dataflow.config_io import load_spec
from weft.workloads.errors import InputError
from weft.workloads.mark import Mark

ROOT = Path(weft.__file__).parent


def test_every_clock_stands_where_it_is_said_to():
    for one in routed():
        page = one.source.split(",")[0]
        assert f"{one.mhz:g}" in (ROOT / page).read_text(), one
        assert one.mark is Mark.MEASURED


def test_nothing_is_claimed_of_ultrascale():
    found = closes(load_spec("sat-vcu1525"), "xcup")
    assert found.verdict is None
    assert "XCVU9P" in found.reason


def test_an_array_is_no_faster_than_its_smallest():
    """1 x 1 of that PE reached 88.9 MHz of 100; within the 5 % by which runs differ nobody knows."""
    spec = load_spec("sat-ecp5")
    assert closes(changed(spec, {"mhz": 94}), "ecp5").verdict is False
    assert closes(changed(spec, {"mhz": 93}), "ecp5").verdict is None
    assert "1 x 1 of stce reached 88.9 MHz" in closes(changed(spec, {"mhz": 94}), "ecp5").reason


def test_a_run_that_reached_what_it_was_asked_for_says_nothing_of_more():
    """4 x 4 of tiny was asked for 80 MHz and reached 81.9."""
    assert closes(changed(load_spec("tiny"), {"mhz": 100}), "ecp5").verdict is None


def test_another_pe_says_nothing():
    spec = changed(load_spec("sat-ecp5"), {"mhz": 200, "pe.accumulators": 2})
    found = closes(spec, "ecp5")
    assert found.verdict is None
    assert "neither stce nor a part of it was placed and routed" in found.reason


def test_a_machine_closes_when_each_of_its_blocks_does(monkeypatch):
    spec = load_spec("tiny")

    def block(name, mhz):
        of = {"stce": {"array.rows": 4}, "sore": {"sore.lanes": 4}, "wuve": {"wuve.lanes": 4}}[name]
        return Routed(block=name, asked_mhz=200, mhz=mhz, of=of, mark=Mark.MEASURED, source="here")

    def said(*speeds):
        made = tuple(map(block, ("stce", "sore", "wuve"), speeds))
        monkeypatch.setattr(clocks, "routed", lambda: made)
        return closes(spec, "ecp5")

    assert said(100.0, 120.0, 101.0).verdict is True
    assert said(100.0, 120.0, 99.0).verdict is None
    assert said(100.0, 120.0, 90.0).verdict is False
    assert said(100.0, 120.0, 90.0).reason == "wuve needs 100 MHz, and 4 of wuve reached 90 MHz (here)"


def test_a_target_without_areas_is_refused():
    with pytest.raises(InputError, match=r"no area for 'ecp6'"):
        closes(load_spec("tiny"), "ecp6")
