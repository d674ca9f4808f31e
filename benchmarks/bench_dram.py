"""How many requests a second the DRAM kernel serves on one core.

`pytest benchmarks/bench_dram.py --benchmark-enable`; every run also asserts the simulated cycles. Warm: kernel
compiled, requests made; placing them by the address map is timed too, nothing is remembered from run to run.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from weft.simulator.dram import run_memory
from weft.simulator.dram_requests import pattern
from weft.simulator.dram_spec import load_memory

REQUESTS = 500_000


@pytest.mark.parametrize(
    ("name", "order", "cycles"),
    [
        ("seq_read", "bg-interleaved", 2_102_912),
        ("seq_write", "column-low", 2_627_483),
        ("train_3r1w_block64", "bg-interleaved", 2_255_532),
        ("copy_1r1w_block1", "bg-interleaved", 2_805_259),
        ("stride_8KB_read", "column-low", 3_424_010),
        ("rand_read_64B", "bg-interleaved", 3_469_646),
        ("rand_rw_64B", "bg-interleaved", 3_777_527),
    ],
)
def test_requests(benchmark: BenchmarkFixture, name: str, order: str, cycles: int) -> None:
    memory = load_memory("ddr4-2400-x8")
    asked = pattern(name, memory, REQUESTS)
    run = benchmark(run_memory, memory, asked, order)
    assert run.cycles == cycles
    if benchmark.stats is not None:
        benchmark.extra_info["requests a second"] = REQUESTS / benchmark.stats.stats.min
