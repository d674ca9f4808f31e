"""Area of machines: the stored table against the tools, sums, buffers by capacity, and refusals."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from weft.analysis import area
from weft.analysis.area import buffer_blocks, known_area, machine_area, measure_area
from weft.dataflow.config_io import load_spec
from weft.workloads.errors import InputError

SHIPPED = [("sat-vcu1525", "xcup"), ("dense-32", "xcup"), ("tiny", "xcup"), ("tiny", "ecp5"), ("sat-ecp5", "ecp5")]


@pytest.fixture
def without_tools(monkeypatch):
    monkeypatch.setattr(area, "measure_area", lambda *_: pytest.fail("a machine that ships was synthesized"))


@pytest.mark.parametrize(("name", "target"), SHIPPED)
def test_what_ships_is_answered_without_tools_and_fits(name, target, without_tools):
    spec = load_spec(name)
    found = machine_area(spec, target)
    modules = {(item.block, item.name): item for item in found.items}

    assert modules["stce", "pe"].count == spec.array.rows * spec.array.cols
    assert modules["stce", "stce_row"].count == spec.array.rows
    assert modules["sore", "sore_lane"].count == spec.sore.lanes
    assert modules["wuve", "wuve_lane"].count == spec.wuve.lanes
    assert modules["stce", "pe"].dsp == 1
    for name_, total in found.total.items():
        assert total == sum(getattr(item, name_) * item.count for item in found.items)
        assert 0 <= total <= found.has[name_]


def test_the_buffers_of_sat_vcu1525_take_285_uram():
    """10 MiB in blocks of 4,096 x 72 bits."""
    assert sum(item.uram for item in buffer_blocks(load_spec("sat-vcu1525"), "xcup")) == 285


def test_a_name_changes_nothing(without_tools):
    spec = load_spec("tiny")
    renamed = machine_area(replace(spec, name="mine"), "ecp5")

    assert renamed.machine == "mine"
    assert renamed.items == machine_area(spec, "ecp5").items


def test_any_other_machine_is_synthesized_once_and_known_from_then_on(monkeypatch, tmp_path):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    spec = load_spec("tiny")
    other = replace(spec, pe=replace(spec.pe, add_latency=5))
    made = replace(machine_area(spec, "ecp5"), tools="counted here")
    asked = []
    monkeypatch.setattr(area, "measure_area", lambda *given: asked.append(given) or made)

    assert known_area(other, "ecp5") is None
    assert machine_area(other, "ecp5") == made == machine_area(other, "ecp5") == known_area(other, "ecp5")
    assert asked == [(other, "ecp5", None)]
    assert known_area(other, "xcup") is None
    # Other sources of the RTL may take other LUTs.
    monkeypatch.setattr(area, "_sources", lambda: "changed")
    assert known_area(other, "ecp5") is None


def test_what_an_earlier_synthesis_hangs_on_is_all_that_the_blocks_import():
    """A rule of update, a depth or a tile that changes is another RTL, wherever it is written."""
    root = Path(area.__file__).parents[1]
    imported = set()
    for path in (root / "hdl" / "blocks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                source = path.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")
                imported.add(source.relative_to(root).as_posix())
    # The fields of a machine are the key. A mapping and a product decide the registers of a run, which are data.
    data = {"dataflow/accelerator.py", "dataflow/mapping.py", "workloads/errors.py", "workloads/gemm.py"}
    assert {name for name in imported if not name.startswith("hdl/")} - data == set(area._OUTSIDE)


def test_a_target_without_areas_is_refused():
    with pytest.raises(InputError, match=r"--target: there is no area for 'ecp6'; did you mean 'ecp5'"):
        machine_area(load_spec("tiny"), "ecp6")


@pytest.mark.slow
def test_an_entry_of_the_table_is_what_the_tools_say():
    spec = load_spec("tiny")

    assert measure_area(spec, "ecp5") == machine_area(spec, "ecp5")
