"""A machine at the other end of a link: memory, programs, counters, as its driver in co-simulation has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...dataflow.program.control import MAGIC, MachineError, control
from ...dataflow.program.isa import VERSION
from ...dataflow.program.program import Program
from ...dataflow.program.spaces import Target
from ...workloads.errors import InputError
from ..drivers.accelerator import StoppedError
from ..top.csr import counters_of
from .link import Line, Link, LinkError
from .packet import Where

__all__ = ["Machine", "MachineRun"]

Bytes = npt.NDArray[np.uint8]
_BUSY = 1


@dataclass(frozen=True, slots=True)
class MachineRun:
    """A program that has ended: its cycles and the machine's counters."""

    cycles: int
    counters: Mapping[str, int]


class Machine:
    """The machine behind ``line``, which must be that of ``target``; ``link`` counts what was lost on the way.

    ``patience``: seconds until a request is sent again; a simulated design is slower than a board.
    """

    def __init__(self, line: Line, target: Target, *, patience: float | None = None) -> None:
        self.target = target
        self.link = Link(line) if patience is None else Link(line, patience=patience)
        self.size, self.room = self.link.board["memory"], self.link.board["program"]
        self.hz = self.link.board["hz"]
        self._loaded: dict[bytes, int] = {}
        if (magic := self.get("identity")) != MAGIC:
            raise LinkError(f"there is no machine behind the line: identity {magic:#x} instead of {MAGIC:#x}")
        if (version := self.get("version")) != VERSION:
            raise InputError(f"the machine has version {version} of the instruction set; programs here have {VERSION}")
        found = f"{self.get('machine_high') << 32 | self.get('machine_low'):012x}"
        if found != target.hash:
            raise InputError(f"the machine on the board is {found}, not {target.hash}; load the bitstream of that one")

    def get(self, name: str) -> int:
        """A register of the machine."""
        return int.from_bytes(self.link.read(Where.REGISTERS, control(name).address, 4), "little")

    def set(self, name: str, value: int) -> None:
        """Write a register of the machine."""
        self.link.write(Where.REGISTERS, control(name).address, value.to_bytes(4, "little"))

    def write(self, address: int, data: Bytes, said: Callable[[int, int], object] | None = None) -> None:
        """Bytes, uint8 [n], to ``address`` of memory on."""
        self._require(address, len(data))
        self.link.write(Where.MEMORY, address, data.tobytes(), said)

    def read(self, address: int, count: int, said: Callable[[int, int], object] | None = None) -> Bytes:
        """``count`` bytes of memory from ``address`` on, uint8 [count]."""
        self._require(address, count)
        return np.frombuffer(self.link.read(Where.MEMORY, address, count, said), np.uint8).copy()

    def run(self, program: Program, seconds: float | None = None) -> MachineRun:
        """Run a program to its end; `StoppedError` if it ends in an error, `LinkError` if not within ``seconds``.

        It is loaded unless it lies there from before; programs share the memory for instructions.
        """
        if program.machine != self.target.hash:
            raise InputError(f"the program is for machine {program.machine}, not for {self.target.hash}")
        if self.get("status") & _BUSY:
            raise LinkError("the machine is at work on another program; wait for its end, or reset the board")
        self.set("program_low", self._load(program.words))
        self.set("program_high", 0)
        self.set("program_length", len(program.instructions))
        for name, value in (("window_low", 0), ("window_high", 0), ("window_bytes", self.size), ("control", 1)):
            self.set(name, value)
        limit = None if seconds is None else time.monotonic() + seconds
        while self.get("status") & _BUSY:
            if limit is not None and time.monotonic() > limit:
                at = self.get("instruction")
                raise LinkError(f"the program has not ended after {seconds:g} s; it is at instruction {at}")
        error = MachineError(self.get("error"))
        if error != MachineError.NONE:
            raise StoppedError(error, self.get("error_instruction"), self.get("error_value"))
        counters = self.counters()
        return MachineRun(counters["cycles"], counters)

    def counters(self) -> dict[str, int]:
        """All of them, by name."""
        names = counters_of(self.target)
        first = control(f"{names[0]}_low").address
        found = np.frombuffer(self.link.read(Where.REGISTERS, first, 8 * len(names)), "<u8")
        return {name: int(value) for name, value in zip(names, found, strict=True)}

    def _load(self, words: bytes) -> int:
        """Where a program lies."""
        if len(words) > self.room:
            raise InputError(f"the program has {len(words):,} bytes; the board holds programs of {self.room:,}")
        if words not in self._loaded:
            end = sum(map(len, self._loaded))
            if end + len(words) > self.room:
                self._loaded.clear()
                end = 0
            self.link.write(Where.PROGRAM, end, words)
            self._loaded[words] = end
        return self._loaded[words]

    def _require(self, address: int, count: int) -> None:
        if not (address >= 0 and count >= 1 and address + count <= self.size):
            raise InputError(
                f"{count} bytes at {address:#x} do not lie in the {self.size:,} bytes of the board's memory"
            )
