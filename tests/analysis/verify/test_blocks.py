"""`weft verify`: what it runs, that a planted fault is found and told, and what the command prints."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import weft.analysis.verify.blocks as module
from weft.analysis.verify import draw
from weft.analysis.verify.blocks import verify
from weft.cli import main
from weft.dataflow.accelerator import SoreSpec, WuveSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.pace import array_machine
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.dataflow.stce.time import mapped_tiling
from weft.dataflow.tree_spec import TreeSpec
from weft.hdl.blocks.tree_tables import tree_tables
from weft.workloads.errors import InputError
from weft.workloads.sparsity import NMPattern

from ...strategies import make_spec

TINY = load_spec("tiny")


def test_simulator_and_rtl_agree_on_random_work():
    found = verify(TINY, cases=40, seed=7)

    blocks = [case.block for case in found.cases]
    assert found.equal
    assert {block: blocks.count(block) for block in blocks} == {"STCE": 40, "SORE": 10, "WUVE": 10, "WUVE to SORE": 10}
    assert all(case.rtl_cycles == case.simulator_cycles > 0 for case in found.cases)
    assert found.words == sum(case.words for case in found.cases) > 10_000
    mappings = {case.mapping.split()[0] for case in found.cases[:40]}
    assert mappings == {"os", "ws"}
    held_up = ["held up" in case.mapping for case in found.cases]
    assert 5 < sum(held_up[:40]) < 35
    assert 5 < sum(held_up[40:]) < 28
    few = verify(TINY, cases=12, seed=7)
    assert verify(TINY, cases=12, seed=7) == few
    assert verify(TINY, cases=12, seed=8).cases != few.cases


def test_a_unit_for_trees_is_run_where_a_machine_has_one(monkeypatch):
    """The unit of `tests/equivalence/test_rtl_tree.py`, compiled once for both; then with a wrong sum."""
    own = TreeSpec(lanes=2, word_bits=3, positions=3, inputs=37, tasks=32, words=256)
    spec = replace(TINY, tree=own)
    found = verify(spec, cases=12, seed=3)
    trees = [case for case in found.cases if case.block == "tree"]
    assert found.equal and len(trees) == 3
    assert all(case.rtl_cycles == case.simulator_cycles > 0 and case.words % 3 == 0 for case in trees)

    def faulty(*given, real=module.run_tree):
        ran = real(*given)
        at = np.unravel_index(np.argmax(ran.made), ran.made.shape)
        ran.result[at] += 2
        return ran

    monkeypatch.setattr(module, "run_tree", faulty)
    (first, *_) = (case for case in verify(spec, cases=1, seed=3).cases if case.block == "tree")
    assert not first.equal and first.difference.what == "sum" and first.difference.cycle is not None


def test_trees_are_drawn_until_the_tables_hold_them():
    own = TreeSpec(lanes=1, word_bits=2, inputs=300, tasks=1, words=9)
    for i in range(20):
        tree, weights, inputs = draw.draw_tree(np.random.default_rng(i), own)
        assert len(tree_tables(own, tree, weights).tasks[0]) == 2
        assert inputs.shape == (1, tree.k) and tree.k <= 18


def test_the_default_products_are_bound_by_drain_and_return_too():
    """At random 3 % of the products of this machine are bound by either: 20 of them might hold none."""
    drawn = [
        draw.draw_shape(TINY, bound, np.random.default_rng([0, 0, i])) for i, bound in enumerate(module._BOUNDS * 5)
    ]
    found = [draw._bound_by(TINY, mapping, gemm) for mapping, gemm in drawn]
    assert found.count("drain") >= 5
    assert found.count("return") >= 5
    for (mapping, gemm), bound in zip(drawn, found, strict=True):
        if bound == "drain":
            x, t = array_machine(TINY), mapped_tiling(array_machine(TINY), mapping, gemm.m, gemm.k, gemm.run)
            assert t.P == t.drain == min(x.R, gemm.m) * mapping.interleave > t.L


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["serial", "network"])
@pytest.mark.parametrize(
    ("rows", "cols", "pe", "pattern"),
    [
        (2, 3, PESpec(max_group=6, dense_words=13, accumulators=3, multiply_latency=3, add_latency=5), "2:6"),
        (3, 1, PESpec(max_group=11, dense_words=23, accumulators=5, multiply_latency=1, add_latency=2), "3:11"),
    ],
)
def test_nothing_needs_to_be_a_power_of_two(kind, rows, cols, pe, pattern):
    spec = make_spec(
        array=ArraySpec(rows=rows, cols=cols, w2e_words=3),
        pe=pe,
        sore=SoreSpec(lanes=5, kind=kind),
        wuve=WuveSpec(lanes=3),
    )
    assert verify(spec, cases=40, pattern=NMPattern.parse(pattern)).equal


def test_a_wrong_bit_in_the_array_is_told_by_cycle_signal_and_both_values(monkeypatch):
    def faulty(spec, mapping, a, b, *, real=module.run_array, **more):
        ran = real(spec, mapping, a, b, **more)
        at = np.unravel_index(np.argmax(ran.left), ran.left.shape)
        ran.result.view(np.uint32)[at] ^= 1 << 31
        return ran

    monkeypatch.setattr(module, "run_array", faulty)
    found = verify(TINY, cases=3)

    assert not found.equal
    for case in found.cases[:3]:
        difference = case.difference
        assert difference.where.startswith("C[")
        assert 0 < difference.cycle < case.simulator_cycles
        assert int(difference.expected, 16) ^ int(difference.found, 16) == 1 << 31


def test_a_word_that_leaves_in_another_cycle_is_told(monkeypatch):
    def faulty(*arguments, real=module.run_array, **more):
        ran = real(*arguments, **more)
        ran.left[0, 0] += 1
        return ran

    monkeypatch.setattr(module, "run_array", faulty)
    difference = verify(TINY, cases=1).cases[0].difference

    assert difference.where == "C[0, 0]"
    assert difference.expected == f"leaves in cycle {difference.cycle}"
    assert difference.found == f"leaves in cycle {difference.cycle - 1}"


@pytest.mark.parametrize(
    ("name", "block", "signal", "spoil"),
    [
        ("run_sore", "SORE", "index[0, 0]", lambda ran: ran.compact.indices.__ixor__(1)),
        ("run_sore", "SORE", "nan[0, 0]", lambda ran: ran.nan_flags.__ixor__(True)),
        ("run_wuve", "WUVE", "weight16[0]", lambda ran: ran.weights16.view(np.uint16).__ixor__(1)),
        ("run_wuve", "WUVE", "state0[0]", lambda ran: ran.state[0].view(np.uint32).__ixor__(1)),
        ("run_pregenerate", "WUVE to SORE", "bp.value[0, 0]", lambda ran: bp_value(ran)),
    ],
)
def test_a_wrong_bit_in_an_engine_is_told(monkeypatch, name, block, signal, spoil):
    real = getattr(module, name)

    def faulty(*arguments, **more):
        ran = real(*arguments, **more)
        spoil(ran)
        return ran

    monkeypatch.setattr(module, name, faulty)
    found = verify(TINY, cases=1)

    case = next(case for case in found.cases if case.block == block)
    assert case.difference.where == signal
    assert case.difference.expected != case.difference.found
    assert [c.equal for c in found.cases if c.block != block] == [True] * 3


def bp_value(ran):
    ran.copies["bp"].compact.values.view(np.uint16)[0, 0] ^= 1


def test_a_run_that_is_too_long_is_told(monkeypatch):
    def faulty(*arguments, real=module.run_sore, **more):
        ran = real(*arguments, **more)
        return replace(ran, cycles=ran.cycles - 1)

    monkeypatch.setattr(module, "run_sore", faulty)
    difference = next(case for case in verify(TINY, cases=1).cases if case.block == "SORE").difference

    assert difference.what == "length of the run"
    assert int(difference.found) == int(difference.expected) + 1


def test_rtl_that_lets_go_too_few_words_is_told(monkeypatch):
    def faulty(*arguments, real=module.run_array, **more):
        ran = real(*arguments, **more)
        return replace(ran, cycles=replace(ran.cycles, fill_drain=0, compute=1))

    with monkeypatch.context() as planted:
        planted.setattr(module, "run_array", faulty)
        difference = verify(TINY, cases=1).cases[0].difference
    assert "keeps the array busy for more than the given" in difference.what
    assert difference.cycle is None
    assert verify(TINY, cases=2).equal


def test_bad_input_is_refused_before_anything_is_built():
    with pytest.raises(InputError, match="cases must be an integer from 1"):
        verify(TINY, cases=0)
    with pytest.raises(InputError, match="seed must be an integer from 0"):
        verify(TINY, seed=-1)
    with pytest.raises(InputError, match="rule 'rmsprop' is unknown: choose one of adam, adamw, nesterov, sgd"):
        verify(TINY, rule="rmsprop")
    with pytest.raises(InputError, match="pattern 2:16 has groups of 16"):
        verify(TINY, pattern=NMPattern(keep=2, group=16))


def test_the_command_prints_every_case(capsys):
    assert main(["verify", "--arch", "tiny", "--cases", "2", "--seed", "3"]) == 0
    shown = capsys.readouterr().out
    assert "seed 3" in shown
    assert "WUVE to SORE" in shown
    assert "every bit and the cycle each leaves in" in shown


def test_the_command_ends_with_code_1_and_tells_the_first_difference(monkeypatch, capsys):
    def faulty(*arguments, real=module.run_wuve, **more):
        ran = real(*arguments, **more)
        ran.master.view(np.uint32)[0] = 0x12345678
        return ran

    monkeypatch.setattr(module, "run_wuve", faulty)
    assert main(["verify", "--arch", "tiny", "--cases", "1", "--seed", "5"]) == 1
    shown = capsys.readouterr().out
    assert "Case 2 differs, seed 5: master[0]" in shown
    assert "simulator 12345678, RTL" in shown

    assert main(["verify", "--arch", "tiny", "--cases", "1", "--seed", "5", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [case["equal"] for case in document["cases"]] == [True, True, False, True]
    assert document["cases"][2]["difference"]["expected"] == "12345678"
    assert (document["seed"], document["equal"], document["machine"]) == (5, False, "tiny")


def test_the_command_refuses_bad_input(capsys):
    assert main(["verify", "--arch", "tiny", "--cases", "0"]) == 2
    assert "cases must be an integer from 1" in capsys.readouterr().err
    assert main(["verify", "--arch", "tini"]) == 2
    assert "tiny" in capsys.readouterr().err
