"""DRAM traces in files: ours, and those of Ramulator, DRAMsim3 and DRAMSim2.

=================================  ==================================================  ======================
one request a line                 of                                                  address without ``0x``
=================================  ==================================================  ======================
``ADDRESS,R|W[,CYCLE]``            Weft, and any spreadsheet (``;`` for ``,`` as well)  decimal
``LD|ST ADDRESS``                  Ramulator 2, LoadStoreTrace                         decimal
``ADDRESS R|W``                    Ramulator 1                                         decimal
``ADDRESS READ|WRITE CYCLE``       DRAMsim3; DRAMSim2's mase and misc, IFETCH too      hexadecimal
``ADDRESS P_MEM_RD|... CYCLE``     DRAMSim2's k6                                       hexadecimal
=================================  ==================================================  ======================

As their sources read them (Ramulator 2 loadstore_trace.cpp, Ramulator 1 Processor.cpp, DRAMsim3 common.cc, DRAMSim2
TraceBasedSim.cpp). Words may be of either case, in any line another form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, assert_never, get_args

import numpy as np

from ..workloads.errors import InputError
from ..workloads.files import write_atomically
from ..workloads.strict import read_text
from .dram_requests import MOST_REQUESTS, Requests
from .dram_spec import MemorySpec

__all__ = ["FORMS", "Form", "Trace", "Written", "read_trace", "write_trace"]

Form = Literal["dramsim3", "ramulator", "csv"]
FORMS: tuple[Form, ...] = get_args(Form)
"""Forms that are written: with cycles but for Ramulator's; ``csv`` is our own."""

_LATEST = 10**11
"""Cycles: more than a minute, and a second of ours for the refreshes of an idle memory."""

_OURS = {"R": False, "W": True, "RD": False, "WR": True}
_RAMULATOR = {"LD": False, "ST": True}
# P_LOCK_WR is a read to both: the locked bus cycle fetches what it will write.
_DRAMSIM = {
    "READ": False,
    "WRITE": True,
    "IFETCH": False,
    "P_FETCH": False,
    "P_MEM_RD": False,
    "P_LOCK_RD": False,
    "P_LOCK_WR": False,
    "P_MEM_WR": True,
    "BOFF": True,
}
_WRITES = {**_OURS, **_RAMULATOR, **_DRAMSIM}
_NOTES = re.compile(r"(^|\s)(#|//).*")


class Trace(NamedTuple):
    """Requests of a file; ``hexadecimal``: some address without 0x was read so, as DRAMsim3 does."""

    requests: Requests
    hexadecimal: bool


class Written(NamedTuple):
    """What a trace that was written holds, and the cycle of its last request."""

    reads: int
    writes: int
    last: int


def write_trace(path: Path, parts: Iterable[Requests], memory: MemorySpec, form: Form, limit: int) -> Written:
    """Write requests, part by part, whole or not at all; more than ``limit`` are refused."""
    writes = reads = last = 0

    def lines() -> Iterator[bytes]:
        nonlocal reads, writes, last
        if form == "csv":
            yield b"address,op,cycle\n"
        for part in parts:
            written = int(part.write.sum())
            writes, reads, last = writes + written, reads + len(part) - written, int(part.time[-1])
            if reads + writes > limit:
                raise InputError(
                    f"{path}: would hold more than {limit:,} requests: raise the limit, or use a smaller batch"
                )
            yield _text(part, memory.organization.line_bytes, form).encode()

    write_atomically(path, lines())
    return Written(reads, writes, last)


def _text(part: Requests, line_bytes: int, form: Form) -> str:
    rows = zip((part.line * line_bytes).tolist(), part.write.tolist(), part.time.tolist(), strict=True)
    match form:
        case "dramsim3":
            return "".join([f"0x{a:X} {'WRITE' if w else 'READ'} {t}\n" for a, w, t in rows])
        case "ramulator":
            return "".join([f"{'ST' if w else 'LD'} 0x{a:x}\n" for a, w, _ in rows])
        case "csv":
            return "".join([f"0x{a:x},{'W' if w else 'R'},{t}\n" for a, w, t in rows])
        case _:
            assert_never(form)


class _Request(NamedTuple):
    """One line taken apart; the cycle is empty where it has none."""

    address: str
    operation: str
    cycle: str
    hexadecimal: bool


def read_trace(path: Path, memory: MemorySpec) -> Trace:
    """Requests of a trace file in any of the forms above; a request without a cycle is there with the one before it.

    A first line ``address,op[,time]`` is a heading; empty lines and what follows # or // are skipped. Addresses are
    in bytes and rounded down to a line.
    """
    address, write, time = list[int](), list[bool](), list[int]()
    last, hexadecimal, latest = memory.organization.lines * memory.organization.line_bytes - 1, False, 0
    for where, request in _parsed(path):
        bare = request.hexadecimal and request.address[:2].lower() != "0x"
        hexadecimal |= bare
        address.append(_number(where, "address", request.address, last, bare))
        write.append(_WRITES[request.operation])
        if request.cycle:
            cycle = _number(where, "cycle", request.cycle, _LATEST)
            if cycle < latest:
                raise InputError(f"{where}: cycle {cycle} is before {latest} of the request above; sort by time")
            latest = cycle
        time.append(latest)
        if len(address) > MOST_REQUESTS:
            raise InputError(f"{where}: more than {MOST_REQUESTS} requests; cut the trace")
    if not address:
        raise InputError(f"{path}: holds no request")
    line = np.array(address, np.int64) // memory.organization.line_bytes
    return Trace(Requests(line=line, write=np.array(write), time=np.array(time, np.int64)), hexadecimal)


def _parsed(path: Path) -> Iterator[tuple[str, _Request]]:
    """Each request of the file, with the place of its line."""
    heading = True
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        line = _NOTES.sub("", text).strip()
        if not line:
            continue
        separator = next((mark for mark in ",;" if mark in line), None)
        fields = [field.strip().strip('"') for field in line.split(separator)]
        if heading and fields[0].lower() in ("address", "addr"):
            heading = False
            continue
        heading = False
        where = f"{path}:{number}"
        yield where, _taken_apart(where, fields, separator is None)


def _taken_apart(where: str, fields: list[str], blanks: bool) -> _Request:
    first = fields[0].partition(" ")[0].upper()
    if first in _WRITES:
        if len(fields) != 2 or first != fields[0].upper():
            raise InputError(
                f"{where}: {len(fields)} fields; after {first} stands one address, as in LD 0x1f40 of Ramulator 2's "
                "load/store traces (its read/write traces give places in the memory instead, which are not read)"
            )
        return _Request(fields[1], first, "", first in _DRAMSIM)
    if len(fields) == 2 and all(re.fullmatch(r"\d+", field, re.ASCII) for field in fields):
        raise InputError(
            f"{where}: two numbers are a line of a processor's trace, which says no cycle: run it in its simulator and "
            "give the trace of requests"
        )
    if len(fields) not in (2, 3):
        raise InputError(
            f"{where}: {len(fields)} fields; a request is address,R|W or address,R|W,cycle, LD|ST address, or address "
            "READ|WRITE cycle"
        )
    operation = fields[1].upper()
    if operation not in _WRITES:
        raise InputError(
            f"{where}: operation must be R or W, not {fields[1]!r}; known too are {', '.join([*_RAMULATOR, *_DRAMSIM])}"
        )
    return _Request(fields[0], operation, fields[2] if len(fields) == 3 else "", blanks and operation in _DRAMSIM)


def _number(where: str, what: str, text: str, most: int, bare_hexadecimal: bool = False) -> int:
    digits = "[0-9a-fA-F]{1,16}" if bare_hexadecimal else "[0-9]{1,19}"
    if not re.fullmatch(rf"0[xX][0-9a-fA-F]{{1,16}}|{digits}", text, re.ASCII):
        raise InputError(f"{where}: {what} must be a number from 0 on, decimal or 0x..., not {text!r}")
    value = int(text, 16) if bare_hexadecimal or text[:2].lower() == "0x" else int(text)
    if value > most:
        read = f" (hexadecimal, {value})" if bare_hexadecimal else ""
        raise InputError(f"{where}: {what} {text}{read} is beyond the last one, {most}")
    return value
