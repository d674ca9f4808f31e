"""Machines a second for a ResNet-50 step, BDWP 2:8 at batch 64: scheduled one by one at random, on a grid, and decided
for a front; with joules, and points of columns. Beside it machines with two engines for a step of few values.

Rates are by CPU time of this process, since machines are shared; what else ran on a core still slows it. All of the
step counts: products with their fallback, vector work and updates.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from operator import attrgetter
from random import Random
from typing import TypeVar

import numpy as np
import pytest

from weft.analysis.cluster import cluster
from weft.analysis.energy import energy
from weft.analysis.explore import plan
from weft.analysis.explore.energy import joules
from weft.analysis.explore.space import read_space
from weft.analysis.explore.sweep import sweep
from weft.analysis.scheduling import scheduled
from weft.analysis.tariff import shared_prices
from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec, SoreSpec, VectorSpec
from weft.dataflow.batch.columns import points_from_columns
from weft.dataflow.batch.evaluate import Evaluated, Status, evaluate
from weft.dataflow.batch.front import front
from weft.dataflow.batch.points import COLUMN, Points, points_of
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload
from weft.workloads.trace import trace_step

SAT, BNN = load_spec("sat-vcu1525"), load_spec("bnn-vu9p")
T = TypeVar("T")


@pytest.fixture(scope="session")
def step() -> Workload:
    return annotate(trace_step(zoo.source("resnet50"), batch=64), "bdwp", NMPattern.parse("2:8"))


def anywhere(count: int, seed: int) -> Iterator[AcceleratorSpec]:
    """Machines whose numbers have nothing to do with each other."""
    draw = Random(seed)
    for _ in range(count):
        yield replace(
            SAT,
            array=replace(
                SAT.array,
                rows=draw.choice((4, 8, 16, 24, 32, 48, 64, 128)),
                cols=draw.choice((4, 8, 16, 32, 48, 64)),
                w2e_words=draw.choice((1, 2, 4, 8)),
            ),
            pe=replace(
                SAT.pe,
                accumulators=draw.choice((1, 4, 8, 12, 16)),
                dense_words=draw.choice((16, 32, 64, 128)),
                weight_pairs=draw.choice((1, 2, 4, 8)),
            ),
            buffers=BufferSpec(
                w2e_bytes=2 ** draw.randint(14, 21),
                n2s_bytes=2 ** draw.randint(14, 21),
                output_bytes=2 ** draw.randint(14, 20),
            ),
            sore=SoreSpec(lanes=draw.choice((8, 32, 128))),
            dram=replace(SAT.dram, bytes_per_second=draw.choice((10, 19, 77, 154, 1000)) * 10**9),
        )


def grid() -> Iterator[AcceleratorSpec]:
    """Two arrays with all combinations of buffers, registers and vector lanes: 5,184."""
    sizes = ([2**k for k in range(15, 21)], [2**k for k in range(15, 21)], [2**k for k in range(14, 20)])
    for side, west, north, out, sums, words, lanes in product((16, 32), *sizes, (4, 8, 16), (32, 128), (64, 256)):
        yield replace(
            SAT,
            array=replace(SAT.array, rows=side, cols=side),
            pe=replace(SAT.pe, accumulators=sums, dense_words=words),
            buffers=BufferSpec(w2e_bytes=west, n2s_bytes=north, output_bytes=out),
            vector=VectorSpec(lanes=lanes),
        )


def two_engines() -> Iterator[AcceleratorSpec]:
    """All combinations of an STCE, an XNOR engine, buffers and memory: 3,072."""
    sides = (8, 16, 24, 32)
    for rows, cols, high, wide, sums, size, rate in product(sides, sides, sides, sides, (4, 8), (19, 20, 21), (38, 77)):
        yield replace(
            BNN,
            array=replace(BNN.array, rows=rows, cols=cols),
            xnor=replace(BNN.xnor, rows=high, cols=wide, accumulators=sums),
            buffers=BufferSpec(w2e_bytes=2**size, n2s_bytes=2**size, output_bytes=2**size),
            dram=replace(BNN.dram, bytes_per_second=rate * 10**9),
        )


VARIED = (
    "array.rows",
    "array.cols",
    "pe.accumulators",
    "pe.dense_words",
    "buffers.w2e_bytes",
    "buffers.n2s_bytes",
    "buffers.output_bytes",
    "vector.lanes",
)
"""Fields of the grid."""


def costs_of(points: Points) -> np.ndarray:
    """PEs and bytes of buffers."""
    rows = points.rows
    halves = [rows[:, COLUMN[name]] for name in ("west_half", "north_half", "out_half")]
    return np.stack([rows[:, COLUMN["R"]] * rows[:, COLUMN["C"]], 2 * sum(halves)], axis=1).astype(float)


def by_cpu(benchmark, points: Points, work: Callable[[], T]) -> T:
    spent = list[float]()

    def timed() -> T:
        start = time.process_time()
        found = work()
        spent.append(time.process_time() - start)
        return found

    found: T = benchmark.pedantic(timed, rounds=3, warmup_rounds=1)
    benchmark.extra_info["points_per_cpu_second"] = round(len(points) / min(spent))
    return found


def require_schedules(found: Evaluated, step: Workload, specs: list[AcceleratorSpec], objective: str) -> None:
    """A sample is what `schedule` and `simulate` have."""
    for i in Random(0).sample(range(len(specs)), 20):
        if found.status[i] == Status.RUNS:
            result = simulate(schedule(step, specs[i], objective))
            assert (result.cycles.total, result.counts.dram_bytes) == (found.cycles[i], found.dram_bytes[i])


@pytest.mark.parametrize("objective", ["cycles", "thrift"])
@pytest.mark.parametrize("space", ["independent points", "a grid"])
def test_scheduled(benchmark, step, space, objective):
    specs = list(grid() if space == "a grid" else anywhere(2000, 1))
    points = points_of(specs)

    found = by_cpu(benchmark, points, lambda: evaluate(step, points, objective))

    require_schedules(found, step, specs, objective)


@pytest.mark.parametrize("amounts", [False, True], ids=["cycles alone", "with joules"])
@pytest.mark.parametrize("scheme", ["bireal", "bitnet"])
def test_two_engines(benchmark, scheme, amounts):
    """A step of ResNet-18 at batch 64, binary or with ternary weights, on a grid of machines with an XNOR engine; a
    sample is what `schedule`, `simulate` and `energy` have."""
    step = annotate(trace_step(zoo.source("resnet18"), batch=64), scheme, None)
    specs = list(two_engines())
    points = points_of(specs)

    found = by_cpu(benchmark, points, lambda: evaluate(step, points, "cycles", amounts=amounts))

    assert (found.status == Status.RUNS).all()
    require_schedules(found, step, specs, "cycles")
    if amounts:
        spent = joules(found, specs).joules
        for i in Random(0).sample(range(len(specs)), 10):
            assert energy(simulate(schedule(step, specs[i], "cycles"))).joules == spent[i]


@pytest.mark.parametrize("objective", ["cycles", "energy", "edp"])
def test_priced(benchmark, step, objective):
    """Scheduled under an objective, and joules of every point."""
    specs = list(anywhere(300, 3))
    points = points_of(specs, shared_prices())

    found = by_cpu(benchmark, points, lambda: joules(evaluate(step, points, objective, amounts=True), specs).joules)

    for i in Random(0).sample(range(len(specs)), 10):
        if np.isfinite(found[i]):
            assert energy(simulate(scheduled(step, specs[i], objective))).joules == found[i]


def test_points_of_columns(benchmark):
    """Points of the grid, without a description each."""
    wanted = points_of(grid())
    columns = {path: np.array([attrgetter(path)(spec) for spec in grid()]) for path in VARIED}

    found = by_cpu(benchmark, wanted, lambda: points_from_columns(SAT, columns))

    assert (found.rows == wanted.rows).all()


def test_decided_for_a_front(benchmark, step):
    """The least cycles, PEs and bytes of buffers of 20,000 independent machines; the front is that of all schedules."""
    points = points_of(anywhere(20_000, 2))
    costs = costs_of(points)

    found = by_cpu(benchmark, points, lambda: front(step, points, costs, "cycles"))

    every = evaluate(step, points, "cycles")
    runs = np.flatnonzero(every.status == Status.RUNS)
    rows = np.column_stack([every.cycles[runs], costs[runs]])
    best = [int(i) for i, row in zip(runs, rows, strict=True) if not ((rows <= row).all(1) & (rows < row).any(1)).any()]
    benchmark.extra_info["scheduled"] = int(np.count_nonzero(found.status != Status.LEFT_OUT))
    benchmark.extra_info["front"] = len(best)
    assert found.best.tolist() == best


SWEPT = {
    "model": "resnet9",
    "arch": "sat-ecp5",
    "batch": 32,
    "objectives": ["seconds", "pes"],
    "axes": {
        "array.rows": list(range(2, 18, 2)),
        "array.cols": list(range(2, 18, 2)),
        "buffers.w2e_bytes": {"first": 4096, "last": 32768, "times": 2},
        "buffers.n2s_bytes": {"first": 4096, "last": 524288, "times": 2},
        "dram.bytes_per_second": [1e9, 1.5e9, 2e9, 3e9, 4e9, 6e9],
        "nm": ["2:4", "2:8", "1:8"],
    },
}
"""36,864 points of a small network."""


@contextmanager
def workers(count: int) -> Iterator[str]:
    """Address of a scheduler with as many workers, all on this host."""
    from distributed.deploy.subprocess import SubprocessCluster

    with SubprocessCluster(
        n_workers=count, threads_per_worker=1, dashboard_address=None, worker_kwargs={"dashboard": False}
    ) as made:
        yield made.scheduler_address


def test_two_workers(benchmark, tmp_path, monkeypatch):
    """By wall time, so of a quiet machine alone: a second worker halves the time of the parts and of nothing else."""
    monkeypatch.setattr(plan, "_CHUNK", 1024)
    given, seconds = read_space(SWEPT), dict[int, float]()

    def timed(count: int, name: str) -> None:
        points: list[float] = []

        def tell(what: str, done: int, total: int) -> None:
            if what == "points":
                points.append(time.perf_counter())

        with workers(count) as address, cluster(address) as executor:
            # Each worker loads and compiles what it needs before its time counts.
            sweep(read_space({**SWEPT, "batch": 16}), tmp_path / f"{name}-warm", executor)
            sweep(given, tmp_path / name, executor, tell)
        seconds[count] = points[-1] - points[0]

    timed(1, "one")
    benchmark.pedantic(timed, args=(2, "two"), rounds=1)

    for count, taken in seconds.items():
        benchmark.extra_info[f"points_per_second_{count}"] = round(36_864 / taken)
    benchmark.extra_info["load"] = os.getloadavg()[0]
    one, two = (
        {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) >= 36_864 // 1024
