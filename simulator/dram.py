"""DRAM: requests in, the cycle each is served out, with the bandwidth, row hits, latency and energy that follow.

Each channel has its own controller and takes its own requests in their order. First-ready, first come first served:
in every cycle, of the commands that JEDEC timing allows, a column of an open row before an activate or precharge; of
several columns that of the row open longest, which ends one row while others still have work; of rows that of the
oldest request. Reads and writes have queues of their own, and writes go in bursts (`Controller`). Every rank refreshes
as a whole once in REFI. A read of a line that waits to be written is answered from the queue; a write replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import DramSpec
from ..workloads.errors import InputError
from .dram_map import locate
from .dram_requests import Requests, lines_of, nest
from .dram_spec import IddPower, MemorySpec, load_memory
from .kernels.dram import Gaps, Totals, run_channel
from .kernels.dram_queue import Shape

__all__ = [
    "MemoryRun",
    "Steady",
    "activate_pj",
    "gaps",
    "memory_of",
    "run_memory",
    "shape",
    "steady",
    "transfer_efficiency",
]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemoryRun:
    """What a memory did with requests: cycles of its own clock, commands by kind, and when each request was served.

    ``entered`` and ``done`` int64 [n]: the cycle of entry into a queue and of the end of the data. ``hits`` are columns
    of a row that was open already; ``forwarded`` reads and ``merged`` writes never reached the banks. ``active_cycles``
    sums over ranks the cycles with an open bank.
    """

    memory: MemorySpec
    requests: Requests
    cycles: int
    activates: int
    precharges: int
    reads: int
    writes: int
    refreshes: int
    hits: int
    forwarded: int
    merged: int
    active_cycles: int
    entered: Int64
    done: Int64

    @property
    def bytes_moved(self) -> int:
        """Bytes over the data buses."""
        return (self.reads + self.writes) * self.memory.organization.line_bytes

    @property
    def share_of_peak(self) -> Fraction:
        """Bytes moved over those the buses could have moved in the same time."""
        return Fraction(self.bytes_moved, self.cycles * self.memory.organization.bytes_per_cycle)

    @property
    def bytes_per_second(self) -> float:
        """Achieved bandwidth."""
        return float(self.share_of_peak) * self.memory.organization.bytes_per_second

    @property
    def row_hit_share(self) -> float:
        """Columns that found their row open, of all."""
        return self.hits / max(self.reads + self.writes, 1)

    @property
    def latency_ns(self) -> npt.NDArray[np.float64]:
        """From the entry of each request into a queue to the end of its data."""
        return np.asarray((self.done - self.entered) * self.memory.organization.cycle_ns, np.float64)

    @property
    def wait_ns(self) -> npt.NDArray[np.float64]:
        """From the cycle each request was there to its entry into a queue; it means something for timed traces only."""
        return np.asarray((self.entered - self.requests.time) * self.memory.organization.cycle_ns, np.float64)

    @property
    def energy_pj(self) -> float:
        """Energy of the devices; no PHY, no termination."""
        o, t, p = self.memory.organization, self.memory.timing, self.memory.power
        if not isinstance(p, IddPower):
            return 8 * o.line_bytes * (self.reads * p.read_pj + self.writes * p.write_pj)
        # A command is charged with what its current adds to the standby current of its time, standby by the cycle.
        devices = o.bus_width // o.device_width
        command = (
            self.reads * (p.idd4r - p.idd3n) * o.burst_cycles
            + self.writes * (p.idd4w - p.idd3n) * o.burst_cycles
            + self.refreshes * (p.idd5ab - p.idd3n) * t.RFC
        )
        idle = self.cycles * o.ranks * o.channels - self.active_cycles
        standby = self.active_cycles * p.idd3n + idle * p.idd2n
        return self.activates * activate_pj(self.memory, p) + p.vdd * (command + standby) * o.cycle_ns * devices

    @property
    def pj_per_bit(self) -> float:
        """Energy over bits moved."""
        return self.energy_pj / max(8 * self.bytes_moved, 1)


def activate_pj(memory: MemorySpec, power: IddPower) -> float:
    """Picojoules of opening and closing a row in all devices of a rank, beyond their standby."""
    o, t = memory.organization, memory.timing
    charge = power.idd0 * t.RC - power.idd3n * t.RAS - power.idd2n * t.RP
    return power.vdd * charge * o.cycle_ns * (o.bus_width // o.device_width)


def gaps(memory: MemorySpec) -> Gaps:
    """Cycles between commands that JEDEC timing and the data bus ask for."""
    t, burst = memory.timing, memory.organization.burst_cycles
    return Gaps(
        act_column=t.RCD,
        act_pre=t.RAS,
        act_act_bank=t.RC,
        act_act_group=t.RRD_L,
        act_act_rank=t.RRD_S,
        four_act=t.FAW,
        pre_act=t.RP,
        pre_all_act=t.RPA,
        column_group=max(t.CCD_L, burst),
        column_rank=max(t.CCD_S, burst),
        column_switch=burst + t.RANK_GAP,
        read_pre=t.RTP,
        write_pre=t.CWL + burst + t.WR,
        read_write=t.CL + burst + t.RTW_GAP - t.CWL,
        write_read_group=t.CWL + burst + t.WTR_L,
        write_read_rank=t.CWL + burst + t.WTR_S,
        write_read_switch=max(t.CWL + burst + t.RANK_GAP - t.CL, 1),
        refresh=t.RFC,
        refresh_interval=t.REFI,
        read_data=t.CL + burst,
        write_data=t.CWL + burst,
    )


def shape(memory: MemorySpec) -> Shape:
    """One channel and its controller as the kernel takes them."""
    o, c = memory.organization, memory.controller
    return Shape(o.ranks, o.bank_groups, o.banks, c.read_queue, c.write_queue, c.drain_from, c.drain_to, c.hit_limit)


def run_memory(memory: MemorySpec, requests: Requests, order: str = "bg-interleaved") -> MemoryRun:
    """Serve ``requests`` under the address map ``order`` (`dram_map.locate`)."""
    place = locate(requests.line, memory, order)
    entered, done = np.zeros((2, len(requests)), np.int64)
    totals, between, size, log = [], gaps(memory), shape(memory), np.zeros((0, 4), np.int64)
    for channel in range(memory.organization.channels):
        mine = np.flatnonzero(place.channel == channel) if memory.organization.channels > 1 else slice(None)
        one = (place.bank[mine], place.row[mine], place.column[mine], requests.write[mine], requests.time[mine])
        into, until = entered[mine], done[mine]
        totals.append(run_channel(*one, between, size, into, until, log))
        entered[mine], done[mine] = into, until
    summed = Totals(*map(sum, zip(*totals, strict=True)))
    cycles = max(t.end for t in totals)
    return MemoryRun(
        memory=memory,
        requests=requests,
        cycles=cycles,
        activates=summed.acts,
        precharges=summed.pres,
        reads=summed.reads,
        writes=summed.writes,
        refreshes=summed.refreshes,
        hits=summed.hits,
        forwarded=summed.forwarded,
        merged=summed.merged,
        active_cycles=summed.active,
        entered=entered,
        done=done,
    )


def memory_of(dram: DramSpec) -> MemorySpec:
    """The memory a machine names: ``dram.kind`` with the fewest channels, a power of two, that reach its rate."""
    memory = load_memory(dram.kind)
    one = replace(memory.organization, channels=1)
    channels = 1
    while channels * one.bytes_per_second < dram.bytes_per_second:
        channels *= 2
    return replace(memory, organization=replace(one, channels=channels))


_INTERVALS = 4
"""Refresh intervals that a stream at the peak would fill; one is left out at each end."""


def transfer_efficiency(
    memory: MemorySpec, row_bytes: int, pitch_bytes: int, write: bool, order: str = "bg-interleaved"
) -> Fraction:
    """Share of the peak at which rows of ``row_bytes``, ``pitch_bytes`` apart, come or go; from 0 to 1.

    Only useful bytes count. In the steady state: row after row, reads or writes alone, refresh included. Rows that
    touch are one stream, whatever they measure (cached).
    """
    if row_bytes < 1 or pitch_bytes < row_bytes:
        raise InputError(f"rows of {row_bytes} bytes, {pitch_bytes} apart, are no transfer: they must not overlap")
    return steady(memory, row_bytes, pitch_bytes, write, order).share


class Steady(NamedTuple):
    """What a long transfer comes to. Of every useful byte: ``activates`` of rows, and bytes ``moved`` over the bus, as
    lines are whole."""

    share: Fraction
    activates: Fraction
    moved: Fraction


def steady(memory: MemorySpec, row_bytes: int, pitch_bytes: int, write: bool, order: str = "bg-interleaved") -> Steady:
    """As `transfer_efficiency`, with what the banks did."""
    longest = _steady_lines(memory) * memory.organization.line_bytes
    if row_bytes == pitch_bytes or row_bytes > longest:
        row_bytes = pitch_bytes = longest
    return _steady(memory, row_bytes, pitch_bytes, write, order)


def _steady_lines(memory: MemorySpec) -> int:
    o = memory.organization
    return o.channels * -(-_INTERVALS * memory.timing.REFI // o.burst_cycles)


@lru_cache(maxsize=65536)
def _steady(memory: MemorySpec, row_bytes: int, pitch_bytes: int, write: bool, order: str) -> Steady:
    o = memory.organization
    rows = -(-_steady_lines(memory) * o.line_bytes // max(row_bytes, o.line_bytes))
    line = nest(0, (rows,), (pitch_bytes,), row_bytes, o.line_bytes) % o.lines
    run = run_memory(memory, lines_of(line, write), order)
    channel = locate(line, memory, order).channel
    # The channel with the most to do sets the pace of a transfer that is spread unevenly.
    time: Fraction = max(
        mine.size / _lines_per_cycle(mine, memory.timing.REFI)
        for mine in (run.done[channel == c] for c in range(o.channels))
        if mine.size
    )
    useful = rows * row_bytes
    return Steady(
        useful / (time * o.bytes_per_cycle), Fraction(run.activates, useful), Fraction(run.bytes_moved, useful)
    )


def _lines_per_cycle(done: Int64, interval: int) -> Fraction:
    """Pace between the first and the last whole refresh interval, so that refreshes count in their measure."""
    last = int(done.max()) // interval * interval
    if last < 2 * interval:
        return Fraction(len(done), int(done.max()))
    return Fraction(int(((done > interval) & (done <= last)).sum()), last - interval)
