"""A witness for command streams: what the DRAM itself would object to, told from the commands alone.

It shares nothing with the controllers: it keeps no queues, looks back over the whole stream, and derives what may
follow what from the state of banks, from data on the bus, and from JEDEC's own tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..dram_spec import MemorySpec
from .dram import Command

__all__ = ["jedec_violations"]

_COLUMNS = ("RD", "WR")


def jedec_violations(memory: MemorySpec, commands: Sequence[Command]) -> list[str]:
    """One line for each rule that the commands of a channel, in order, break; none is what should come."""
    found = [f"cycle {b.cycle}: two commands on one command bus" for a, b in pairwise(commands) if b.cycle <= a.cycle]
    for rank in range(memory.organization.ranks):
        found += _rank(memory, [c for c in commands if c.rank == rank], rank)
    return found + _bus(memory, commands)


def _rank(memory: MemorySpec, commands: Sequence[Command], rank: int) -> list[str]:
    t, o, found = memory.timing, memory.organization, list[str]()
    base = rank * o.bank_groups * o.banks
    for bank in range(base, base + o.bank_groups * o.banks):
        found += _bank(memory, [c for c in commands if c.bank in (bank, -1)], bank)
    activates = [c for c in commands if c.kind == "ACT"]
    for a, b in pairwise(activates):
        found += _apart(a, b, t.RRD_S, "RRD_S")
    for a, b in zip(activates, activates[4:], strict=False):
        found += _apart(a, b, t.FAW, "FAW")
    for a, b in pairwise([c for c in commands if c.kind in _COLUMNS]):
        if a.kind == b.kind:
            found += _apart(a, b, t.CCD_S, "CCD_S")
    for group in range(base // o.banks, base // o.banks + o.bank_groups):
        inside = [c for c in commands if c.bank >= 0 and c.bank // o.banks == group]
        for a, b in pairwise([c for c in inside if c.kind == "ACT"]):
            found += _apart(a, b, t.RRD_L, "RRD_L")
        for kind in _COLUMNS:
            for a, b in pairwise([c for c in inside if c.kind == kind]):
                found += _apart(a, b, t.CCD_L, "CCD_L")
    for read in (c for c in commands if c.kind == "RD"):
        for write in (c for c in commands if c.kind == "WR" and c.cycle < read.cycle):
            # WTR counts from the end of the data of a write.
            near = write.bank // o.banks == read.bank // o.banks
            rest = read.cycle - (write.cycle + t.CWL + o.burst_length // 2)
            if rest < (t.WTR_L if near else t.WTR_S):
                found.append(f"cycle {read.cycle}: RD {rest} cycles after the data of a write, WTR")
    return found + _refresh(memory, commands, rank)


def _bank(memory: MemorySpec, commands: Sequence[Command], bank: int) -> list[str]:
    """Rules of one bank: what it holds open, and how long each thing takes."""
    t, o, found = memory.timing, memory.organization, list[str]()
    row, activate, free, last_read, last_data = -1, -(10**9), 0, -(10**9), -(10**9)
    for c in commands:
        where = f"cycle {c.cycle}: {c.kind} to bank {bank}"
        match c.kind:
            case "ACT":
                if row != -1:
                    found.append(f"{where}, which is open")
                if c.cycle < free:
                    found.append(f"{where} before RP or RFC was over")
                if c.cycle - activate < t.RC:
                    found.append(f"{where} before RC was over")
                row, activate = c.row, c.cycle
            case "RD" | "WR":
                if row != c.row or row == -1:
                    found.append(f"{where}, row {c.row}, while {row} is open")
                if c.cycle - activate < t.RCD:
                    found.append(f"{where} before RCD was over")
                if c.kind == "RD":
                    last_read = c.cycle
                else:
                    last_data = c.cycle + t.CWL + o.burst_length // 2
            case "PRE" | "PREA":
                if c.kind == "PRE" and row == -1:
                    found.append(f"{where}, which is closed")
                if row != -1 and c.cycle - activate < t.RAS:
                    found.append(f"{where} before RAS was over")
                if row != -1 and (c.cycle - last_read < t.RTP or c.cycle - last_data < t.WR):
                    found.append(f"{where} before RTP or WR was over")
                row, free = -1, max(free, c.cycle + (t.RP if c.kind == "PRE" else t.RPA))
            case "REF":
                if row != -1:
                    found.append(f"{where}, which is open")
                if c.cycle < free:
                    found.append(f"{where} before RP or RFC was over")
                free = c.cycle + t.RFC
    return found


def _refresh(memory: MemorySpec, commands: Sequence[Command], rank: int) -> list[str]:
    """Every rank once in REFI, and never later than it takes to close its rows."""
    t, o = memory.timing, memory.organization
    if not commands:
        return []
    cycles = [c.cycle for c in commands if c.kind == "REF"]
    slack = t.RAS + t.RP + t.RPA + t.CWL + o.burst_length // 2 + t.WR + 4 * o.ranks
    due = (rank + 1) * t.REFI // o.ranks
    found = []
    for number in range(1 + max(commands[-1].cycle - slack - due, -1) // t.REFI):
        wanted = due + number * t.REFI
        if number >= len(cycles) or not wanted <= cycles[number] <= wanted + slack:
            found.append(f"rank {rank}: refresh {number} is not within {slack} cycles of {wanted}")
    return found


def _bus(memory: MemorySpec, commands: Sequence[Command]) -> list[str]:
    """Bursts must not meet, and rest between directions and between ranks."""
    t, o, found = memory.timing, memory.organization, list[str]()
    delay = {"RD": t.CL, "WR": t.CWL}
    bursts = sorted((c.cycle + delay[c.kind], c) for c in commands if c.kind in _COLUMNS)
    for (start, a), (following, b) in pairwise(bursts):
        rest = following - start - o.burst_length // 2
        turns, ranks = (a.kind, b.kind) == ("RD", "WR"), a.rank != b.rank
        if rest < max(t.RTW_GAP if turns else 0, t.RANK_GAP if ranks and a.kind == b.kind else 0):
            found.append(f"cycle {b.cycle}: data {rest} cycles after that of {a.kind} in cycle {a.cycle}")
        if (a.kind, b.kind) == ("WR", "RD") and ranks and rest < t.RANK_GAP:
            found.append(f"cycle {b.cycle}: data {rest} cycles after a write of another rank")
    return found


def _apart(a: Command, b: Command, least: int, rule: str) -> list[str]:
    return (
        [] if b.cycle - a.cycle >= least else [f"cycle {b.cycle}: {b.kind} {b.cycle - a.cycle} after {a.kind}, {rule}"]
    )
