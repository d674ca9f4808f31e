# amaranth: UnusedElaboratable=no
"""A specification either is refused with a reason or elaborates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from amaranth.back import rtlil
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import SoreSpec, WuveSpec
from weft.dataflow.config_io import load_spec, preset_names
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.hdl.blocks.array import Stce
from weft.hdl.blocks.banks import run_registers
from weft.hdl.blocks.buildable import MAX_TILE_WORDS, check_buildable
from weft.hdl.blocks.pregenerate import Pregenerate
from weft.hdl.blocks.update import Wuve
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern
from weft.workloads.update_rule import ADAM

from ...examples_drawn import examples
from ...strategies import make_spec, patterns

ONE = make_spec(array=ArraySpec(rows=1, cols=1), sore=SoreSpec(lanes=1), wuve=WuveSpec(lanes=1))


@st.composite
def wide_specs(draw):
    """Machines of any latency and register count, and no power of two among them if it so happens."""
    group = draw(st.integers(1, 32))
    return make_spec(
        array=ArraySpec(
            rows=draw(st.integers(1, 2)),
            cols=draw(st.integers(1, 2)),
            w2e_words=draw(st.sampled_from((1, 2, 3, 7, 11))),
        ),
        pe=PESpec(
            max_group=group,
            accumulators=draw(st.integers(1, 64)),
            dense_words=draw(st.integers(group, 5 * group)),
            weight_pairs=draw(st.integers(1, 32)),
            multiply_latency=draw(st.integers(1, 32)),
            add_latency=draw(st.integers(1, 32)),
            format=draw(st.sampled_from(("fp16", "bf16"))),
        ),
        sore=SoreSpec(lanes=draw(st.integers(1, 9)), kind=draw(st.sampled_from(("serial", "network")))),
        wuve=WuveSpec(lanes=draw(st.integers(1, 2))),
    )


def elaborate(component):
    """Amaranth and its RTLIL back end to the end; parts of an array are emitted once."""
    for name, part in component.parts.items():
        rtlil.convert(part, name=name, emit_src=False)
    return rtlil.convert(component, name="top", emit_src=False)


def accepted_elaborates(data):
    spec = data.draw(wide_specs())
    pattern = data.draw(patterns(min(spec.pe.max_group, 7), 7))
    check_buildable(spec, pattern)
    for component in (Stce(spec, blackbox=True), Pregenerate(spec, pattern, blackbox=True)):
        assert "module \\top" in elaborate(component)


@pytest.mark.slow
@settings(max_examples=3)
@given(data=st.data())
def test_an_accepted_machine_elaborates(data):
    accepted_elaborates(data)


@pytest.mark.slow
@settings(max_examples=examples(60))
@given(data=st.data())
def test_an_accepted_machine_elaborates_in_many_more_cases(data):
    accepted_elaborates(data)


@pytest.mark.parametrize(
    "registers",
    [
        {
            "max_group": 1,
            "dense_words": 1,
            "accumulators": 1,
            "weight_pairs": 1,
            "multiply_latency": 1,
            "add_latency": 1,
        },
        {"max_group": 32, "dense_words": 32, "accumulators": 64, "weight_pairs": 32},
        {"multiply_latency": 32, "add_latency": 32},
        {"dense_words": 4096},
    ],
    ids=lambda registers: ", ".join(registers),
)
def test_the_ends_of_every_range_elaborate(registers):
    spec = replace(ONE, pe=replace(ONE.pe, **registers))
    check_buildable(spec, NMPattern(keep=1, group=1))
    assert elaborate(Stce(spec, blackbox=True))
    if "add_latency" in registers:
        assert elaborate(Wuve(spec, ADAM, blackbox=True))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_accepted(name):
    spec = load_spec(name)
    for group in range(1, spec.pe.max_group + 1):
        check_buildable(spec, NMPattern(keep=1, group=group))


@pytest.mark.parametrize(("lanes", "nearest", "words"), [(33, 32, 33 * 256), (35, 34, 35 * 256), (257, 256, 257 * 256)])
def test_lanes_that_make_the_tile_too_large_are_refused_with_the_nearest(lanes, nearest, words):
    spec = replace(ONE, sore=replace(ONE.sore, lanes=lanes))
    pattern = NMPattern(keep=2, group=16)
    with pytest.raises(
        InputError, match=rf"sore.lanes of 'test' is {lanes}.* {words} weights.* valid value is {nearest},"
    ):
        check_buildable(spec, pattern)
    with pytest.raises(InputError, match="lanes of 'test'"):
        Pregenerate(spec, pattern)
    check_buildable(replace(spec, sore=replace(spec.sore, lanes=nearest)), pattern)
    check_buildable(replace(spec, wuve=replace(spec.wuve, pregenerate=False)), pattern)
    assert words > MAX_TILE_WORDS


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ({"interleave": 0}, "interleave must be an integer from 1 to 64, not 0; the nearest valid value is 1"),
        ({"interleave": 9}, "not 9; the nearest valid value is 8"),
        ({"pattern": NMPattern(keep=2, group=32)}, "pe.max_group of 'test' is 16"),
        ({"dataflow": Dataflow.WS, "pattern": NMPattern(keep=2, group=16), "interleave": 3}, "interleave of at most 2"),
        ({"dataflow": Dataflow.WS, "pattern": NMPattern(keep=5, group=8)}, "pe.weight_pairs is 4; use os"),
    ],
)
def test_a_mapping_that_the_registers_cannot_run_is_refused(mapping, reason):
    chosen = {"dataflow": Dataflow.OS, "pattern": DENSE, "interleave": 1, **mapping}
    with pytest.raises(InputError, match=reason):
        run_registers(ONE, ArrayMapping(**chosen), Gemm(m=2, k=2, n=2))


@pytest.mark.parametrize(
    ("part", "field", "value", "nearest"),
    [
        (PESpec, "add_latency", 0, 1),
        (PESpec, "multiply_latency", 33, 32),
        (PESpec, "dense_words", 8, 16),
        (PESpec, "weight_pairs", 0, 1),
        (SoreSpec, "lanes", 0, 1),
        (WuveSpec, "lanes", 4097, 4096),
        (ArraySpec, "w2e_words", 65, 64),
    ],
)
def test_a_part_outside_the_range_of_the_rtl_is_refused_by_its_specification(part, field, value, nearest):
    sizes = {"rows": 1, "cols": 1} if part is ArraySpec else {}
    with pytest.raises(InputError, match=rf"{field} must be .* not {value}; the nearest valid value is {nearest}"):
        part(**sizes, **{field: value})
