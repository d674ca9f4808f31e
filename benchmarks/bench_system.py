"""Speed of the system level: a whole ResNet-50 training step at batch 512, by SimPy and by the recurrence.

`pytest benchmarks/bench_system.py --benchmark-enable`; both also assert the simulated cycles. Warm: the
schedule and the shares of transfers; no phase is remembered. SimPy beside the recurrence is the ratio to read.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import Schedule, schedule
from weft.simulator.step import simulate
from weft.simulator.system import op_times, phase_total, simulate_system, step_time
from weft.simulator.tasks import tasks_of
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.trace import trace_step

CYCLES = 3_502_459_777
"""ResNet-50, batch 512, bdwp 2:8, on sat-vcu1525."""
STEP_CYCLES = 3_742_076_147


@pytest.fixture(scope="module")
def plan() -> Schedule:
    workload = annotate(trace_step(zoo.source("resnet50"), batch=512), "bdwp", NMPattern(keep=2, group=8))
    return schedule(workload, load_spec("sat-vcu1525"))


def test_events(benchmark: BenchmarkFixture, plan: Schedule) -> None:
    result = benchmark.pedantic(simulate_system, (plan,), {"witness": True}, rounds=1)

    assert (result.cycles, result.step.cycles.total) == (CYCLES, STEP_CYCLES)
    if benchmark.stats is not None:
        benchmark.extra_info["phases a second"] = round(phase_total(tasks_of(plan)) / benchmark.stats.stats.min)


def test_system(benchmark: BenchmarkFixture, plan: Schedule) -> None:
    """Times and uses of all engines, as `weft run --level system` asks for them."""
    result = benchmark(simulate_system, plan)

    assert (result.cycles, result.step.cycles.total) == (CYCLES, STEP_CYCLES)


def test_recurrence(benchmark: BenchmarkFixture, plan: Schedule) -> None:
    """From the tasks on; making them takes about as long again."""
    tasks = tasks_of(plan)
    op_times(tasks)

    _, end = benchmark(op_times, tasks)

    assert -(-int(end.max()) // tasks.rate) == CYCLES == step_time(plan)
    assert simulate(plan).cycles.total == STEP_CYCLES
