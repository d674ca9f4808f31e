"""The XNOR engine's Verilog in a simulator that knows nothing of Amaranth or Yosys, against Weft's simulator."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from weft.analysis.verify.benches import blocks_of, emit, readme
from weft.analysis.verify.xnor_vectors import xnor_vectors
from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.stce.spec import ArraySpec
from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.block import usual_pattern
from weft.workloads.errors import InputError
from weft.workloads.levels import Levels
from weft.workloads.update_rule import SGD

from ...strategies import make_spec
from ..verilating import assert_passes, write

NAME = "xnor_engine"
HOST = make_spec(array=ArraySpec(rows=1, cols=1))
SMALL = replace(HOST, xnor=XnorSpec(rows=2, cols=2, word_bits=8, accumulators=2, dense_words=4, weight_words=2))
WIDE = replace(
    HOST, xnor=XnorSpec(rows=3, cols=2, word_bits=40, accumulators=5, dense_words=9, weight_words=3, popcount_latency=4)
)
WAIVED = ("DECLFILENAME", "PROCASSINIT", "UNUSEDSIGNAL", "VARHIDDEN", "WIDTH")
"""Those of `test_emit.py`."""


@cache
def emitted(spec):
    return emit(spec, NAME, usual_pattern(spec), SGD, seed=0)


def fails(verilator, folder):
    done = verilator.run(folder)
    assert done.returncode != 0
    return done.stdout


def test_every_sum_value_and_bit_is_the_simulators_and_a_fault_is_found(verilator, tmp_path):
    """Runs follow each other at once, WS behind OS too; then an expected bit, cycle, value or threshold is another."""
    write(tmp_path, emitted(SMALL))
    verilator.build(tmp_path, NAME)
    assert assert_passes(verilator.run(tmp_path), NAME) == sum(p.result.size for p in xnor_vectors(SMALL, seed=0))

    for file, more, said in (
        ("ws_binary_expected", 1, "wrong word"),
        ("ws_binary_expected", -1 << 32, "nothing leaves"),
        ("ws_planes_made", 1, "wrong value beside it"),
        ("os_ternary_made", 1 << 32, "wrong bit beside it"),
    ):
        vectors = tmp_path / f"{NAME}_{file}.hex"
        first, *rest = vectors.read_text().split()
        changed = f"{(int(first, 16) + more) % (1 << 4 * len(first)):0{len(first)}x}"
        vectors.write_text("\n".join([changed, *rest, ""]))
        assert re.search(rf"^FAIL {NAME}: cycle \d+, column 0: +{said}, ", fails(verilator, tmp_path), re.MULTILINE)
        vectors.write_text("\n".join([first, *rest, ""]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        (f"{NAME}_xnor_edge", ">=", ">"),
        # a word of an OS run on its way south may not stay in the WS run that follows at once
        (NAME, " & run__weight_stationary", ""),
    ],
)
def test_a_broken_design_is_found(verilator, tmp_path, module, right, wrong):
    write(tmp_path, emitted(SMALL))
    design = (tmp_path / f"{NAME}.v").read_text()
    start = design.index(f"\nmodule {module} ")
    end = design.index("endmodule", start)
    assert right in design[start:end]
    broken = design[start:end].replace(right, wrong)
    (tmp_path / f"{NAME}.v").write_text(design[:start] + broken + design[end:])
    verilator.build(tmp_path, NAME)
    assert f"FAIL {NAME}: cycle" in fails(verilator, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [WIDE, load_spec("bnn-ecp5")], ids=["3x2 of 40 bits", "bnn-ecp5"])
def test_other_machines_equal_the_simulator(verilator, tmp_path, spec):
    write(tmp_path, emitted(spec))
    verilator.build(tmp_path, NAME)
    assert_passes(verilator.run(tmp_path), NAME)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is no package of PyPI")
def test_a_second_simulator_says_the_same(tmp_path):
    import subprocess

    write(tmp_path, emitted(SMALL))
    command = emitted(SMALL).commands["Icarus Verilog"]
    assert_passes(subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True), NAME)


def test_lint_finds_nothing_but_what_is_meant_and_every_signal_has_a_name(verilator, tmp_path):
    block = emitted(SMALL)
    write(tmp_path, block)
    waivers = [f"-Wno-{name}" for name in WAIVED]
    done = verilator.verilate("--lint-only", "-Wall", *waivers, "--top-module", NAME, f"{NAME}.v", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not re.findall(r"\bsignal_\d*\b|\b_\d+_\b", block.design.text)


def test_the_products_of_the_bench_are_of_every_kind():
    products = xnor_vectors(SMALL, seed=0)
    assert {p.mapping.dataflow for p in products} == {Dataflow.OS, Dataflow.WS}
    assert {Levels.BINARY, Levels.SPIKE, Levels.TERNARY, Levels.INT2, Levels.INT3, Levels.INT8} == {
        level for p in products for level in p.levels
    }
    assert any(p.gemm.run % SMALL.xnor.word_bits for p in products)
    assert any(not p.result.any() for p in products)
    for at_once, waiting in zip(products[::2], products[1::2], strict=True):
        assert waiting.cycles >= at_once.cycles
        assert waiting.result.tolist() == at_once.result.tolist() == (at_once.a @ at_once.b).tolist()
        assert 0 < np.concatenate([p.passed.ravel() for p in products]).mean() < 1


def test_a_machine_says_whether_it_has_the_block():
    assert NAME in blocks_of(SMALL)
    assert NAME in readme(SMALL, [emitted(SMALL)])
    with pytest.raises(InputError, match=r"block is 'xnor_engine', but 'test' has no table \[xnor\]"):
        emit(HOST, NAME, usual_pattern(HOST), SGD, seed=0)
