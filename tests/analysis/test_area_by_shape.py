"""Areas of machines that nobody synthesised, against the RTL, held-out syntheses and the tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft.analysis import area_model
from weft.analysis.area import known_area
from weft.analysis.area_by_shape import Areas, area_of_shape, areas
from weft.analysis.area_model import COUNTS, counts_of
from weft.analysis.area_rules import NUMBERS, RULES
from weft.analysis.synthesised import block_fields, counted_block, known_block
from weft.analysis.variants import base, changed, measured, plan, variants
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.hdl.flow.devices import PARTS
from weft.hdl.registry import BLOCKS
from weft.tests.analysis.test_area import SHIPPED
from weft.tests.held_out_areas import FILE, HELD_OUT
from weft.workloads.errors import InputError
from weft.workloads.mark import Mark

WITHIN = 0.06
"""Of the LUTs, and of the registers, of a whole block; docs/results/synthesis.md has what was found."""
FEW = 24
"""LUTs or registers by which a block of few may be off."""


@pytest.fixture(autouse=True)
def nothing_counted_here(monkeypatch, tmp_path):
    """What somebody counted with `weft area` is known, too: an empty cache."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))


def columns_of(spec: AcceleratorSpec, block: str):
    return {name: np.array([value]) for name, value in block_fields(spec, BLOCKS[block]).items()}


def held_out():
    return json.loads(FILE.read_text())


@st.composite
def machines(draw):
    """Machines with an array and an XNOR engine of any numbers."""
    group = draw(st.integers(1, 32))
    fields = {
        "array.rows": draw(st.integers(1, 70)),
        "array.cols": draw(st.integers(1, 70)),
        "array.w2e_words": draw(st.integers(1, 9)),
        "pe.accumulators": draw(st.integers(1, 64)),
        "pe.max_group": group,
        "pe.dense_words": draw(st.integers(group, 300)),
        "pe.weight_pairs": draw(st.integers(1, 32)),
        "pe.multiply_latency": draw(st.integers(1, 5)),
        "pe.add_latency": draw(st.integers(1, 7)),
        "pe.format": draw(st.sampled_from(["fp16", "bf16"])),
        "xnor.rows": draw(st.integers(1, 70)),
        "xnor.cols": draw(st.integers(1, 70)),
        "xnor.word_bits": 8 * draw(st.integers(1, 32)),
        "xnor.accumulators": draw(st.integers(1, 64)),
        "xnor.dense_words": draw(st.integers(1, 70)),
        "xnor.weight_words": draw(st.integers(1, 32)),
        "xnor.popcount_latency": draw(st.integers(1, 4)),
    }
    spec = base("ecp5")
    # in an order in which every machine on the way is one
    return changed(changed(spec, {"pe.max_group": 1, "pe.dense_words": 4096}), fields)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machines())
def test_the_numbers_of_an_array_are_the_widths_of_its_rtl(spec):
    """`ControlFormat` lays out what is built; the numbers are worked out beside it, in bulk."""
    pytest.importorskip("amaranth")
    from amaranth.hdl import Shape

    from weft.hdl.blocks.control_format import ControlFormat

    for block, described in (("stce", spec), ("xnor_engine", spec.xnor)):
        numbers = {
            name: int(value[0])
            for name, value in NUMBERS[block](columns_of(spec, block) | {"lut_ram": np.array([16])}).items()
        }
        made = ControlFormat(described)
        widths = {name: Shape.cast(field.shape).width for name, field in made.run}
        for ours, register in {
            "interleave": "interleave",
            "part": "part_words",
            "pairs": "part_pairs",
            "row_delay": "row_delay",
            "drain": "drain_words",
            "shift": "shift_pairs",
            "tail": "tail_cycles",
            "held": "tap",
        }.items():
            assert numbers[ours] == widths[register], (block, ours)
        pe = made.pe
        assert [numbers[name] for name in ("context", "held", "chunk", "position")] == [
            pe.context,
            pe.held,
            pe.chunk,
            pe.position,
        ]
        assert numbers["delay"] == made.delay_bits
        assert numbers["ring"] == max(16, 1 << made.delay_bits) * made.step.size
        if block == "stce":
            assert numbers["index"] == pe.pair["index"].width
            assert numbers["word"] == pe.word
        else:
            assert 2 * numbers["bits"] == numbers["word"] == pe.word


def test_modules_with_the_same_numbers_are_the_same_rtl_and_others_are_not():
    """A PE of five accumulators is that of eight, whatever array it stands in."""
    pytest.importorskip("amaranth")
    from amaranth.back import rtlil

    from weft.hdl.blocks.pe import Uspe

    def text(**fields):
        spec = changed(base("ecp5"), {name.replace("__", "."): value for name, value in fields.items()})
        key = RULES["stce"]["pe"].key
        numbers = NUMBERS["stce"](columns_of(spec, "stce") | {"lut_ram": np.array([16])})
        return rtlil.convert(Uspe(spec), name="pe", emit_src=False), [int(numbers[name][0]) for name in key]

    eight = text()
    for same in ({"pe__accumulators": 5}, {"pe__weight_pairs": 3, "array__rows": 7}, {"pe__dense_words": 20}):
        assert text(**same) == eight
    for other in ({"pe__accumulators": 9}, {"pe__weight_pairs": 5}, {"pe__max_group": 8}, {"pe__format": "bf16"}):
        made = text(**other)
        assert made[0] != eight[0]
        assert made[1] != eight[1]


@pytest.mark.parametrize(("name", "target"), SHIPPED)
def test_a_machine_that_was_counted_is_as_it_was_counted(name, target):
    spec = load_spec(name)
    known = known_area(spec, target)

    assert area_of_shape(spec, target) == known
    found = areas(spec, {"array.rows": [spec.array.rows]}, target)
    total = {("lut" if count == "lut_sites" else count): value for count, value in known.total.items()}
    assert {count: getattr(found, count)[0] for count in total} == total
    assert not found.inferred[0]
    assert found.reason[0] == ""


def near(modules, counted):
    """``counted``: by module, how many there are and what one takes."""
    found = {name: [int(one.times[0]), *one.each[0].tolist()] for name, one in modules.items()}
    assert {name: of[0] for name, of in found.items()} == {name: of[0] for name, of in counted.items()}
    for number, name in enumerate(COUNTS, 1):
        ours, real = (sum(of[0] * of[number] for of in rows.values()) for rows in (found, counted))
        assert abs(ours - real) <= max(FEW, WITHIN * real), (name, found, counted)


def counts_by_module(modules):
    return {one.name: [one.count, *(getattr(one, name) for name in COUNTS)] for one in modules}


@pytest.mark.parametrize(("name", "target"), SHIPPED)
def test_what_is_inferred_of_a_machine_that_ships_is_near_what_was_counted(name, target, monkeypatch):
    spec = load_spec(name)
    known = {block: known_block(spec, BLOCKS[block], target) for block in RULES if BLOCKS[block].present(spec)}
    monkeypatch.setattr(area_model, "known_blocks", lambda *_: ())
    for block, counted in known.items():
        modules, reason = counts_of(block, target, columns_of(spec, block), 1)
        assert reason[0] == ""
        near(modules, counts_by_module(counted.modules))


@pytest.mark.parametrize("number", range(2 * len(HELD_OUT)))
def test_a_machine_that_no_table_has_is_near_what_synthesis_says(number):
    row = held_out()[number]
    spec = changed(base(row["target"]), row["of"])
    modules, reason = counts_of(row["block"], row["target"], columns_of(spec, row["block"]), 1)

    assert reason[0] == ""
    near(modules, row["modules"])


def test_the_held_out_machines_are_those_of_the_file_and_in_no_table():
    assert [(row["block"], row["of"]) for row in held_out()] == 2 * [(block, of) for block, of in HELD_OUT]
    for row in held_out():
        fields = block_fields(changed(base(row["target"]), row["of"]), BLOCKS[row["block"]])
        assert fields not in [dict(one.of) for one in variants(row["block"], row["target"])]


def test_the_table_has_what_is_planned():
    for block in RULES:
        for target in ("ecp5", "xcup"):
            planned, found = (
                [json.dumps([dict(of), sorted(modules)], sort_keys=True) for of, modules in rows]
                for rows in (
                    [
                        (block_fields(changed(base(target), of), BLOCKS[block]), modules)
                        for modules, of in plan(block, target)
                    ],
                    [(one.of, one.modules) for one in variants(block, target)],
                )
            )
            assert found[0] == planned[0]
            assert sorted(found) == sorted(planned)


GRID = {
    "array.rows": [1, 3, 8, 16, 40],
    "array.cols": [2, 6, 6, 16, 24],
    "pe.accumulators": [3, 8, 8, 30, 64],
    "pe.format": ["fp16", "bf16", "fp16", "fp16", "bf16"],
    "sore.lanes": [1, 8, 8, 32, 7],
    "wuve.lanes": [3, 2, 2, 32, 1],
    "buffers.w2e_bytes": [4096, 131072, 131072, 2**20, 12345],
}


@pytest.mark.parametrize("target", ["ecp5", "xcup"])
def test_many_at_once_are_each_as_it_is_alone(target):
    spec = load_spec("sat-ecp5")
    found = areas(spec, GRID, target)
    for i in range(5):
        one = changed(spec, {path: column[i] for path, column in GRID.items()})
        alone = area_of_shape(one, target)
        assert [getattr(found, name)[i] for name in ("lut", *COUNTS[1:])] == [alone.total[name] for name in COUNTS]
        assert found.inferred[i] == bool(alone.inferred)
    assert found.inferred.tolist() == [True, True, False, True, True]


def test_chunks_change_nothing(monkeypatch):
    from weft.analysis import area_by_shape

    spec, whole = load_spec("sat-ecp5"), areas(load_spec("sat-ecp5"), GRID, "xcup")
    monkeypatch.setattr(area_by_shape, "_CHUNK", 2)
    again = areas(spec, GRID, "xcup")
    for name in ("lut", "ff", "dsp", "bram", "uram", "inferred", "reason"):
        assert getattr(again, name).tolist() == getattr(whole, name).tolist()


def test_what_is_inferred_is_marked_and_what_was_counted_is_not():
    spec = changed(load_spec("sat-vcu1525"), {"array.rows": 12, "pe.accumulators": 30})
    marks = {(item.block, item.name): item.mark for item in area_of_shape(spec, "xcup").items}

    assert marks["stce", "edges"] is Mark.INFERRED
    assert marks["sore", "sore_lane"] is Mark.MEASURED
    assert marks["buffers", "w2e"] is Mark.INFERRED
    only_shape = changed(load_spec("sat-vcu1525"), {"array.rows": 12})
    marks = {(item.block, item.name): item.mark for item in area_of_shape(only_shape, "xcup").items}
    assert marks["stce", "pe"] is Mark.MEASURED


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pe.dense_words": 4096}, "pe.dense_words = 4096 was synthesised, the nearest with pe.dense_words = "),
        ({"array.w2e_words": 3}, "array.w2e_words = 3 was synthesised, the nearest with array.w2e_words = 4"),
        ({"array.read_latency": 2}, "array.read_latency = 2 was synthesised, the nearest with array.read_latency = 1"),
        ({"mhz": 900}, "900 MHz was synthesised, the nearest with 400 MHz"),
        ({"pe.add_latency": 9}, "pe.add_latency = 9 was synthesised"),
    ],
)
def test_beyond_what_was_measured_is_refused_with_the_nearest(fields, said):
    spec = changed(load_spec("sat-vcu1525"), fields)

    with pytest.raises(InputError, match=r"`weft area` counts this machine") as refused:
        area_of_shape(spec, "xcup")
    assert said in str(refused.value)
    paths = {"clock_hz" if path == "mhz" else path: value for path, value in fields.items()}
    paths = {path: [spec.clock_hz if path == "clock_hz" else value] for path, value in paths.items()}
    found = areas(load_spec("sat-vcu1525"), paths, "xcup")
    assert said in found.reason[0]
    assert np.isnan([found.lut, found.ff, found.dsp, found.bram, found.uram]).all()
    assert not found.fits()[0]
    assert found.over()[0] == ""


def test_a_unit_for_spanning_trees_is_not_inferred():
    from weft.dataflow.tree_spec import TreeSpec

    spec = changed(load_spec("tiny"), {"tree": TreeSpec(lanes=3, word_bits=5)})
    with pytest.raises(InputError, match=r"tree_unit"):
        area_of_shape(spec, "ecp5")
    assert "tree_unit" in areas(spec, {"array.rows": [4]}, "ecp5").reason[0]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"array.row": [1]}, r"no field 'array.row'; did you mean 'array.rows'"),
        ({"xnor.rows": [1]}, r"no table \[xnor\]"),
        ({"array.rows": [1, 2], "array.cols": [1]}, r"of one length, not array.rows 2, array.cols 1"),
        ({"array.rows": [1.5]}, r"must hold integers"),
        ({"pe.format": ["fp9"]}, r"must hold fp16 or bf16 or fp8 or int8"),
        ({"array.rows": [[1]]}, r"one dimension"),
    ],
)
def test_columns_that_are_none_are_refused(columns, said):
    with pytest.raises(InputError, match=said):
        areas(load_spec("tiny"), columns, "ecp5")


def test_shares_and_what_is_over_by_hand():
    at = np.array([83_640.0, 83_641.0, 10.0, np.nan])
    dsp = np.array([156.0, 0.0, 200.0, np.nan])
    none = np.where(np.isnan(at), np.nan, 0.0)
    made = Areas("ecp5", at, none, dsp, none, none, np.zeros(4, bool), np.array(["", "", "", "why"], object))

    assert made.fits().tolist() == [True, False, False, False]
    assert made.over().tolist() == ["", "lut", "dsp", ""]
    assert made.shares()["dsp"][2] == 200 / 156
    # no URAM: whatever takes some does not fit
    some = Areas("xcup", none, none, none, none, none + 1, np.zeros(4, bool), made.reason)
    assert some.over(PARTS["xc7z020"]).tolist() == ["uram", "uram", "uram", ""]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ecp5", "xcup"])
def test_the_tools_still_say_what_the_tables_do(target):
    """A module counts as in the table, in another batch, and as in its array, but for a few LUTs that names decide."""
    planned = list(plan("stce", target))[:2]
    made = measured("stce", target, planned[:1])
    for name, counts in variants("stce", target)[0].modules.items():
        assert abs(made[0][name][0] - counts[0]) <= 0.005 * counts[0]
        assert made[0][name][1:] == counts[1:]
    whole = counted_block(changed(base(target), planned[0][1]), BLOCKS["stce"], target)
    for module in whole.modules:
        assert abs(made[0][module.name][0] - module.lut_sites) <= 0.02 * module.lut_sites
        assert made[0][module.name][1] == module.ff
    row = next(row for row in held_out() if row["block"] == "sore" and row["target"] == target)
    again = counted_block(changed(base(target), row["of"]), BLOCKS["sore"], target)
    assert counts_by_module(again.modules) == row["modules"]
