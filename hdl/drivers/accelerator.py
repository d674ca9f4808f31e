"""Drives the whole accelerator in co-simulation, as a host would: memory, registers, programs, counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.control import MachineError, control
from ...dataflow.program.isa import BEAT_BYTES, LATENCY, Unit, units_of
from ...dataflow.program.program import Program
from ...dataflow.program.spaces import Target
from ...workloads.errors import InputError
from ..flow.cosim import Cosim
from ..top.axi import ADDRESS_BITS, Axi4
from ..top.axi_memory import AxiMemory
from ..top.csr import AxiLite, counters_of
from ..top.sequencer import INSTRUCTION_BYTES
from ..top.top import Top

__all__ = ["Accelerator", "AcceleratorRun", "Beats", "StoppedError", "UnitRun"]

_CHUNK = 256
"""Cycles that are simulated at a time, after which Ctrl-C is heard; what is simulated behind a program's end is half of
it, and a call takes as long as some ten cycles of a small machine."""
_MOST = 100_000_000
"""Cycles after which a program is given up."""
_SETTLED, _DRAINED = 64, 1 << 4
"""Cycles between two looks at the bus, and the bit of ``status`` that says it is at rest."""
_LEAST_SIZE, _LEAST_ROOM = 17, 13
"""Binary logarithms of the least memory, in bytes, and of the least room for instructions; programs that both are
enough for share a compiled machine."""
_SEEN = ("ar", "aw", "w")
"""Channels of the machine's bus that are watched."""
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


@dataclass(frozen=True, slots=True)
class Beats:
    """What was written to memory, beat by beat: ``cycle`` and ``address`` int64 [beats]; ``data`` uint8 and ``strobe``
    bool [beats, bytes], which bytes of a beat it changed."""

    cycle: npt.NDArray[np.int64]
    address: npt.NDArray[np.int64]
    data: Bytes
    strobe: npt.NDArray[np.bool_]

    def apply(self, memory: Bytes) -> None:
        """Write them, in order, to ``memory``, uint8 [bytes], in place."""
        at = self.address[:, None] + np.arange(self.data.shape[1])
        memory[at[self.strobe]] = self.data[self.strobe]

    def between(self, first: int, last: int) -> Beats:
        """Those of these cycles, the last one among them."""
        of = slice(*np.searchsorted(self.cycle, (first, last + 1)))
        return Beats(self.cycle[of], self.address[of], self.data[of], self.strobe[of])


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorRun:
    """A program that has ended: its cycles, the machine's counters, every command in the order of its end.

    On the bus: what was written, and the bursts that were read, int64 [bursts, 2], first byte and last, exclusive.
    ``placed``: what load wrote on chip, `write_layout` as uint32 [writes, words]. ``stopped``: the error it ended in.
    """

    cycles: int
    counters: Mapping[str, int]
    commands: tuple[UnitRun, ...]
    writes: Beats
    reads: npt.NDArray[np.int64]
    placed: npt.NDArray[np.uint32]
    stopped: StoppedError | None


class _Bench(wiring.Component):
    """The machine before two memories; while ``host``, their buses are the host's."""

    def __init__(self, target: Target, beat_bytes: int, size: int, instructions: int, latency: int) -> None:
        self.top = Top(target, beat_bytes, blackbox=True)
        self.data = AxiMemory(beat_bytes, size // beat_bytes, latency=latency)
        self.code = AxiMemory(INSTRUCTION_BYTES, instructions, latency=latency)
        bus, fetched = Axi4(beat_bytes).members, Axi4(INSTRUCTION_BYTES).members
        seen = [f"{unit.name.lower()}_{what}" for unit in self.top.units for what in ("takes", "done")]
        seen += [f"seen_{name}" for name in _SEEN]
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
                **{f"seen_{name}_payload": Out(bus[name].signature.members["payload"].shape) for name in _SEEN},
                "placed": Out(self.top.units[Unit.LOAD].write.shape()),
                "places": Out(1),
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
        for name in _SEEN:
            bus = getattr(top.data, name)
            m.d.comb += [
                getattr(self, f"seen_{name}").eq(bus.valid & bus.ready & ~self.host),
                getattr(self, f"seen_{name}_payload").eq(bus.payload),
            ]
        load = top.units[Unit.LOAD]
        m.d.comb += [self.placed.eq(load.write), self.places.eq(load.writes)]
        for unit in self.top.units:
            name = unit.name.lower()
            port = getattr(top.sequencer, name)
            m.d.comb += [
                getattr(self, f"{name}_takes").eq(port.valid & port.ready),
                getattr(self, f"{name}_done").eq(top.units[unit].done),
            ]
        return m


class _Seen:
    """What is watched of a run, from cycle ``at`` on; the start's is 0."""

    def __init__(self, units: Sequence[Unit], beat_bytes: int, at: int) -> None:
        self.beat_bytes, self.at, self.busy, self.cycles = beat_bytes, at, True, 0
        self.took: dict[Unit, list[int]] = {unit: [] for unit in units}
        self.ended: dict[Unit, list[int]] = {unit: [] for unit in units}
        self.parts: dict[str, list[Any]] = {name: [] for name in ("ar", "aw", "w", "w_cycle", "placed")}

    def add(self, seen: Mapping[str, Any]) -> None:
        """The next cycles."""
        for unit in self.took:
            name = unit.name.lower()
            self.took[unit] += (np.flatnonzero(seen[f"{name}_takes"]) + self.at).tolist()
            self.ended[unit] += (np.flatnonzero(seen[f"{name}_done"]) + self.at).tolist()
        for name in _SEEN:
            at = np.flatnonzero(seen[f"seen_{name}"])
            self.parts[name].append(seen[f"seen_{name}_payload"][at])
            if name == "w":
                self.parts["w_cycle"].append(at + self.at)
        self.parts["placed"].append(seen["placed"][np.flatnonzero(seen["places"])])
        busy = np.flatnonzero(seen["busy"])
        self.busy = len(busy) > 0 and busy[-1] + 1 == len(seen["busy"])
        if not self.busy:
            self.cycles = self.at + int(busy[-1]) + 1 if len(busy) else self.at
        self.at += len(seen["busy"])

    def run(self, counters: Mapping[str, int], stopped: StoppedError | None) -> AcceleratorRun:
        """All of it."""
        runs = [
            UnitRun(u, *cycles) for u, took in self.took.items() for cycles in zip(took, self.ended[u], strict=False)
        ]
        return AcceleratorRun(
            cycles=self.cycles,
            counters=counters,
            commands=tuple(sorted(runs, key=lambda run: (run.last, run.unit))),
            writes=self._writes(),
            reads=_bursts(np.concatenate(self.parts["ar"]), self.beat_bytes),
            placed=np.concatenate(self.parts["placed"]),
            stopped=stopped,
        )

    def _writes(self) -> Beats:
        """Beats belong to the bursts in their order; of one that an error cut short the rest is still to come."""
        beat = self.beat_bytes
        bursts, cycle = _bursts(np.concatenate(self.parts["aw"]), beat), np.concatenate(self.parts["w_cycle"])
        payload = np.ascontiguousarray(np.concatenate(self.parts["w"])).view(np.uint8)
        strobe = np.unpackbits(payload[:, beat : beat + -(-beat // 8)], axis=1, bitorder="little")[:, :beat]
        address = np.concatenate([np.arange(first, last, beat) for first, last in bursts] or [np.zeros(0, np.int64)])
        n = min(len(address), len(cycle))
        return Beats(cycle[:n], address[:n], payload[:n, :beat], strobe[:n].astype(np.bool_))


def _bursts(payload: npt.NDArray[np.uint64], beat: int) -> npt.NDArray[np.int64]:
    """First and last byte, exclusive, of bursts, int64 [bursts, 2], by what their address channel says."""
    address = (payload & np.uint64((1 << ADDRESS_BITS) - 1)).astype(np.int64)
    beats = (payload >> np.uint64(ADDRESS_BITS) & np.uint64(0xFF)).astype(np.int64) + 1
    return np.stack([address, address + beat * beats], axis=1)


class Accelerator:
    """The RTL of ``target``, compiled, with at least ``size`` bytes of memory and room for so many ``instructions``.

    Its memories answer ``latency`` cycles after a burst is asked for, and then with a beat a cycle. Programs may touch
    the first ``size`` bytes.
    """

    def __init__(
        self, target: Target, size: int, instructions: int, *, beat_bytes: int = BEAT_BYTES, latency: int = LATENCY
    ) -> None:
        self.target, self.beat_bytes, self.latency, self.window = target, beat_bytes, latency, size
        # by powers of two, so that programs of about the same size share a compiled machine
        self.size = 1 << max(_LEAST_SIZE, (size - 1).bit_length())
        self.room = 1 << max(_LEAST_ROOM, (instructions - 1).bit_length())
        bench = _Bench(target, beat_bytes, self.size, self.room, latency)
        self._machine = Cosim(bench, bench.top.parts)
        self.reset()

    def reset(self, *, window: int | None = None, base: int = 0, watchdog: int | None = None) -> None:
        """As at power-on: memories are 0. The window has ``window`` bytes from ``base`` on; none: as before."""
        self.window = self.window if window is None else window
        if base + self.window > self.size:
            raise InputError(f"a window of {self.window} bytes from {base} on; the memory has {self.size}")
        self._machine.reset()
        self._set("window_low", base)
        self._set("window_bytes", self.window)
        if watchdog is not None:
            self._set("watchdog", watchdog)
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

    def run(self, program: Program, limit: int = _MOST, heard: Callable[[int], None] | None = None) -> AcceleratorRun:
        """Load a program for this machine and run it to its end; `StoppedError` if it ends in an error.

        ``heard`` is told the cycles so far, now and then.
        """
        if program.machine != self.target.hash:
            raise InputError(f"the program is for machine {program.machine}, not for {self.target.hash}")
        ran = self.run_words(program.words, limit, heard)
        if ran.stopped is not None:
            raise ran.stopped
        return ran

    def run_words(
        self, program: bytes, limit: int = _MOST, heard: Callable[[int], None] | None = None
    ) -> AcceleratorRun:
        """Run whatever ``program`` is, 8 bytes an instruction; not to have ended by ``limit`` is a RuntimeError."""
        words = np.frombuffer(program, np.uint8).reshape(-1, INSTRUCTION_BYTES)
        if len(words) > self.room:
            raise InputError(f"the program has {len(words)} instructions; this machine was built for {self.room}")
        self._write_beats("code_", INSTRUCTION_BYTES, 0, words, np.full((len(words), 1), 255, np.uint8))
        self._set("program_length", len(words))
        self._set("interrupt", 3)
        seen = self._until_done(self._set("control", 1), limit, heard)
        error = MachineError(self.get("error"))
        stopped = StoppedError(error, self.get("error_instruction"), self.get("error_value")) if error else None
        names = counters_of(self.target)
        found = iter(self._get([f"{name}_{half}" for name in names for half in ("low", "high")]))
        return seen.run({name: next(found) | next(found) << 32 for name in names}, stopped)

    def drain(self, limit: int = 16 * _CHUNK) -> None:
        """Let the bus come to rest behind an error, until the machine says so; RuntimeError if it has not by then."""
        for _ in range(0, limit, _SETTLED):
            if self.get("status") & _DRAINED:
                return
            self._run({}, _SETTLED)
        raise RuntimeError(f"bursts are still under way {limit} cycles after the machine stopped")

    def get(self, name: str) -> int:
        """A register of the machine."""
        return self._get([name])[0]

    def _get(self, names: Sequence[str]) -> list[int]:
        """Registers, asked for one a cycle."""
        n = len(names)
        cycles = n + 5
        t = np.arange(cycles)
        addresses = np.array([control(name).address for name in names])
        given = {
            "control__ar__valid": t < n,
            "control__ar__payload": addresses[np.minimum(t, n - 1)],
            "control__r__ready": 1,
        }
        seen = self._run(given, cycles)
        answered = np.flatnonzero(seen["control__r__valid"])
        assert len(answered) == n, f"{len(answered)} registers answered instead of {n}"
        return [int(value) & 0xFFFFFFFF for value in seen["control__r__payload"][answered]]

    def _until_done(self, begun: dict[str, Any], limit: int, heard: Callable[[int], None] | None) -> _Seen:
        """What is seen from the cycle of the start, the one before the first busy cycle, on."""
        seen = _Seen(units_of(self.target), self.beat_bytes, -(int(np.flatnonzero(begun["busy"])[0]) - 1))
        seen.add(begun)
        while seen.busy:
            if heard is not None:
                heard(seen.at)
            if seen.at > limit:
                raise RuntimeError(f"the program has not ended after {limit} cycles")
            seen.add(self._run({}, _CHUNK))
        return seen

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
