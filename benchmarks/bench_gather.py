"""How fast a mask of 10^8 elements is costed on a gather engine: by its counts a line, and stepped element by element.

`pytest benchmarks/bench_gather.py --benchmark-enable`; every run also asserts slots. Warm: kernels compiled. Of
processor time: what else runs on the machine does not count.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import place
from weft.dataflow.gather.spec import GatherSpec
from weft.dataflow.gather.time import Slots, slots_of
from weft.dataflow.objective import Objective
from weft.dataflow.placement import Placement
from weft.simulator.gather import step_mask
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.groups import GroupShape, grouped_mask
from weft.workloads.operand import Operand, Role
from weft.workloads.step import MatrixOp
from weft.workloads.unstructured import Cell, Histogram, Unstructured, counted_mask

pytestmark = pytest.mark.benchmark(timer=time.process_time)
LINES, K = 8_192, 12_288
MASK = np.random.default_rng(1).random((LINES, K), np.float32) < 0.25
"""1.007 x 10^8 elements, lines as rows: of operand a."""
SPEC = replace(load_spec("tiny"), gather=GatherSpec(lanes=64, width=16))
SPEC = replace(SPEC, buffers=replace(SPEC.buffers, w2e_bytes=2**28, output_bytes=2**22))
MOST_SECONDS = 1.0
"""Of a mask of 10^8 elements, from its bits to a placement."""


def _placed() -> Placement:
    sparse = Unstructured(operand="a", kept=counted_mask(MASK, "a"), stored="bitmap")
    a, b, c = (Operand(role=Role.WEIGHT, dtype="float16", bytes=2 * n) for n in (LINES * K, K * 16, LINES * 16))
    op = MatrixOp(name="one", op="aten.mm", pass_=Pass.FF, gemm=Gemm(m=LINES, k=K, n=16), a=a, b=b, c=c, sparse=sparse)
    return place(op, SPEC, Objective.CYCLES)


def _by_hand() -> int:
    """Rounds of 64 lines, longest first."""
    longest_first = np.sort(np.count_nonzero(MASK, axis=1))[::-1]
    return int(longest_first[::64].sum())


def test_a_mask_of_100_million_elements_is_placed(benchmark: BenchmarkFixture) -> None:
    found = benchmark(_placed)
    assert found.engine == "gather"
    # 16 columns on 16 PEs are a cycle, and the adder takes four.
    assert found.cycles.compute + found.cycles.interleave_stall == 4 * _by_hand()
    if benchmark.stats is not None:
        assert benchmark.stats.stats.min < MOST_SECONDS


@pytest.mark.parametrize("banks", [0, 64])
def test_a_mask_of_100_million_elements_is_stepped(benchmark: BenchmarkFixture, banks: int) -> None:
    own = GatherSpec(lanes=64, width=16, banks=banks)
    stepped, _ = benchmark(step_mask, own, MASK.T)
    assert SPEC.gather is not None
    alone = slots_of(SPEC.gather, counted_mask(MASK, "a").of(LINES, K))
    assert alone == Slots(_by_hand(), _by_hand())
    assert stepped.slots == _by_hand() if banks == 0 else stepped.slots > _by_hand()


def test_groups_over_all_banks_of_100_million_elements_are_costed(benchmark: BenchmarkFixture) -> None:
    own, shape = GatherSpec(lanes=64, width=16, banks=64), GroupShape(lines=1, places=64)
    mask = (np.random.default_rng(2).random((LINES, K // 64)) < 0.25).repeat(64, axis=1)

    def costed() -> Slots:
        known = grouped_mask(mask, shape, K).of(LINES, K // 64)
        return slots_of(own, Histogram(known.kept * 64, known.lines), Cell(1, 64))

    found = benchmark(costed)
    # A lane waits at most once for each of the others.
    stepped, _ = step_mask(own, mask.T)
    assert found.least <= stepped.slots <= found.most == found.least + 63
    assert stepped.waited <= 64 * 63 // 2
    if benchmark.stats is not None:
        assert benchmark.stats.stats.min < MOST_SECONDS
