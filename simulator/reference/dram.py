"""One DRAM channel, cycle after cycle: the rules of `simulator/dram.py` on plain lists, every gap looked up anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..dram_spec import MemorySpec

__all__ = ["Command", "ReferenceChannel", "channel_reference"]


class Command(NamedTuple):
    """``bank`` is -1 for the commands to a whole rank; ``row`` is -1 where none is meant."""

    cycle: int
    kind: str
    rank: int
    bank: int
    row: int


@dataclass(slots=True)
class _Request:
    number: int
    bank: int
    row: int
    column: int
    write: bool
    time: int


@dataclass(slots=True)
class ReferenceChannel:
    """Commands in order, and for each request the cycle it entered a queue and that of the end of its data."""

    commands: list[Command] = field(default_factory=list)
    entered: dict[int, int] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)


def channel_reference(memory: MemorySpec, requests: list[tuple[int, int, int, bool, int]]) -> ReferenceChannel:
    """Serve (bank, row, column, write, time) of one channel, in order; banks count through ranks and groups."""
    return _Channel(memory, [_Request(i, *r) for i, r in enumerate(requests)]).run()


class _Channel:
    def __init__(self, memory: MemorySpec, requests: list[_Request]) -> None:
        self.t, self.o, self.c = memory.timing, memory.organization, memory.controller
        self.burst = self.o.burst_length // 2
        self.outside = requests
        self.reads: list[_Request] = []
        self.writes: list[_Request] = []
        self.draining = False
        self.open_row: dict[int, int] = {}
        self.opened: dict[int, int] = {}
        self.served: dict[int, int] = {}
        self.refreshed = [0] * self.o.ranks
        self.last: dict[tuple[str, int, int], int] = {}
        self.activates: list[list[int]] = [[] for _ in range(self.o.ranks)]
        self.result = ReferenceChannel()

    def run(self) -> ReferenceChannel:
        now = 0
        while self.outside or self.reads or self.writes:
            self.admit(now)
            if self.outside or self.reads or self.writes:
                self.choose_direction()
                self.issue(now)
            now += 1
        return self.result

    def admit(self, now: int) -> None:
        if not self.outside or self.outside[0].time > now:
            return
        r = self.outside[0]
        line = (r.bank, r.row, r.column)
        queue, room = (self.writes, self.c.write_queue) if r.write else (self.reads, self.c.read_queue)
        if any((w.bank, w.row, w.column) == line for w in self.writes):
            self.result.entered[r.number], self.result.done[r.number] = now, now + 1
        elif len(queue) < room and not (r.write and any((q.bank, q.row, q.column) == line for q in self.reads)):
            queue.append(r)
            self.result.entered[r.number] = now
        else:
            return
        self.outside.pop(0)

    def choose_direction(self) -> None:
        if not self.draining:
            self.draining = len(self.writes) >= self.c.drain_from or (not self.reads and bool(self.writes))
        elif not self.writes or (len(self.writes) <= self.c.drain_to and self.reads):
            self.draining = False

    def issue(self, now: int) -> None:
        due = [r for r in range(self.o.ranks) if now >= self.next_refresh(r)]
        for rank in due:
            kind = "PREA" if any(self.rank_of(b) == rank for b in self.open_row) else "REF"
            if self.legal(now, kind, rank, -1):
                return self.do(Command(now, kind, rank, -1, -1))
        columns, rows = [], []
        queue = self.writes if self.draining else self.reads
        for bank in sorted({r.bank for r in queue if self.rank_of(r.bank) not in due}):
            asking = [r for r in queue if r.bank == bank]
            kind, request = self.wanted(bank, asking)
            if self.legal(now, kind, self.rank_of(bank), bank):
                if kind in ("RD", "WR"):
                    columns.append((self.opened[bank], kind, request))
                else:
                    rows.append((request.number, kind, request))
        for _, kind, request in sorted(columns, key=lambda c: c[0]) + sorted(rows, key=lambda r: r[0]):
            row = -1 if kind == "PRE" else request.row
            self.do(Command(now, kind, self.rank_of(request.bank), request.bank, row))
            if kind in ("RD", "WR"):
                queue.remove(request)
                self.result.done[request.number] = now + self.burst + (self.t.CWL if request.write else self.t.CL)
            return None
        return None

    def wanted(self, bank: int, asking: list[_Request]) -> tuple[str, _Request]:
        if bank not in self.open_row:
            return "ACT", asking[0]
        hits = [r for r in asking if r.row == self.open_row[bank]]
        if hits and (hits[0] is asking[0] or self.served[bank] < self.c.hit_limit):
            return ("WR" if hits[0].write else "RD"), hits[0]
        return "PRE", asking[0]

    def do(self, command: Command) -> None:
        self.result.commands.append(command)
        self.last[command.kind, command.rank, command.bank] = command.cycle
        bank = command.bank
        if command.kind == "ACT":
            self.open_row[bank], self.opened[bank], self.served[bank] = command.row, command.cycle, 0
            self.activates[command.rank].append(command.cycle)
        elif command.kind == "PRE":
            del self.open_row[bank]
        elif command.kind == "PREA":
            self.open_row = {b: row for b, row in self.open_row.items() if self.rank_of(b) != command.rank}
        elif command.kind == "REF":
            self.refreshed[command.rank] += 1
        else:
            self.served[bank] += 1

    def rank_of(self, bank: int) -> int:
        return bank // (self.o.bank_groups * self.o.banks)

    def next_refresh(self, rank: int) -> int:
        return (rank + 1) * self.t.REFI // self.o.ranks + self.refreshed[rank] * self.t.REFI

    def legal(self, now: int, kind: str, rank: int, bank: int) -> bool:
        if kind == "ACT" and len(self.activates[rank]) >= 4 and now < self.activates[rank][-4] + self.t.FAW:
            return False
        if kind == "PREA":
            return all(self.legal(now, "PRE", rank, b) for b in self.open_row if self.rank_of(b) == rank)
        return all(now - cycle >= self.gap(past, r, b, kind, rank, bank) for (past, r, b), cycle in self.last.items())

    def gap(self, past: str, past_rank: int, past_bank: int, kind: str, rank: int, bank: int) -> int:
        """Cycles that must lie between two commands, 0 if they do not know of each other."""
        t, same_rank, same_bank = self.t, past_rank == rank, past_bank == bank
        same_group = past_bank // self.o.banks == bank // self.o.banks
        match past, kind:
            case "ACT", "ACT" if same_bank:
                return max(t.RAS + t.RP, t.RRD_L)
            case "ACT", "ACT" if same_rank:
                return t.RRD_L if same_group else t.RRD_S
            case "ACT", "RD" | "WR" if same_bank:
                return t.RCD
            case "ACT", "PRE" if same_bank:
                return t.RAS
            case "ACT", "REF" if same_rank:
                return t.RAS + t.RP
            case "PRE", "ACT" if same_bank:
                return t.RP
            case "PRE", "REF" if same_rank:
                return t.RP
            case "PREA", "ACT" | "REF" if same_rank:
                return t.RPA
            case "REF", "ACT" | "REF" if same_rank:
                return t.RFC
            case "RD", "PRE" if same_bank:
                return t.RTP
            case "WR", "PRE" if same_bank:
                return t.CWL + self.burst + t.WR
            case ("RD", "RD") | ("WR", "WR"):
                return max(self.burst, t.CCD_L if same_group else t.CCD_S) if same_rank else self.burst + t.RANK_GAP
            case "RD", "WR":
                return t.CL + self.burst + t.RTW_GAP - t.CWL
            case "WR", "RD":
                if not same_rank:
                    return t.CWL + self.burst + t.RANK_GAP - t.CL
                return t.CWL + self.burst + (t.WTR_L if same_group else t.WTR_S)
        return 0
