"""Drives the whole accelerator in co-simulation, as a host would: memory, registers, programs, counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.control import MachineError, control
from ...dataflow.program.isa import Unit, units_of
from ...dataflow.program.program import Program
from ...dataflow.program.spaces import Target
from ...workloads.errors import InputError
from ..flow.cosim import Cosim
from ..top.axi import Axi4
from ..top.axi_memory import AxiMemory
from ..top.csr import AxiLite, counters_of
from ..top.sequencer import INSTRUCTION_BYTES
from ..top.top import Top

__all__ = ["Accelerator", "AcceleratorRun", "StoppedError", "UnitRun"]

_CHUNK = 4096
"""Cycles that are simulated at a time."""
_LEAST_SIZE, _LEAST_ROOM = 16, 11
"""Binary logarithms of the least memory, in bytes, and of the least room for instructions."""
Bytes = npt.NDArray[np.uint8]


class StoppedError(RuntimeError):
    """A program ended in an error: which, of which instruction, and the value that was wrong."""

    def __init__(self, error: MachineError, instruction: int, value: int) -> None:
        super().__init__(f"the machine stopped at instruction {instruction}: {error.name}, value {value:#x}")
        self.error, self.instruction, self.value = error, instruction, value


@dataclass(frozen=True, slots=True)
class UnitRun:
    """A command as it was seen: the cycle in which its unit took it and its last one; cycle 0 is that of the start."""

    unit: Unit
    took: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorRun:
    """A program that has ended: its cycles, the machine's counters, and every command in the order of its end."""

    cycles: int
    counters: Mapping[str, int]
    commands: tuple[UnitRun, ...]


class _Bench(wiring.Component):
    """The machine before two memories; while ``host``, their buses are the host's."""

    def __init__(self, target: Target, beat_bytes: int, size: int, instructions: int, latency: int) -> None:
        self.top = Top(target, beat_bytes, blackbox=True)
        self.data = AxiMemory(beat_bytes, size // beat_bytes, latency=latency)
        self.code = AxiMemory(INSTRUCTION_BYTES, instructions, latency=latency)
        bus, fetched = Axi4(beat_bytes).members, Axi4(INSTRUCTION_BYTES).members
        seen = [f"{unit.name.lower()}_{what}" for unit in self.top.units for what in ("takes", "done")]
        super().__init__(
            {
                "control": In(AxiLite()),
                "host": In(1),
                "ar": In(bus["ar"].signature),
                "r": In(bus["r"].signature),
                "aw": In(bus["aw"].signature),
                "w": In(bus["w"].signature),
                "code_aw": In(fetched["aw"].signature),
                "code_w": In(fetched["w"].signature),
                "interrupt": Out(1),
                "busy": Out(1),
                **{name: Out(1) for name in seen},
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.top, m.submodules.data, m.submodules.code = top, data, code = self.top, self.data, self.code
        wiring.connect(m, wiring.flipped(self.control), top.control)
        for name in ("ar", "r"):
            wiring.connect(m, getattr(top.instructions, name), getattr(code.bus, name))
        for name, mine in (("aw", self.code_aw), ("w", self.code_w)):
            wiring.connect(m, wiring.flipped(mine), getattr(code.bus, name))
        m.d.comb += [code.bus.b.ready.eq(1), self.interrupt.eq(top.interrupt), self.busy.eq(top.sequencer.busy)]
        for name in ("ar", "aw", "w"):
            own, bus, memory = getattr(self, name), getattr(top.data, name), getattr(data.bus, name)
            with m.If(self.host):
                m.d.comb += [memory.valid.eq(own.valid), memory.payload.eq(own.payload), own.ready.eq(memory.ready)]
            with m.Else():
                m.d.comb += [memory.valid.eq(bus.valid), memory.payload.eq(bus.payload), bus.ready.eq(memory.ready)]
        for name in ("r", "b"):
            bus, memory = getattr(top.data, name), getattr(data.bus, name)
            m.d.comb += [bus.valid.eq(memory.valid & ~self.host), bus.payload.eq(memory.payload)]
            m.d.comb += memory.ready.eq(self.host | bus.ready)
        m.d.comb += [self.r.valid.eq(data.bus.r.valid), self.r.payload.eq(data.bus.r.payload)]
        for unit in self.top.units:
            name = unit.name.lower()
            port = getattr(top.sequencer, name)
            m.d.comb += [
                getattr(self, f"{name}_takes").eq(port.valid & port.ready),
                getattr(self, f"{name}_done").eq(top.units[unit].done),
            ]
        return m


class Accelerator:
    """The RTL of ``target``, compiled, with at least ``size`` bytes of memory and room for so many ``instructions``.

    Its memories answer ``latency`` cycles after a burst is asked for, and then with a beat a cycle.
    """

    def __init__(self, target: Target, size: int, instructions: int, *, beat_bytes: int = 8, latency: int = 4) -> None:
        self.target, self.beat_bytes, self.latency = target, beat_bytes, latency
        # by powers of two, so that programs of about the same size share a compiled machine
        self.size = 1 << max(_LEAST_SIZE, (size - 1).bit_length())
        self.room = 1 << max(_LEAST_ROOM, (instructions - 1).bit_length())
        bench = _Bench(target, beat_bytes, self.size, self.room, latency)
        self._machine = Cosim(bench, bench.top.parts)
        self.reset()

    def reset(self) -> None:
        """As at power-on: memories are 0."""
        self._machine.reset()
        self._set("window_bytes", self.size)
        self._set("interrupt_enable", 3)

    def write(self, address: int, data: Bytes) -> None:
        """Bytes, uint8 [n], to ``address`` on; what shares a beat with them stays."""
        beat = self.beat_bytes
        first, last = address // beat, -(-(address + len(data)) // beat)
        padded, strobe = np.zeros((last - first) * beat, np.uint8), np.zeros((last - first) * beat, np.uint8)
        inside = slice(address - first * beat, address - first * beat + len(data))
        padded[inside], strobe[inside] = data, 1
        strobes = np.packbits(strobe.reshape(-1, beat), axis=1, bitorder="little")
        self._write_beats("", beat, first * beat, padded.reshape(-1, beat), strobes)

    def read(self, address: int, count: int) -> Bytes:
        """``count`` bytes from ``address`` on, uint8 [count]."""
        beat = self.beat_bytes
        first, last = address // beat, -(-(address + count) // beat)
        n = last - first
        cycles = n + self.latency + 8
        t = np.arange(cycles)
        seen = self._run(
            {"host": 1, "ar__valid": t < n, "ar__payload": self._bursts((first + np.minimum(t, n)) * beat, beat)},
            cycles,
        )
        came = np.flatnonzero(seen["r__valid"])
        assert len(came) == n, f"{len(came)} beats came instead of {n}"
        payload = seen["r__payload"][came]
        raw = np.ascontiguousarray(payload).view(np.uint8).reshape(n, -1)[:, :beat]
        return raw.reshape(-1)[address - first * beat :][:count].copy()

    def run(self, program: Program, limit: int = 100_000_000) -> AcceleratorRun:
        """Load a program for this machine and run it to its end; `StoppedError` if it ends in an error."""
        if program.machine != self.target.hash:
            raise InputError(f"the program is for machine {program.machine}, not for {self.target.hash}")
        words = np.frombuffer(program.words, np.uint8).reshape(-1, INSTRUCTION_BYTES)
        if len(words) > self.room:
            raise InputError(f"the program has {len(words)} instructions; this machine was built for {self.room}")
        self._write_beats("code_", INSTRUCTION_BYTES, 0, words, np.full((len(words), 1), 255, np.uint8))
        self._set("program_length", len(words))
        self._set("interrupt", 3)
        begun = self._set("control", 1)
        commands, cycles = self._until_done(begun, limit)
        error = MachineError(self.get("error"))
        if error != MachineError.NONE:
            raise StoppedError(error, self.get("error_instruction"), self.get("error_value"))
        counters = {name: self.get(f"{name}_low") | self.get(f"{name}_high") << 32 for name in counters_of(self.target)}
        return AcceleratorRun(cycles=cycles, counters=counters, commands=tuple(commands))

    def get(self, name: str) -> int:
        """A register of the machine."""
        cycles = 6
        t = np.arange(cycles)
        given = {"control__ar__valid": t < 1, "control__ar__payload": control(name).address, "control__r__ready": 1}
        seen = self._run(given, cycles)
        answered = int(np.flatnonzero(seen["control__r__valid"])[0])
        return int(seen["control__r__payload"][answered]) & 0xFFFFFFFF

    def _until_done(self, begun: dict[str, Any], limit: int) -> tuple[list[UnitRun], int]:
        """Commands and cycles from that of the start, the cycle before the first busy one, on."""
        origin = int(np.flatnonzero(begun["busy"])[0]) - 1
        units = units_of(self.target)
        took: dict[Unit, list[int]] = {unit: [] for unit in units}
        ended: dict[Unit, list[int]] = {unit: [] for unit in units}
        seen, at = begun, -origin
        while True:
            for unit in units:
                name = unit.name.lower()
                took[unit] += (np.flatnonzero(seen[f"{name}_takes"]) + at).tolist()
                ended[unit] += (np.flatnonzero(seen[f"{name}_done"]) + at).tolist()
            busy = np.flatnonzero(seen["busy"])
            quiet = len(busy) == 0 or busy[-1] + 1 < len(seen["busy"])
            if quiet:
                cycles = at + int(busy[-1]) + 1 if len(busy) else at
                break
            at += len(seen["busy"])
            if at > limit:
                raise RuntimeError(f"the program has not ended after {limit} cycles")
            seen = self._run({}, _CHUNK)
        runs = [
            UnitRun(unit, first, last) for unit in units for first, last in zip(took[unit], ended[unit], strict=False)
        ]
        return sorted(runs, key=lambda run: (run.last, run.unit)), cycles

    def _set(self, name: str, value: int) -> dict[str, Any]:
        """Write a register; what was seen meanwhile."""
        cycles = 12
        t = np.arange(cycles)
        return self._run(
            {
                "control__aw__valid": t < 1,
                "control__aw__payload": control(name).address,
                "control__w__valid": t < 1,
                "control__w__payload": np.uint64(value | 0xF << 32),
                "control__b__ready": 1,
            },
            cycles,
        )

    def _write_beats(self, side: str, beat: int, address: int, data: Bytes, strobes: Bytes) -> None:
        """Whole beats, one a cycle: the address of each a cycle before its data."""
        n = len(data)
        cycles = n + self.latency + 16
        t = np.arange(cycles)
        words = self._machine.inputs[f"{side}w__payload"].words
        payload = np.zeros((cycles, 4 * words), np.uint8)
        payload[1 : n + 1, :beat] = data
        strobe = np.zeros((n, 8), np.uint8)
        strobe[:, : strobes.shape[1]] = strobes
        marks = strobe.view(np.uint64).reshape(n) | np.uint64(1) << np.uint64(beat)
        tail = np.ascontiguousarray(marks).view(np.uint8).reshape(n, 8)[:, : 4 * words - beat]
        payload[1 : n + 1, beat : beat + tail.shape[1]] = tail
        self._run(
            {
                "host": 1,
                f"{side}aw__valid": t < n,
                f"{side}aw__payload": self._bursts(address + np.minimum(t, n) * beat, beat),
                f"{side}w__valid": (t >= 1) & (t <= n),
                f"{side}w__payload": payload.view(np.uint32),
            },
            cycles,
        )

    def _bursts(self, addresses: npt.NDArray[np.int64], beat: int) -> npt.NDArray[np.uint64]:
        """Payloads of an address channel: bursts of one beat."""
        size, incrementing = (beat.bit_length() - 1) << 56, 1 << 59
        return addresses.astype(np.uint64) | np.uint64(size | incrementing)

    def _run(self, inputs: Mapping[str, Any], cycles: int) -> dict[str, Any]:
        return self._machine.run(inputs, cycles)
