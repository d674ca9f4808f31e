"""How fast the cycle level steps: PE-cycles a second of the array, values and parameters a second of the engines.

`pytest benchmarks/bench_cycle_level.py --benchmark-enable`; every run also asserts the simulated cycles. Warm: kernels
compiled, operands in the cache; each run computes every value anew.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.mapping import ArrayMapping, Dataflow
from weft.simulator.array import run_array
from weft.simulator.compact import compress
from weft.simulator.engines import run_sore, run_wuve
from weft.simulator.update_settings import Adam, AdamW, Nesterov, Sgd, UpdateSettings
from weft.workloads.sparsity import NMPattern

_SAT = load_spec("sat-vcu1525")
SPEC = replace(_SAT, array=replace(_SAT.array, w2e_words=2))
RNG = np.random.default_rng(1)
A = RNG.standard_normal((256, 512)).astype(np.float16)
B = RNG.standard_normal((512, 512)).astype(np.float16)


@pytest.mark.parametrize(
    ("dataflow", "pattern", "interleave", "cycles"),
    [
        (Dataflow.OS, "1:1", 4, 65_729),
        (Dataflow.OS, "2:8", 4, 16_580),
        (Dataflow.OS, "2:8", 1, 65_636),
        (Dataflow.WS, "4:4", 4, 66_197),
        (Dataflow.WS, "2:8", 4, 33_109),
    ],
)
def test_array(benchmark: BenchmarkFixture, dataflow: Dataflow, pattern: str, interleave: int, cycles: int) -> None:
    mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern.parse(pattern), interleave=interleave)
    pairs = compress(B, mapping.pattern)
    run = benchmark(run_array, SPEC, mapping, A, pairs)
    assert run.cycles.total == cycles
    if benchmark.stats is not None:
        benchmark.extra_info["PE-cycles a second"] = cycles * SPEC.macs_per_cycle / benchmark.stats.stats.median


@pytest.mark.parametrize(("patterns", "most"), [(("1:1", "4:4"), 3), (("2:8", "2:8"), 3)], ids=["dense", "2:8"])
def test_ws_against_os(benchmark: BenchmarkFixture, patterns: tuple[str, str], most: int) -> None:
    """Time for a PE-cycle in WS over that in OS, in turns."""
    seconds = {Dataflow.OS: math.inf, Dataflow.WS: math.inf}

    def both() -> None:
        for dataflow, name in zip(seconds, patterns, strict=True):
            mapping = ArrayMapping(dataflow=dataflow, pattern=NMPattern.parse(name), interleave=4)
            pairs = compress(B, mapping.pattern)
            begin = time.perf_counter()
            cycles = run_array(SPEC, mapping, A, pairs).cycles.total
            seconds[dataflow] = min(seconds[dataflow], (time.perf_counter() - begin) / cycles)

    benchmark.pedantic(both, rounds=10, warmup_rounds=1)
    if benchmark.stats is not None:
        ratio = seconds[Dataflow.WS] / seconds[Dataflow.OS]
        benchmark.extra_info["WS over OS"] = round(ratio, 2)
        assert ratio < most


@pytest.mark.parametrize(("kind", "cycles"), [("serial", 8_194), ("network", 1_031)])
def test_sore(benchmark: BenchmarkFixture, kind: Literal["serial", "network"], cycles: int) -> None:
    spec = replace(SPEC, sore=replace(SPEC.sore, kind=kind))
    assert benchmark(run_sore, spec, B, NMPattern(keep=2, group=8)).cycles == cycles


@pytest.mark.parametrize(
    ("settings", "cycles"),
    [
        (Sgd(rate=0.1, momentum=0.9), 8_212),
        (Nesterov(rate=0.1, momentum=0.9), 8_218),
        (Adam(rate=0.1, step=1), 8_242),
        (AdamW(rate=0.1, step=1), 8_242),
    ],
)
def test_wuve(benchmark: BenchmarkFixture, settings: UpdateSettings, cycles: int) -> None:
    master, gradient = B.astype(np.float32).ravel(), B.ravel()
    state = (np.zeros_like(master),) * len(settings.rule.state)
    assert benchmark(run_wuve, SPEC, settings, master, gradient, state).cycles == cycles


def test_compress(benchmark: BenchmarkFixture) -> None:
    assert benchmark(compress, B, NMPattern(keep=2, group=8)).values.shape == (128, 512)
