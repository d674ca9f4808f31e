"""What a bitstream takes, as a tree: sums by hand, and beside them what is known of the blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from weft.analysis.area_by_shape import area_of_shape
from weft.analysis.board_report import board_document, board_rows
from weft.dataflow.config_io import load_spec
from weft.hdl.boards.board import find_board
from weft.hdl.flow.bitstream import BuiltBitstream, Module
from weft.hdl.flow.devices import Resources
from weft.hdl.flow.route import CriticalPath
from weft.workloads.errors import InputError

SPEC = load_spec("tiny-ecp5")


def built(mhz: float = 30.0) -> BuiltBitstream:
    modules = (
        Module(name="top", inside="", count=1, each=Resources(ff=2)),
        Module(name="product_unit", inside="top", count=1, each=Resources(lut=100, bram=40)),
        Module(name="stce", inside="product_unit", count=1, each=Resources(lut=1_000, carry=50, ff=300)),
        Module(name="pe", inside="stce", count=4, each=Resources(lut=600, memory_lut=228, carry=80, dsp=1)),
        Module(name="bridge", inside="top", count=1, each=Resources(lut=7)),
    )
    board = find_board("ulx3s")
    critical = CriticalPath(source="a", sink="b", logic_ns=10.0, routing_ns=20.0, through=())
    return BuiltBitstream(
        board=board,
        shape=board.shape(),
        tools=("yosys 1",),
        modules=modules,
        used={"DP16KD": (40, 208)},
        asked=25.0,
        mhz=mhz,
        critical=critical,
        files={"weft.bit": b"", "weft.svf": b""},
    )


def test_a_module_has_all_that_is_inside_it() -> None:
    rows = {row.name: row for row in board_rows(built(), SPEC)}

    assert [(name, row.depth) for name, row in rows.items()] == [
        ("top", 0),
        ("product_unit", 1),
        ("stce", 2),
        ("pe", 3),
        ("bridge", 1),
    ]
    pe = 600 + 228 + 2 * 80
    assert rows["pe"].sites == 4 * pe
    assert rows["stce"].sites == 1_100
    assert rows["stce"].whole == Resources(lut=1_000 + 2_400, memory_lut=912, carry=50 + 320, ff=300, dsp=4)
    assert rows["top"].share == (4 * pe + 1_100 + 100 + 7) / 83_640
    assert rows["top"].whole.ff == 302 and rows["top"].whole.bram == 40


def test_estimates_stand_beside_the_blocks_that_area_knows() -> None:
    rows = {row.name: row for row in board_rows(built(), SPEC)}
    items = {(i.block, i.name): i for i in area_of_shape(SPEC, "ecp5").items}

    assert rows["pe"].estimate == 4 * items["stce", "pe"].lut_sites
    assert rows["stce"].estimate == items["stce", "edges"].lut_sites + items["stce", "control"].lut_sites
    assert rows["bridge"].estimate is None and rows["top"].estimate is None
    assert abs(rows["pe"].estimate / rows["pe"].sites - 1) < 0.1


def test_the_document_says_whether_the_clock_is_borne() -> None:
    said = board_document(built(), SPEC)

    assert (said["closes"], said["mhz"], said["asked_mhz"], said["device"]) == (True, 30.0, 25.0, "LFE5U-85F")
    assert board_document(built(24.9), SPEC)["closes"] is False
    assert said["files"] == ["weft.bit", "weft.svf"]
    assert said["used"] == {"DP16KD": {"used": 40, "of": 208}}


def test_a_machine_with_a_block_beyond_what_was_counted_has_no_estimate_of_that_one() -> None:
    """What took an hour to route must not be lost for it."""
    spec = load_spec(str(Path(__file__).parents[2] / "examples" / "tiny-xnor.toml"))
    with pytest.raises(InputError, match=r"nothing near pe.dense_words = 8 was synthesised"):
        area_of_shape(spec, "ecp5")
    elements = Module(name="xnor_pe", inside="top", count=2, each=Resources(lut=600, carry=42))
    made = built()
    rows = {row.name: row for row in board_rows(replace(made, modules=(*made.modules, elements)), spec)}

    assert rows["pe"].estimate is None and rows["stce"].estimate is None
    assert rows["xnor_pe"].estimate is not None
    assert abs(rows["xnor_pe"].estimate / rows["xnor_pe"].sites - 1) < 0.15
