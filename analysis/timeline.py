"""A step of the system level as a Perfetto trace: a track for every engine and for every channel to DRAM.

Open the file at https://ui.perfetto.dev. Times are nanoseconds, rounded down to whole ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..simulator.channels import Channel, Names, Purpose, channels, engine_names
from ..simulator.system import MOST_LOGGED
from ..simulator.system_result import Intervals, SystemResult
from ..workloads.errors import InputError
from ..workloads.files import write_atomically
from ..workloads.step import MatrixOp, Op, VectorOp

if TYPE_CHECKING:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket

__all__ = ["Slices", "save_timeline", "timeline_tracks"]

Int64 = npt.NDArray[np.int64]

_PURPOSES = {
    Purpose.STORE: "last stores",
    Purpose.PHASE: "macro-tiles",
    Purpose.NORTH: "first loads, N2S",
    Purpose.WEST: "first loads, W2E",
}
"""Of the engines for products."""
_SEQUENCE = 1
"""All packets are of one writer; any number but 0."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slices:
    """What one track shows, in order; int64 [slices] each, times in nanoseconds."""

    op: Int64
    start_ns: Int64
    end_ns: Int64


def timeline_tracks(result: SystemResult) -> dict[str, Slices]:
    """Tracks by name: the engines, then what each channel moves. Slices of one op that touch are one."""
    happened = result.record()
    if happened is None:
        raise InputError(
            f"a time line is kept of steps of up to {MOST_LOGGED:,} phases, and this one has more; use a smaller batch"
        )
    tracks = {name: spans for name, spans in happened.timeline.items() if name != "DRAM"}
    moved, names = happened.timeline["DRAM"], engine_names(result.step.spec)
    for number, channel in enumerate(channels(len(names.products))):
        mine = moved.channel == number
        tracks[_track(channel, names)] = Intervals(
            op=moved.op[mine],
            channel=moved.channel[mine],
            start=moved.start[mine],
            end=moved.end[mine],
            moved=moved.moved[mine],
        )
    return {name: _slices(spans, result) for name, spans in tracks.items() if len(spans.op)}


def _track(channel: Channel, names: Names) -> str:
    """Who moves bytes, and what for; the only engine for products is not named."""
    engine = names.engines[channel.engine]
    if channel.purpose is Purpose.BESIDE:
        return f"DMA: {engine}"
    purpose = _PURPOSES[channel.purpose]
    return f"DMA: {purpose}" if len(names.products) == 1 else f"DMA: {engine}, {purpose}"


def _slices(spans: Intervals, result: SystemResult) -> Slices:
    parted = (spans.op[1:] != spans.op[:-1]) | (spans.start[1:] != spans.end[:-1])
    first, last = np.r_[True, parted], np.r_[parted, True]
    return Slices(op=spans.op[first], start_ns=_ns(spans.start[first], result), end_ns=_ns(spans.end[last], result))


def _ns(time: Int64, result: SystemResult) -> Int64:
    """Whole nanoseconds of a time in 1/rate cycles, without leaving 64 bits."""
    hz = result.rate * result.step.spec.clock_hz
    return np.array([t * 1_000_000_000 // hz for t in time.tolist()], np.int64)


def save_timeline(result: SystemResult, path: Path) -> None:
    """Write the trace, whole or not at all."""
    write_atomically(path, b"".join(_encoded(packet) for packet in _packets(result)))


def _encoded(packet: TracePacket) -> bytes:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

    return bytes(Trace(packet=[packet]).SerializeToString())


def _packets(result: SystemResult) -> Iterator[TracePacket]:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket, TrackEvent

    # Names are written once and referred to by number, which keeps a trace of a million slices small.
    ops = result.step.workload.ops
    yield _names(ops)
    for number, (name, slices) in enumerate(timeline_tracks(result).items(), start=1):
        packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE)
        packet.track_descriptor.uuid = number
        packet.track_descriptor.name = name
        yield packet
        for op, start, end in zip(slices.op.tolist(), slices.start_ns.tolist(), slices.end_ns.tolist(), strict=True):
            for time, kind in ((start, TrackEvent.TYPE_SLICE_BEGIN), (end, TrackEvent.TYPE_SLICE_END)):
                packet = TracePacket(timestamp=time, trusted_packet_sequence_id=_SEQUENCE)
                packet.sequence_flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
                event = packet.track_event
                event.type, event.track_uuid = kind, number
                if kind == TrackEvent.TYPE_SLICE_BEGIN:
                    event.name_iid, event.category_iids[:] = op + 1, [1 + _PASSES.index(str(ops[op].pass_))]
                yield packet


_PASSES = ("FF", "BP", "WU", "OPT")


def _names(ops: tuple[Op, ...]) -> TracePacket:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket

    packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE)
    packet.sequence_flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    packet.first_packet_on_sequence = True
    for number, op in enumerate(ops, start=1):
        packet.interned_data.event_names.add(iid=number, name=_label(op))
    for number, name in enumerate(_PASSES, start=1):
        packet.interned_data.event_categories.add(iid=number, name=name)
    return packet


def _label(op: Op) -> str:
    """Pass, layer and what is done there."""
    work = op.op.removeprefix("aten.") if isinstance(op, MatrixOp | VectorOp) else "update"
    return f"{op.pass_} {op.name} ({work})"
