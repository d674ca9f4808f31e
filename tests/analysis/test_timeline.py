"""The Perfetto trace of a step, read back with Perfetto's own schema; its processor, a download, is not used."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from weft.analysis.timeline import save_timeline, timeline_tracks
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.system import simulate_system
from weft.simulator.system_result import SystemResult
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.trace import trace_step


@pytest.fixture(scope="module")
def result() -> SystemResult:
    workload = annotate(trace_step(zoo.source("resnet9"), batch=2), "bdwp", NMPattern(keep=2, group=8))
    return simulate_system(schedule(workload, load_spec("sat-vcu1525")))


def test_the_file_holds_every_slice_with_its_name(result: SystemResult, tmp_path: Path) -> None:
    path = tmp_path / "a.perfetto-trace"

    save_timeline(result, path)

    trace = Trace.FromString(path.read_bytes())
    names = {n.iid: n.name for p in trace.packet for n in p.interned_data.event_names}
    passes = {n.iid: n.name for p in trace.packet for n in p.interned_data.event_categories}
    tracks = {p.track_descriptor.uuid: p.track_descriptor.name for p in trace.packet if p.HasField("track_descriptor")}
    found = defaultdict(list)
    opened: dict[int, tuple[int, str]] = {}
    for packet in trace.packet:
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in opened, "slices of a track do not overlap"
            assert names[event.name_iid].startswith(passes[event.category_iids[0]])
            opened[event.track_uuid] = (packet.timestamp, names[event.name_iid])
        else:
            start, name = opened.pop(event.track_uuid)
            found[tracks[event.track_uuid]].append((start, packet.timestamp, name))
    assert not opened
    ops = result.step.workload.ops
    for track, slices in timeline_tracks(result).items():
        assert [(s, e) for s, e, _ in found[track]] == list(zip(slices.start_ns, slices.end_ns, strict=True))
        assert all(ops[op].name in name for op, (_, _, name) in zip(slices.op, found[track], strict=True))
    assert set(found) == set(timeline_tracks(result))


def test_tracks_are_engines_and_channels_and_keep_the_time(result: SystemResult) -> None:
    tracks = timeline_tracks(result)

    assert {"STCE", "vector", "WUVE", "SORE", "DMA: macro-tiles", "DMA: vector", "DMA: WUVE"} <= set(tracks)
    for slices in tracks.values():
        times = [t for span in zip(slices.start_ns.tolist(), slices.end_ns.tolist(), strict=True) for t in span]
        assert all(a <= b for a, b in pairwise(times))
    last = max(int(slices.end_ns.max()) for slices in tracks.values())
    assert last == int(int(result.end.max()) * 10**9 // (result.rate * 200_000_000))
    busy_ns = sum(int((s.end_ns - s.start_ns).sum()) for name, s in tracks.items() if name.startswith("DMA"))
    exact = result.engines["DRAM"].busy * 10**9 / (result.rate * 200_000_000)
    assert busy_ns == pytest.approx(exact, abs=sum(len(s.op) for s in tracks.values()))


def test_slices_of_one_op_that_touch_are_one(result: SystemResult) -> None:
    for slices in timeline_tracks(result).values():
        touching = (slices.op[1:] == slices.op[:-1]) & (slices.start_ns[1:] == slices.end_ns[:-1])
        # Two slices a fraction of a nanosecond apart may look as if they touched.
        assert touching.sum() <= 0.02 * len(slices.op) + 2
