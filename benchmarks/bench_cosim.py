"""How fast the array's RTL runs in co-simulation: cycles a second of a 16 x 16 array with the PE of `sat-vcu1525`.

`pytest benchmarks/bench_cosim.py --benchmark-enable`; every run also asserts the results and their cycles.
Warm: the design compiled and its inputs made ready.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.mapping import ArrayMapping, Dataflow
from weft.hdl.blocks.array import Stce
from weft.hdl.drivers.array import StceDriver
from weft.hdl.flow.cosim import Cosim
from weft.simulator.array import run_array
from weft.simulator.compact import compress
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

_SAT = load_spec("sat-vcu1525")
SPEC = replace(_SAT, array=replace(_SAT.array, rows=16, cols=16))


class _Last:
    """A machine that keeps the inputs of its last run."""

    def __init__(self, machine: Cosim) -> None:
        self.machine = machine
        self.inputs: dict[str, Any] = {}

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.inputs = inputs
        return self.machine.run(inputs)


@pytest.mark.parametrize(
    ("dataflow", "pattern", "cycles"),
    [(Dataflow.OS, "1:1", 2_401), (Dataflow.OS, "2:8", 680), (Dataflow.WS, "2:8", 3_165)],
)
def test_one_tile(benchmark: BenchmarkFixture, dataflow: Dataflow, pattern: str, cycles: int) -> None:
    """A contraction of 576; what is timed is the run with operands, without making them ready."""
    mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern.parse(pattern), interleave=4)
    gemm = Gemm(m=16, k=576, n=64)
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((gemm.m, gemm.k), (gemm.k, gemm.n)))
    pairs = compress(b, mapping.pattern)
    array = Stce(SPEC, blackbox=True)
    machine = _Last(Cosim(array, parts=array.parts))
    want = run_array(SPEC, mapping, a, pairs)
    got = StceDriver(SPEC, machine).run(mapping, gemm, a, pairs.values, pairs.indices, cycles=want.length)
    assert (got.result == want.result.view(np.uint32)).all()
    assert (got.left == want.left).all()
    assert got.cycles == want.length == cycles
    seen = benchmark(machine.machine.run, machine.inputs)
    if benchmark.stats is not None:
        benchmark.extra_info["cycles a second"] = len(seen["busy"]) / benchmark.stats.stats.median
