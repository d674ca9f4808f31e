"""The JSON of a run at the system level."""

from __future__ import annotations

import json

import pytest

from weft.analysis.records import to_dict
from weft.analysis.system import WAITS, system_dict, use_shares
from weft.analysis.throughput import throughput
from weft.dataflow.schedule import schedule
from weft.simulator.result import SimResult
from weft.simulator.system import simulate_system
from weft.simulator.system_result import SystemResult


@pytest.fixture(scope="module")
def overlapped(bdwp: SimResult) -> SystemResult:
    return simulate_system(schedule(bdwp.workload, bdwp.spec))


def test_it_is_the_json_of_the_step_with_the_speed_of_the_system(bdwp: SimResult, overlapped: SystemResult) -> None:
    found = json.loads(json.dumps(system_dict(overlapped, "weft run toy"), allow_nan=False))
    alone = to_dict(bdwp, "weft run toy")

    assert set(found) == {*alone, "level", "by_shape", "step_cycles", "dram_share_of_peak", "engines", "memory"}
    assert (found["level"], found["step_cycles"]) == ("system", alone["cycles"])
    busy = overlapped.engines["DRAM"].busy / (overlapped.rate * overlapped.step.spec.clock_hz)
    reached = overlapped.step.counts.dram_bytes / busy / overlapped.step.spec.dram.bytes_per_second
    assert found["dram_share_of_peak"] == pytest.approx(reached)
    assert 0 < reached < 1
    assert found["cycles"] == overlapped.cycles < alone["cycles"]
    assert found["seconds"] == pytest.approx(found["cycles"] / bdwp.spec.clock_hz) == overlapped.seconds
    assert found["utilization"] == pytest.approx(alone["utilization"] * alone["cycles"] / found["cycles"])
    assert (found["macs"], found["dram_read_bytes"]) == (alone["macs"], alone["dram_read_bytes"])
    assert max(op["end"] for op in found["ops"]) == found["cycles"]
    assert all(0 <= op["start"] <= op["end"] for op in found["ops"])
    assert (
        sum(size for kind, size in found["memory"].items() if kind not in ("alive", "total"))
        == found["memory"]["total"]
    )


def test_engines_account_for_the_whole_step(overlapped: SystemResult) -> None:
    assert set(overlapped.engines) == {"STCE", "vector", "WUVE", "DRAM", "SORE"}
    for use in overlapped.engines.values():
        shares = use_shares(use)
        assert tuple(shares) == WAITS
        assert sum(shares.values()) == pytest.approx(1)
    assert throughput(overlapped).samples_per_s > 0
