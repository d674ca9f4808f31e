"""Speed of decoding: 1,000 tokens of Llama-2 7B behind 512, in at most 20 ms of one core, in at most 50 with joules.

Warm: kernels are compiled, the first step is scheduled, and the last one, which is the largest cache, is built. Traces
are not in it. Against it stand single steps, each scheduled and simulated by itself.
"""

from __future__ import annotations

from time import process_time

import pytest

from weft.analysis.energy import energy
from weft.analysis.generation import decode_energy
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import Schedule, schedule
from weft.simulator.decode import decode
from weft.simulator.step import simulate
from weft.workloads.catalog import open_model
from weft.workloads.growth import Growth, growth

pytestmark = pytest.mark.benchmark(timer=process_time, min_rounds=20, max_time=5)

STEPS = 1000
SPEC = load_spec("hbm-u55c")


@pytest.fixture(scope="module")
def stream() -> Growth:
    return growth(512, STEPS, lambda context: open_model("llama2_7b", use="decode", context=context))


@pytest.fixture(scope="module")
def first(stream: Growth) -> Schedule:
    return schedule(stream.first, SPEC)


def test_cycles_and_bytes(benchmark, stream, first):
    found = benchmark(lambda: (one := decode(stream, SPEC, chosen=first), one.dram_bytes)[0])

    for step in (0, 1, 487, STEPS - 1):
        assert found.by_step[step] == simulate(schedule(stream.at(step), SPEC)).cycles.total
    assert (found.cycles, found.dram_bytes) == (14_353_951_602, 13_795_272_587_500)
    assert benchmark.stats["min"] <= 0.020


def test_joules_too(benchmark, stream, first):
    found = benchmark(lambda: decode_energy(decode(stream, SPEC, chosen=first)))

    ends = [energy(simulate(schedule(stream.at(step), SPEC))).joules for step in (0, STEPS - 1)]
    assert ends[0] < found.likely / STEPS < ends[1]
    assert round(found.likely, 3) == 1330.314
    assert benchmark.stats["min"] <= 0.050
