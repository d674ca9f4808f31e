"""The search at the edge of 64 bits against the same search in Python's integers, which have none."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import place
from weft.dataflow.macro_tiles import FITS, TOO_LARGE, TOO_LONG
from weft.dataflow.objective import Objective
from weft.dataflow.operand import FP16, FP32, INDEX_BITS
from weft.dataflow.prices import FREE
from weft.dataflow.problem import LONGEST, MemoryMachine, Problem
from weft.dataflow.schedule import schedule
from weft.dataflow.stce.pace import ArrayMachine
from weft.dataflow.stce.search import CYCLES, search
from weft.dataflow.stce.space import FREE_SPACE, Limits
from weft.workloads.errors import InputError
from weft.workloads.gemm import MAX_MACS, Gemm
from weft.workloads.io import load_workload
from weft.workloads.step import Workload

from .problems import make_op

CASES = Path(__file__).parents[1] / "cases" / "edge"
"""Found by others, hand-made to overflow an earlier bound: `ovfW` gave 231,861,401,791,437 cycles, `ovf3` no tile."""

UNBOUNDED = """
import json, sys
from weft.dataflow import macro_tiles, prices, problem
from weft.dataflow.stce.pace import ArrayMachine
from weft.dataflow.stce.space import FREE_SPACE, Limits
from weft.tests.dataflow import exhaustive
steps = exhaustive._steps
exhaustive._steps = lambda unit, size: [int(extent) for extent in steps(unit, size)]
problem.LONGEST = macro_tiles.LONGEST = exhaustive.LONGEST = 2**200
for line in sys.stdin:
    p, x, y, limits, price = json.loads(line)
    found = exhaustive.search(
        problem.Problem(*p), ArrayMachine(*x), problem.MemoryMachine(*y), Limits(*limits), prices.Prices(*price),
        exhaustive.CYCLES, FREE_SPACE,
    )
    print(json.dumps([found.status, found.units, found.moved, list(found.tile)]))
"""
"""Run without a compiler, kernels are plain Python."""


def _log(draw: random.Random, most: float) -> int:
    return int(2 ** draw.uniform(0, most))


def _problem(draw: random.Random) -> tuple[Problem, ArrayMachine, MemoryMachine, Limits]:
    """Products of 2^33 to 2^53 multiply-accumulates, on memories that bring their time to about 2^62."""
    while True:
        groups, rows, k, cols = (_log(draw, most) for most in (12, 26, 20, 26))
        if 2**33 <= groups * rows * k * cols <= MAX_MACS:
            break
    group = draw.choice((1, 2, 4, 8))
    keep = draw.choice((0, draw.randint(1, group)))
    west, north, out = (2 * groups * size for size in (rows * k, k * cols, rows * cols))
    p = Problem(
        rows,
        k,
        cols,
        groups,
        k,
        keep,
        group if keep else 1,
        int(bool(keep) and draw.random() < 0.7),
        west,
        west,
        0,
        north,
        north,
        0,
        out,
        out,
        0,
        1,
        FP16.bits,
        FP16.bits,
        FP16.bits,
        0,
    )
    x = ArrayMachine(_log(draw, 8), _log(draw, 8), _log(draw, 4), 2, _log(draw, 5), FP16.bits, FP32.bits, INDEX_BITS, 1)
    least = p.groups * p.rows * p.cols * p.k // (x.R * x.C) + 1
    rate = max(1, min(2**48, int(LONGEST / least * 2 ** draw.uniform(-8, 2))))
    y = MemoryMachine(*(_log(draw, 36) + 2**10 for _ in range(3)), rate, _log(draw, 6), draw.randint(0, 1))
    return p, x, y, Limits(draw.randint(1, 8), 32, 4, 8)


@pytest.fixture(scope="module")
def both() -> list[tuple[object, list[object]]]:
    draw = random.Random(1)
    problems = [_problem(draw) for _ in range(60)]
    lines = "\n".join(json.dumps([*map(list, problem), list(FREE)]) for problem in problems)
    run = subprocess.run(
        [sys.executable, "-c", UNBOUNDED],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )
    exact = [json.loads(line) for line in run.stdout.splitlines()]
    return [(search(*problem, FREE, CYCLES, FREE_SPACE), found) for problem, found in zip(problems, exact, strict=True)]


def test_what_is_timed_equals_pythons_integers(both):
    timed = [(found, exact) for found, exact in both if found.status == FITS]

    assert len(timed) > 15
    assert max(found.units for found, _ in timed) > 2**59
    assert all([found.status, found.units, found.moved, list(found.tile)] == exact for found, exact in timed)


def test_only_what_comes_near_the_bound_is_refused(both):
    """The bound is the sum of array, memory and SORE; they overlap, so it is at most three times the time."""
    refused = [exact for found, exact in both if found.status == TOO_LONG]

    assert len(refused) > 5
    assert all(status == FITS and 3 * units >= LONGEST for status, units, *_ in refused)
    assert all(exact[0] == TOO_LARGE for found, exact in both if found.status == TOO_LARGE)


@pytest.mark.parametrize(("case", "cycles"), [("ovfW", 10_889_572_852_976), ("ovf3", 27_019_323)])
def test_what_overflowed_is_timed(case, cycles):
    """Cycles of the same search in Python's integers."""
    (op,), spec = load_workload(CASES / f"{case}.json").matrix_ops, load_spec(CASES / f"{case}.toml")
    found = place(op, spec, Objective.THRIFT)

    assert found.cycles.total == cycles
    assert schedule(load_workload(CASES / f"{case}.json"), spec).placements[0].cycles.total <= cycles


def test_what_cannot_be_timed_exactly_is_refused(sat):
    fast = replace(sat, clock_hz=1000, dram=replace(sat.dram, bytes_per_second=10**15))
    work = Workload(model="one", batch=1, ops=(make_op(Gemm(m=2**18, k=2**16, n=2**16)),))

    with pytest.raises(InputError, match="too large to be timed exactly"):
        schedule(work, fast)


def test_a_large_batch_is_no_reason_to_refuse(sat):
    """ResNet-50's widest products at batch 65,536: operands of terabytes, reloaded by some mapping of the space."""
    for gemm in (Gemm(m=65_536 * 112 * 112, k=147, n=64, run=3), Gemm(m=147, k=65_536 * 112 * 112, n=64)):
        placement = schedule(Workload(model="one", batch=1, ops=(make_op(gemm),)), sat).placements[0]

        assert placement.cycles.total >= gemm.macs // sat.macs_per_cycle
