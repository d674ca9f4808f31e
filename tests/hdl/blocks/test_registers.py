"""The table of run registers: its formulas are the driver's registers, and it is in the pages that say so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.analysis.verify.benches import emit, readme
from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.hdl.block import usual_pattern
from weft.hdl.blocks.banks import IN_RTL, run_registers
from weft.hdl.blocks.control_format import ControlFormat
from weft.hdl.blocks.registers import REGISTERS, register_table

from ...examples_drawn import examples
from ...strategies import array_mappings, gemms, make_spec
from ..verilating import Verilator

TINY = load_spec("tiny")
ROOT = Path(__file__).parents[3]


def derived(spec, mapping, gemm):
    """What the formulas say, read as Python; a register that another one needs comes first."""
    known = {
        "R": spec.array.rows,
        "C": spec.array.cols,
        "Lm": spec.pe.multiply_latency,
        "La": spec.pe.add_latency,
        "Lr": spec.array.read_latency,
        "keep": mapping.pattern.keep,
        "group": mapping.pattern.group,
        "interleave": mapping.interleave,
        "m": gemm.m,
        "k": gemm.k,
        "n": gemm.n,
        "run": gemm.run,
        "ceil_div": lambda a, b: -(-a // b),
        "min": min,
        "max": max,
    }
    for register in sorted(REGISTERS, key=lambda register: register.follows):
        known[register.name] = eval(register.ws if mapping.dataflow == Dataflow.WS else register.os, {}, known)
    return {register.name: known[register.name] for register in REGISTERS}


@settings(max_examples=examples(300))
@given(data=st.data())
def test_the_formulas_are_the_registers_of_the_driver(data):
    spec = make_spec(
        array=ArraySpec(
            rows=data.draw(st.integers(1, 6)),
            cols=data.draw(st.integers(1, 6)),
            read_latency=data.draw(st.integers(1, 4)),
        ),
        pe=PESpec(
            accumulators=data.draw(st.integers(1, 6)),
            multiply_latency=data.draw(st.integers(1, 4)),
            add_latency=data.draw(st.integers(1, 6)),
        ),
    )
    mapping, gemm = data.draw(array_mappings(spec, IN_RTL)), data.draw(gemms(40, 40))
    assert derived(spec, mapping, gemm) == run_registers(spec, mapping, gemm)


def test_the_table_has_every_register_and_is_in_both_pages():
    assert [register.name for register in REGISTERS] == [name for name, _ in ControlFormat(TINY).run]
    assert {r.name for r in REGISTERS if r.follows} == {"offset_step", "row_delay", "shift_pairs", "tap", "tail_cycles"}
    assert register_table(TINY) in (ROOT / "docs" / "rtl.md").read_text()
    block = emit(TINY, "stce", usual_pattern(TINY), "sgd", seed=0)
    assert register_table(TINY) in readme(TINY, [block])


@pytest.mark.slow
def test_a_register_that_contradicts_the_others_stops_the_simulation(tmp_path):
    verilator = Verilator(tmp_path)
    block = emit(TINY, "stce", usual_pattern(TINY), "sgd", seed=0)
    for name, text in block.files.items():
        (tmp_path / name).write_text(text)
    bench = block.files["stce_tb.v"]
    for spoiled, said in (
        ("run__tail_cycles = run__tail_cycles + 1;", r"run__tail_cycles is \d+, but \d+ follows"),
        ("run__across = 0;", "a register that counts something is 0"),
        ("run__drain_words = run__drain_words + 1;", "run__drain_words is"),
    ):
        (tmp_path / "stce_tb.v").write_text(re.sub(r"\n    product\(", f"\n    {spoiled}\\g<0>", bench, count=1))
        verilator.build(tmp_path, "stce")
        done = verilator.run(tmp_path)
        assert done.returncode != 0
        assert re.search(said, done.stdout), done.stdout
