"""Area of machines: the stored table against the tools, sums, buffers by capacity, and refusals."""

from __future__ import annotations

import ast
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from weft.analysis import synthesised
from weft.analysis.area import buffer_blocks, known_area, machine_area, uncounted_blocks
from weft.analysis.synthesised import counted_block, known_block, remember
from weft.dataflow.config_io import load_spec
from weft.dataflow.gather.spec import GatherSpec
from weft.dataflow.tree_spec import TreeSpec
from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.flow import synthesis
from weft.hdl.flow.devices import Resources
from weft.hdl.flow.synthesis import Part, Synthesis, design
from weft.hdl.registry import BLOCKS
from weft.workloads.errors import InputError

SHIPPED = [
    ("sat-vcu1525", "xcup"),
    ("dense-32", "xcup"),
    ("tiny", "xcup"),
    ("tiny", "ecp5"),
    ("sat-ecp5", "ecp5"),
    ("bnn-vu9p", "xcup"),
    ("bnn-ecp5", "xcup"),
    ("bnn-ecp5", "ecp5"),
]


@pytest.fixture
def without_tools(monkeypatch):
    monkeypatch.setattr(synthesis, "synthesize", lambda *_: pytest.fail("a machine that ships was synthesized"))


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
    if spec.xnor is not None:
        assert modules["xnor_engine", "xnor_pe"].count == spec.xnor.elements
        assert modules["xnor_engine", "xnor_row"].count == spec.xnor.rows
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


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Synthesis that counts ten LUTs a block and notes what it was asked for; an empty cache."""
    asked = []

    def counts(spec, block, target, mhz, progress=None):
        asked.append((block.name, target, mhz))
        return Synthesis(
            block=block.name,
            target=target,
            tools="counted here",
            cells={},
            parts=(Part(name=f"all of {block.name}", count=1, each=Resources(lut=10, ff=3)),),
        )

    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(synthesis, "synthesize", counts)
    return asked


def test_only_what_changed_is_synthesized_and_only_once(monkeypatch, counted):
    spec = load_spec("tiny")
    other = replace(spec, array=replace(spec.array, rows=2))

    assert known_area(other, "ecp5") is None
    assert [block.name for block in uncounted_blocks(other, "ecp5")] == ["stce"]
    made = machine_area(other, "ecp5")
    assert counted == [("stce", "ecp5", 100)]
    assert made == machine_area(other, "ecp5") == known_area(other, "ecp5")
    assert len(counted) == 1
    kept, shipped = ([i for i in a.items if i.block != "stce"] for a in (made, machine_area(spec, "ecp5")))
    assert kept == shipped
    assert made.tools == f"counted here, {machine_area(spec, 'ecp5').tools}"
    assert known_area(other, "xcup") is None
    # Other sources of the RTL may take other LUTs.
    monkeypatch.setattr(synthesised, "_sources", lambda: "changed")
    assert known_area(other, "ecp5") is None


def test_a_block_that_weft_synth_counted_is_known_at_the_clock_of_the_machine(counted):
    spec = load_spec("tiny")
    other, block = replace(spec, sore=replace(spec.sore, lanes=3)), BLOCKS["sore"].within
    made = synthesis.synthesize(other, block, "xcup", 100)

    # the streams of the engine by itself are not in the machine
    remember(other, BLOCKS["sore"], made, 100)
    assert known_block(other, block, "xcup") is None
    remember(other, block, made, 150)
    assert known_block(other, block, "xcup") is None
    remember(other, block, made, 100)
    assert known_block(other, block, "xcup") == counted_block(other, block, "xcup")
    assert known_area(other, "xcup") is not None


def _other(value):
    """Values of a field that another machine may have."""
    match value:
        case bool():
            return [not value]
        case int():
            return [2 * value, value // 2]
        case _:
            return {"serial": ["network"], "fp16": ["bf16"]}.get(value, [])


def _changed(spec):
    """The machine with one field changed, and the field's name."""
    yield "clock_hz", replace(spec, clock_hz=2 * spec.clock_hz)
    for part in (f for f in fields(spec) if is_dataclass(getattr(spec, f.name))):
        inner = getattr(spec, part.name)
        for f in fields(inner):
            for value in _other(getattr(inner, f.name)):
                with suppress(InputError):
                    yield f"{part.name}.{f.name}", replace(spec, **{part.name: replace(inner, **{f.name: value})})


@pytest.mark.parametrize(
    "name",
    [
        "sore",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("stce", "wuve", "xnor_engine", "tree_unit", "gather_engine")
        ),
    ],
)
def test_the_rtl_of_a_block_depends_on_what_it_says_and_on_nothing_else(name):
    block, tiny = BLOCKS[name], load_spec("tiny")
    own = XnorSpec(rows=2, cols=1, word_bits=16)
    tree = TreeSpec(lanes=2, word_bits=2, inputs=24, tasks=8, words=16)
    spec = replace(tiny, array=replace(tiny.array, rows=1, cols=1), xnor=own, tree=tree)
    if name == "gather_engine":
        spec = replace(spec, gather=GatherSpec(lanes=2, width=1, balance="static", banks=2, interleave=2))
    said, found = design(spec, block), set()
    for field, other in _changed(spec):
        if design(other, block) != said:
            found.add(field)
            assert field in block.depends or field.partition(".")[0] in block.depends
    if name == "xnor_engine":
        assert found == {f"xnor.{field.name}" for field in fields(own)}
    elif name == "tree_unit":
        assert found == {f"tree.{field.name}" for field in fields(tree)}
    elif name == "gather_engine":
        rest = set(block.depends) - {"gather"}
        assert found == {"gather.lanes", "gather.width", "gather.banks", "gather.interleave"} | rest
    elif name != "stce":
        # The usual pattern changes only below groups of eight, which halving tiny's reaches.
        assert found == {"sore": {"sore.lanes", "sore.kind", "pe.format", "pe.max_group"}}.get(name, set(block.depends))


def test_what_an_earlier_synthesis_hangs_on_is_all_that_the_blocks_import():
    """A rule of update, a depth or a tile that changes is another RTL, wherever it is written."""
    root = Path(synthesised.__file__).parents[1]
    imported = set()
    for path in (root / "hdl" / "blocks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                source = path.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")
                imported.add(source.relative_to(root).as_posix())
    # The fields of a machine are the key. A mapping and a product decide the registers of a run, which are data.
    data = {
        "dataflow/accelerator.py",
        "dataflow/gather/mapping.py",
        "dataflow/stce/mapping.py",
        "dataflow/stce/spec.py",
        "dataflow/xnor/mapping.py",
        "dataflow/xnor/words.py",
        "workloads/errors.py",
        "workloads/gemm.py",
        "workloads/levels.py",
        "workloads/spanning_tree.py",
    }
    assert {name for name in imported if not name.startswith("hdl/")} - data == set(synthesised._OUTSIDE)


def test_a_target_without_areas_is_refused():
    with pytest.raises(InputError, match=r"--target: there is no area for 'ecp6'; did you mean 'ecp5'"):
        machine_area(load_spec("tiny"), "ecp6")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stce", "sore", "wuve"])
def test_an_entry_of_the_table_is_what_the_tools_say(name):
    spec = load_spec("tiny")

    assert counted_block(spec, BLOCKS[name], "ecp5") == known_block(spec, BLOCKS[name], "ecp5")


def test_memory_for_whole_tensors_is_counted_once_by_capacity():
    """16 MiB in URAM of 288 Kib."""
    spec = load_spec("sat-vcu1525")
    held = replace(spec, buffers=replace(spec.buffers, resident_bytes=2**24))
    before, after = buffer_blocks(spec, "xcup"), buffer_blocks(held, "xcup")
    assert after[:-1] == before
    assert (after[-1].name, after[-1].count, after[-1].uram) == ("resident", 1, -(-(2**27) // (288 * 1024)))
