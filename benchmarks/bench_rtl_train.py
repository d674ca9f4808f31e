"""How fast the RTL of the whole accelerator runs in compiled simulation: cycles a second while it trains a network.

`pytest benchmarks/bench_rtl_train.py --benchmark-enable`; every step also asserts its bits and cycles. What is timed is
a step as `weft rtl-train` makes it: both programs, with what the host and the model do beside them.
"""

from __future__ import annotations

from itertools import repeat

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from weft.analysis.verify.rtl_train import RtlTrainer
from weft.tests.analysis.verify.rtl_networks import target_of, work_of

LEAST = 10_000
"""Cycles a second."""


@pytest.mark.parametrize(("arch", "cycles"), [("tiny", 6_979), ("sat-8x8", 6_278)])
def test_a_step_of_a_perceptron(benchmark: BenchmarkFixture, arch: str, cycles: int) -> None:
    """64, 16 and 10 wide, eight digits."""
    trainer = RtlTrainer(work_of("mlp"), target_of(arch), 10**6, rate=0.05)
    trainer.build()
    batches = repeat(next(trainer.work.batches()))
    benchmark.pedantic(lambda: trainer.step(next(batches)), rounds=10, warmup_rounds=1)
    assert {step.cycles for step in trainer.made} == {cycles}
    if benchmark.stats is not None:
        a_second = cycles / benchmark.stats.stats.min
        benchmark.extra_info["cycles a second"] = a_second
        assert a_second >= LEAST
