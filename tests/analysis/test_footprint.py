"""Which blocks a step needs, and their LUTs against the file that synthesis wrote, read plainly."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest

from weft.analysis import footprint as module
from weft.analysis.footprint import area_target, blocks_in_use, footprint
from weft.analysis.synthesised import Module, Synthesised
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.result import SimResult
from weft.simulator.step import simulate
from weft.workloads.schemes.annotate import annotate
from weft.workloads.schemes.scheme import scheme
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan, step_workload


def step_of(name: str, machine: str) -> SimResult:
    pattern = NMPattern(keep=2, group=8) if scheme(name).takes_pattern else None
    return simulate(schedule(annotate(step_workload(plan("mlp", scheme=name)), name, pattern), load_spec(machine)))


def sites_of(block: str, of: dict[str, Any]) -> int:
    """LUT sites on the ECP5 of the block of that array or those lanes."""
    rows = json.loads((resources.files("weft") / "analysis" / "tables" / "area.json").read_text())["blocks"]
    fits = [r for r in rows if (r["block"], r["target"]) == (block, "ecp5") and of.items() <= r["of"].items()]
    (row,) = fits
    return sum(part["count"] * part["lut_sites"] for part in row["modules"])


def test_an_xnor_engine_that_no_op_is_on_is_not_used():
    dense, binary, ternary = (step_of(name, "bnn-ecp5") for name in ("dense", "xnor", "bitnet"))

    assert blocks_in_use([dense]) == ("stce", "wuve")
    assert blocks_in_use([binary]) == blocks_in_use([ternary]) == ("stce", "xnor_engine", "wuve")
    # Both stages of a training need what either needs.
    assert set(blocks_in_use([dense, binary])) == {"stce", "xnor_engine", "wuve"}


def test_luts_are_those_of_the_blocks_in_use():
    spec = load_spec("sat-ecp5")
    stce = sites_of("stce", {"array.rows": 8, "array.cols": 6})
    wuve = sites_of("wuve", {"wuve.lanes": spec.wuve.lanes, "mhz": 60})
    sore = sites_of("sore", {"sore.lanes": 8, "mhz": 60})

    dense, sparse = footprint([step_of("dense", "sat-ecp5")]), footprint([step_of("bdwp", "sat-ecp5")])
    assert (dense.blocks, dense.lut_sites) == (("stce", "wuve"), stce + wuve)
    assert (sparse.blocks, sparse.lut_sites) == (("stce", "sore", "wuve"), stce + wuve + sore)
    assert (dense.device, dense.of) == ("LFE5U-85F", 83_640)


def test_a_block_that_was_not_counted_leaves_no_number(monkeypatch):
    odd = replace(load_spec("tiny"), wuve=replace(load_spec("tiny").wuve, lanes=3))
    found = footprint([replace(step_of("dense", "tiny"), spec=odd)])

    assert area_target(odd) is None
    assert (found.device, found.lut_sites, found.of) == (None, None, None)
    one = Module(name="all", count=2, lut_sites=50, ff=0, dsp=0, bram=0, uram=0)
    known = Synthesised(tools="", modules=(one,))
    monkeypatch.setattr(module, "area_target", lambda _: "ecp5")
    monkeypatch.setattr(module, "known_block", lambda _, block, __: known if block.name == "stce" else None)
    assert footprint([step_of("dense", "tiny")]).lut_sites is None
    monkeypatch.setattr(module, "known_block", lambda *_: known)
    assert footprint([step_of("dense", "tiny")]).lut_sites == 200


@pytest.mark.parametrize("name", ["tiny", "sat-ecp5"])
def test_small_machines_are_counted_on_the_small_device(name):
    assert area_target(load_spec(name)) == "ecp5"
