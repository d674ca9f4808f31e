"""Speed of the analytic and step levels: mapping costs a second, and a ResNet-50 step at batch 512.

What was warm says each benchmark; `warm` is a look into caches, `caches cleared` searches and simulates every op anew.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.prices import FREE
from weft.dataflow.problem import memory_machine, problem_of
from weft.dataflow.schedule import schedule
from weft.dataflow.stce.pace import array_machine
from weft.dataflow.stce.search import THRIFT, search
from weft.dataflow.stce.space import FREE_SPACE, Limits
from weft.simulator.step import simulate
from weft.tests.dataflow import exhaustive
from weft.workloads.io import save_workload
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload
from weft.workloads.trace import trace_step

SAT = load_spec("sat-vcu1525")
_REMEMBERING = [sys.modules[name] for name in ("weft.dataflow.schedule", "weft.simulator.step")]
TWO_OF_EIGHT = NMPattern(keep=2, group=8)
BDWP_CYCLES = 3_742_000_000
"""ResNet-50, batch 512, bdwp 2:8, to three digits."""


@pytest.fixture(scope="session")
def resnet50() -> Workload:
    return trace_step(zoo.source("resnet50"), batch=512)


@pytest.mark.parametrize("layer", ["a 3x3 convolution", "a transformer layer"])
def test_mapping_costs(benchmark, resnet50, layer):
    """The whole space of one op under the default objective: every mapping costed, or excluded by a bound; the result
    and the number of mappings are those of the search that costs all."""
    if layer == "a 3x3 convolution":
        op = next(o for o in resnet50.matrix_ops if o.gemm.k == 4608)
    else:
        workload = trace_step(zoo.source("vit_b_16"), batch=64)
        op = next(o for o in workload.matrix_ops if o.gemm.k == 3072)
    problem = problem_of(op, "b", SAT)
    limits = Limits(SAT.pe.accumulators, SAT.pe.dense_words, SAT.pe.weight_pairs, SAT.pe.max_group)
    arguments = (problem, array_machine(SAT), memory_machine(SAT), limits, FREE, THRIFT, FREE_SPACE)
    search(*arguments)

    found = benchmark(search, *arguments)

    every = exhaustive.search(*arguments)
    benchmark.extra_info["million_decided_per_second"] = round(every.decided / benchmark.stats["min"] / 1e6, 1)
    assert found[:-1] == every[:-1] and every.decided > 5_000


def test_resnet50_step_warm(benchmark, resnet50):
    """Caches of placements and phases hit: nothing is searched or stepped again."""
    workload = annotate(resnet50, "bdwp", TWO_OF_EIGHT)
    simulate(schedule(workload, SAT))

    result = benchmark(lambda: simulate(schedule(workload, SAT)))

    assert result.cycles.total == pytest.approx(BDWP_CYCLES, rel=1e-3)


def _clear_caches() -> None:
    """Of whatever the schedule and the step keep in this process; compiled kernels stay."""
    kept = {id(f): f for module in _REMEMBERING for f in vars(module).values()}
    cleared = [f.cache_clear() for f in kept.values() if hasattr(f, "cache_clear")]
    assert cleared


@pytest.mark.parametrize("part", ["schedule", "simulate"])
def test_resnet50_step_caches_cleared(benchmark, resnet50, part):
    """Kernels compiled, nothing else warm: every op is searched, or summed, anew."""
    workload = annotate(resnet50, "bdwp", TWO_OF_EIGHT)
    plan = schedule(workload, SAT)
    simulate(plan)
    work = partial(schedule, workload, SAT) if part == "schedule" else partial(simulate, plan)

    result = benchmark.pedantic(work, setup=_clear_caches, rounds=5)

    total = simulate(result).cycles.total if part == "schedule" else result.cycles.total
    assert total == pytest.approx(BDWP_CYCLES, rel=1e-3)


def test_resnet50_step_cold(benchmark, resnet50, tmp_path):
    """A new process each time, with the kernels' disk cache; what is timed inside it is schedule + simulate."""
    path = tmp_path / "resnet50.json"
    save_workload(annotate(resnet50, "bdwp", TWO_OF_EIGHT), path)
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from weft.dataflow.config_io import load_spec\n"
        "from weft.dataflow.schedule import schedule\n"
        "from weft.simulator.step import simulate\n"
        "from weft.workloads.io import load_workload\n"
        "workload, spec = load_workload(Path(sys.argv[1])), load_spec('sat-vcu1525')\n"
        "start = time.perf_counter()\n"
        "result = simulate(schedule(workload, spec))\n"
        "print(time.perf_counter() - start, result.cycles.total)\n"
    )

    def cold() -> tuple[float, int]:
        out = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True).stdout
        seconds, cycles = out.split()
        return float(seconds), int(cycles)

    cold()
    seconds, cycles = benchmark.pedantic(cold, rounds=3)

    benchmark.extra_info["schedule_and_simulate_seconds"] = round(seconds, 3)
    assert cycles == pytest.approx(BDWP_CYCLES, rel=1e-3)


def test_help_starts_fast(benchmark):
    done = benchmark(lambda: subprocess.run([sys.executable, "-m", "weft", "--help"], capture_output=True, check=True))

    assert b"compare" in done.stdout
