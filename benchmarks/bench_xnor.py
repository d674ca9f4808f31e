"""How fast the XNOR engine runs real operands: binary multiply-accumulates a second of a core.

`pytest benchmarks/bench_xnor.py --benchmark-enable`; every run also asserts sums and simulated cycles. Warm: kernels
compiled; each run packs its operands, steps the array and counts every bit anew. Of processor time: what else runs on
the machine does not count.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.xnor.mapping import XnorMapping
from weft.simulator.xnor import pack, run_xnor, xnor_product
from weft.workloads.levels import Levels

pytestmark = pytest.mark.benchmark(timer=time.process_time)
SPEC = load_spec("bnn-vu9p")
RNG = np.random.default_rng(1)
BINARY, TERNARY = Levels.BINARY, Levels.TERNARY
LEAST = 1e11
"""Binary multiply-accumulates a second, of the product alone."""


def _drawn(levels: Levels, *shape: int) -> np.ndarray:
    return RNG.choice(np.array(list(levels.values), np.int8), shape)


A, B = _drawn(BINARY, 4096, 4096), _drawn(BINARY, 4096, 4096)
SUMS = (A.astype(np.float32) @ B.astype(np.float32)).astype(np.int32)
"""Exact: they are below 2^24."""


def _rate(benchmark: BenchmarkFixture, macs: int) -> float | None:
    if benchmark.stats is None:
        return None
    rate = macs / benchmark.stats.stats.min
    benchmark.extra_info["multiply-accumulates a second"] = f"{rate:.3g}"
    return rate


def test_a_large_binary_product(benchmark: BenchmarkFixture) -> None:
    """The sums of packed operands."""
    a, b = pack(A, BINARY, 128), pack(B.T, BINARY, 128)
    assert np.array_equal(benchmark(xnor_product, a, b, 4096), SUMS)
    rate = _rate(benchmark, 4096**3)
    assert rate is None or rate >= LEAST


@pytest.mark.parametrize(("dataflow", "group", "cycles"), [(Dataflow.OS, 1, 524_479), (Dataflow.WS, 1, 524_386)])
def test_a_whole_run(benchmark: BenchmarkFixture, dataflow: Dataflow, group: int, cycles: int) -> None:
    mapping = XnorMapping(dataflow=dataflow, interleave=4, group=group)
    run = benchmark(run_xnor, SPEC, mapping, A, B, (BINARY, BINARY))
    assert np.array_equal(run.result, SUMS)
    assert run.cycles.total == cycles
    _rate(benchmark, 4096**3)


@pytest.mark.parametrize(("levels", "beats"), [((TERNARY, BINARY), 2), ((Levels.INT2, BINARY), 4)])
def test_beats(benchmark: BenchmarkFixture, levels: tuple[Levels, Levels], beats: int) -> None:
    """Two planes or two counts of every word."""
    a, b = _drawn(levels[0], 1024, 4096), _drawn(levels[1], 4096, 1024)
    packed = pack(a, levels[0], 128), pack(b.T, levels[1], 128)
    found = benchmark(xnor_product, *packed, 4096)
    assert np.array_equal(found, (a.astype(np.float32) @ b.astype(np.float32)).astype(np.int32))
    _rate(benchmark, beats * 1024 * 4096 * 1024)
