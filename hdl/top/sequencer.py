"""The sequencer: fetches and executes a program, and hands its commands to the units in the cycles of
`simulator/machine/sequencer.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ...dataflow.program.control import MachineError
from ...dataflow.program.instruction import Opcode
from ...dataflow.program.isa import EVENT_LIMIT, EVENTS, LOOPS, QUEUE, REGISTERS, Register, Unit, most_of
from .axi import ADDRESS_BITS, Axi4
from .command import command_layout
from .queue import Queue

__all__ = ["FETCHED", "INSTRUCTION_BYTES", "Sequencer"]

INSTRUCTION_BYTES = 8
FETCHED = 32
"""Instructions that are fetched ahead; more than a memory's latency, so that only a start and a jump wait for it."""
_COUNT = 32


def _queued(registers: Sequence[Register]) -> data.StructLayout:
    """A command of a unit as it waits."""
    own = {"registers": command_layout(registers), "wait": EVENTS, "notify": EVENTS, "instruction": _COUNT}
    return data.StructLayout(own)


def _name(unit: Unit) -> str:
    return unit.name.lower()


class Sequencer(wiring.Component):
    """Executes ``length`` instructions from ``address`` on, one a cycle, from ``start`` to `end`.

    A unit takes a command from its stream when it is free; ``<unit>_done`` is up in the last cycle of it. ``busy``
    holds from the cycle after ``start`` to that in which all is done, or to an error: then ``error``, the number of the
    instruction and a value stand, and nothing more is executed or handed out until reset. Instructions are fetched one
    a burst, so that what was fetched in vain before a jump delays nothing behind it. The other outputs are for
    counters: what holds in a cycle. ``registers``: those of each unit that the machine has, the first ones of `Unit`.
    """

    def __init__(self, registers: Mapping[Unit, Sequence[Register]] = REGISTERS) -> None:
        self.registers, self.units = registers, tuple(registers)
        bus = Axi4(INSTRUCTION_BYTES).members
        ports: dict[str, Any] = {
            "start": In(1),
            "stop": In(1),
            "address": In(ADDRESS_BITS),
            "length": In(_COUNT),
            "watchdog": In(_COUNT),
            "ar": bus["ar"],
            "r": bus["r"],
            "busy": Out(1),
            "error": Out(4),
            "error_instruction": Out(_COUNT),
            "error_value": Out(32),
            "instruction": Out(_COUNT),
            "fetch_stall": Out(1),
        }
        for unit in self.units:
            name = _name(unit)
            ports |= {
                name: Out(stream.Signature(command_layout(registers[unit]))),
                f"{name}_done": In(1),
                f"{name}_error": In(4),
                f"{name}_value": In(32),
                f"{name}_queue_stall": Out(1),
                f"{name}_event_stall": Out(1),
                f"{name}_runs": Out(1),
            }
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        now = SimpleNamespace(
            **{
                name: Signal(name=name)
                for name in (
                    *("there", "failed", "legal", "ends", "jumps", "commands"),
                    *("known", "fits", "in_range", "room", "ended"),
                )
            },
            why=Signal(4, name="why"),
            value=Signal(32, name="wrong_value"),
            to=Signal(_COUNT, name="to"),
        )
        word = Signal(64)
        goes = Signal()
        self._starts = Signal(name="starts")
        m.d.comb += self._starts.eq(self.start & ~self.busy & (self.error == 0))
        self._fetch(m, word, now.failed, now.there, goes, now.jumps, now.to)
        self._execute(m, word, goes, now)
        idle = self._units(m, now, goes, word[48:56], word[:32])
        m.d.comb += [
            goes.eq(self.busy & now.there & now.legal & ~now.ended & (~now.commands | now.room) & (self.error == 0)),
            self.fetch_stall.eq(self.busy & ~now.there & ~now.ended),
        ]
        with m.If(goes):
            m.d.sync += [self.instruction.eq(Mux(now.jumps, now.to, self.instruction + 1)), now.ended.eq(now.ends)]
        with m.If((now.ended | (goes & now.ends)) & idle):
            m.d.sync += self.busy.eq(0)
        with m.If(self._starts):
            m.d.sync += [self.busy.eq(1), self.instruction.eq(0), now.ended.eq(0)]
        self._errors(m, goes, now)
        return m

    def _fetch(self, m: Module, word: Any, failed: Any, there: Any, goes: Any, jumps: Any, to: Any) -> None:
        """Instructions in order; those behind a jump that are still to come are dropped when they come."""
        held = Memory(shape=data.StructLayout({"word": 64, "failed": 1}), depth=FETCHED, init=[])
        m.submodules.fetched = held
        into = held.write_port()
        out = held.read_port(domain="comb")
        at = Signal(_COUNT)
        begin = Signal(range(FETCHED))
        end = Signal(range(FETCHED))
        fresh, kept, flying, drop = (Signal(range(FETCHED + 1), name=n) for n in ("fresh", "kept", "flying", "drop"))
        asks = Signal()
        comes = Signal()
        keeps = Signal()
        again = Signal()
        stands, kept_address = Signal(name="ask_stands"), Signal(ADDRESS_BITS, name="ask_address", reset_less=True)
        fresh_address = Signal(ADDRESS_BITS)
        m.d.comb += [
            again.eq((goes & jumps) | self._starts),
            # AXI has an ask stand until it is taken, also through a jump or an error: it counts from its first cycle on
            asks.eq(self.busy & (fresh != FETCHED) & (at != self.length) & (self.error == 0) & ~stands),
            self.ar.valid.eq(stands | asks),
            fresh_address.eq(self.address + (at << 3)),
            *Axi4.burst(self.ar.payload, INSTRUCTION_BYTES, Mux(stands, kept_address, fresh_address), 0),
            self.r.ready.eq(1),
            comes.eq(self.r.valid),
            keeps.eq(comes & (drop == 0) & ~again),
            into.en.eq(keeps),
            into.addr.eq(end),
            into.data.word.eq(self.r.payload.data),
            into.data.failed.eq(self.r.payload.resp != 0),
            out.addr.eq(begin),
            there.eq(kept != 0),
            word.eq(out.data.word),
            failed.eq(out.data.failed),
        ]
        with m.If(asks):
            m.d.sync += kept_address.eq(fresh_address)
        m.d.sync += [
            stands.eq(self.ar.valid & ~self.ar.ready),
            flying.eq(flying + asks - comes),
            drop.eq(Mux(again, flying + asks - comes, drop - (comes & (drop != 0)))),
            at.eq(Mux(again, Mux(self._starts, 0, to), at + asks)),
            fresh.eq(Mux(again, 0, fresh + asks - goes)),
            kept.eq(Mux(again, 0, kept + keeps - goes)),
            begin.eq(Mux(again, 0, begin + goes)),
            end.eq(Mux(again, 0, end + keeps)),
        ]

    def _execute(self, m: Module, word: Any, goes: Any, now: Any) -> None:
        """What the instruction is: ``now.legal``, or why not; loops and registers as it leaves them."""
        code, number, register, low = word[56:], word[48:56], word[32:48], word[:32]
        loops = Array(Signal(data.StructLayout({"at": _COUNT, "left": 32}), name=f"loop_{i}") for i in range(LOOPS))
        depth = Signal(range(LOOPS + 1))
        top = Signal(range(LOOPS))
        last = Signal()
        m.d.comb += [top.eq(depth - 1), last.eq(loops[top].left == 1)]
        now.files = self._registers(m, word, goes, now)

        def illegal(why: MachineError, value: Any = 0) -> list[Any]:
            return [now.legal.eq(0), now.why.eq(why), now.value.eq(value)]

        m.d.comb += now.legal.eq(1)
        with m.If(now.failed):
            m.d.comb += illegal(MachineError.FETCH)
        with m.Else(), m.Switch(code):
            with m.Case(Opcode.END):
                m.d.comb += now.ends.eq(1)
                with m.If(word[:56] != 0):
                    m.d.comb += illegal(MachineError.INSTRUCTION)
            with m.Case(Opcode.SET, Opcode.ADD):
                with m.If(number > max(self.units)):
                    m.d.comb += illegal(MachineError.UNIT)
                with m.Elif(~now.known | ((code == Opcode.SET) & ~now.fits)):
                    m.d.comb += illegal(MachineError.REGISTER, register)
            with m.Case(Opcode.GO):
                m.d.comb += now.commands.eq(1)
                with m.If(register != 0):
                    m.d.comb += illegal(MachineError.INSTRUCTION)
                with m.Elif(number > max(self.units)):
                    m.d.comb += illegal(MachineError.UNIT)
                with m.Elif(~now.in_range):
                    m.d.comb += illegal(MachineError.COMMAND)
            with m.Case(Opcode.LOOP):
                with m.If(word[32:56] != 0):
                    m.d.comb += illegal(MachineError.INSTRUCTION)
                with m.Elif((depth == LOOPS) | (low == 0)):
                    m.d.comb += illegal(MachineError.LOOP)
            with m.Case(Opcode.NEXT):
                with m.If(word[:56] != 0):
                    m.d.comb += illegal(MachineError.INSTRUCTION)
                with m.Elif(depth == 0):
                    m.d.comb += illegal(MachineError.LOOP)
                with m.Else():
                    m.d.comb += [now.jumps.eq(~last), now.to.eq(loops[top].at)]
            with m.Default():
                m.d.comb += illegal(MachineError.INSTRUCTION)
        # apart from what is legal, which decides on ``goes``
        with m.If(goes & (code == Opcode.LOOP)):
            new = loops[depth[: len(top)]]
            m.d.sync += [new.at.eq(self.instruction + 1), new.left.eq(low), depth.eq(depth + 1)]
        with m.If(goes & (code == Opcode.NEXT)):
            m.d.sync += [loops[top].left.eq(loops[top].left - 1), depth.eq(depth - last)]
        with m.If(self._starts):
            m.d.sync += depth.eq(0)

    def _registers(self, m: Module, word: Any, goes: Any, now: Any) -> dict[Unit, dict[str, Any]]:
        """The units' registers, by `set` and `add`; whether the one named is there and holds the value."""
        code, number, register, low = word[56:], word[48:56], word[32:48], word[:32]
        files, first = {}, 0
        count = sum(map(len, self.registers.values()))
        named = SimpleNamespace(
            changes=Signal(name="changes"),
            changed=Signal(32, name="changed"),
            place=Signal(range(count), name="place"),
            reset=Signal(32, name="reset_value"),
            was_set=Signal(name="was_set"),
        )
        m.d.comb += named.changes.eq(goes & ((code == Opcode.SET) | (code == Opcode.ADD)))
        for unit in self.units:
            layout = command_layout(self.registers[unit])
            # one by one: a structure of them all would be put together anew for each
            file = {name: Signal(field.shape, name=f"{_name(unit)}_{name}") for name, field in layout}
            files[unit] = file
            with m.If(number == unit):
                m.d.comb += [now.known.eq(register < len(file)), named.place.eq(first + register)]
            ranges = []
            for r in self.registers[unit]:
                was_set = Signal(name=f"{_name(unit)}_{r.name}_was_set")
                with m.If((number == unit) & (register == r.number)):
                    m.d.comb += [named.was_set.eq(was_set), named.reset.eq(r.reset or 0)]
                    m.d.comb += now.fits.eq(1 if r.signed or r.bits == 32 else low[r.bits :] == 0)
                    with m.If(named.changes):
                        m.d.sync += [file[r.name].eq(named.changed), was_set.eq(1)]
                with m.If(self._starts):
                    m.d.sync += [file[r.name].eq(r.reset or 0), was_set.eq(0)]
                span = (-(1 << r.bits - 1), (1 << r.bits - 1) - 1) if r.signed else (0, (1 << r.bits) - 1)
                if r.least > span[0]:
                    ranges.append(file[r.name] >= r.least)
                if (most := most_of(r, self.units)) < span[1]:
                    ranges.append(file[r.name] <= most)
            with m.If(number == unit):
                m.d.comb += now.in_range.eq(Cat(*ranges).all())
            first += len(file)
        m.submodules.copies = copies = Memory(shape=32, depth=count, init=[])
        self._add(m, named, copies, code == Opcode.ADD, low)
        return files

    def _add(self, m: Module, named: Any, copies: Memory, adds: Any, low: Any) -> None:
        """What the named register becomes, from ``copies`` of them all in a memory.

        A selection among the registers themselves takes as many LUTs as they have bits, and a second wire from each of
        them to one place: a machine of six units was not routed for them. A start clears registers, not their copies.
        A copy has 32 bits, whatever its register has: bits above those of a sum never come down to them.
        """
        write, read = copies.write_port(), copies.read_port(domain="comb")
        held = Signal(32)
        m.d.comb += [
            write.en.eq(named.changes),
            write.addr.eq(named.place),
            write.data.eq(named.changed),
            read.addr.eq(named.place),
            held.eq(Mux(named.was_set, read.data, named.reset)),
            named.changed.eq(low + Mux(adds, held, 0)),
        ]

    def _units(self, m: Module, now: Any, goes: Any, number: Any, low: Any) -> Any:
        """Queues, events, and commands that are handed out; whether nothing is left to do."""
        events = [Signal(range(EVENT_LIMIT + 1), name=f"event_{e}") for e in range(EVENTS)]
        there = Signal(EVENTS)
        m.d.comb += there.eq(Cat(*[event != 0 for event in events]))
        taken, told, idle, full = [], [], [], []
        before: Any = 0
        for unit in self.units:
            name = _name(unit)
            m.submodules[f"{name}_queue"] = queue = Queue(_queued(self.registers[unit]), QUEUE)
            port, done = getattr(self, name), getattr(self, f"{name}_done")
            runs, notify = Signal(name=f"{name}_running"), Signal(EVENTS, name=f"{name}_notify")
            head, waits, room = queue.out.payload, Signal(name=f"{name}_waits"), Signal(name=f"{name}_room")
            takes, mine = Signal(name=f"{name}_takes"), Signal(EVENTS, name=f"{name}_events")
            at = Signal(_COUNT, name=f"{name}_instruction")
            m.d.comb += [
                room.eq(queue.into.ready),
                queue.into.valid.eq(goes & now.commands & (number == unit)),
                *(queue.into.payload.registers[x].eq(value) for x, value in now.files[unit].items()),
                queue.into.payload.wait.eq(low[16:]),
                queue.into.payload.notify.eq(low[:16]),
                queue.into.payload.instruction.eq(self.instruction),
                # of units that want the same event in the same cycle the first takes it
                waits.eq((head.wait & (~there | before)) != 0),
                port.valid.eq(queue.out.valid & ~waits & ~runs & (self.error == 0)),
                port.payload.eq(head.registers),
                takes.eq(port.valid & port.ready),
                queue.out.ready.eq(takes),
                mine.eq(Mux(takes, head.wait, 0)),
                getattr(self, f"{name}_runs").eq(runs),
                getattr(self, f"{name}_event_stall").eq(queue.out.valid & ~runs & waits & self.busy),
                getattr(self, f"{name}_queue_stall").eq(
                    self.busy & now.there & now.commands & now.legal & (number == unit) & ~room
                ),
            ]
            with m.If(done):
                m.d.sync += runs.eq(0)
            with m.If(takes):
                m.d.sync += [runs.eq(1), notify.eq(head.notify), at.eq(head.instruction)]
            with m.If(number == unit):
                m.d.comb += now.room.eq(room)
            before = before | Mux(queue.out.valid & ~runs, head.wait, 0)
            taken.append(mine)
            told.append(Mux(done & runs, notify, 0))
            idle.append(~queue.out.valid & (~runs | done))
            full.append((unit, at, name))
        over = Signal()
        which = Signal(range(EVENTS))
        for e, event in enumerate(events):
            after = Signal(range(EVENT_LIMIT + len(self.units) + 1), name=f"event_{e}_after")
            minus, plus = (sum((x[e] for x in of), start=Const(0, 1)) for of in (taken, told))
            m.d.comb += after.eq(event - minus + plus)
            with m.If(after > EVENT_LIMIT):
                m.d.comb += [over.eq(1), which.eq(e)]
            m.d.sync += event.eq(Mux(self._starts, 0, after))
        now.over, now.which, now.running = over, which, full
        return Cat(*idle).all()

    def _errors(self, m: Module, goes: Any, now: Any) -> None:
        """The first error stands; of one cycle, the units' before the sequencer's own."""
        quiet = Signal(32)
        ended = Signal()
        m.d.comb += ended.eq(Cat(*[getattr(self, f"{_name(unit)}_done") for unit in self.units]).any() | goes)
        m.d.sync += quiet.eq(Mux(ended | ~self.busy, 0, quiet + 1))

        def stop(error: Any, instruction: Any, value: Any) -> list[Any]:
            return [
                self.error.eq(error),
                self.error_instruction.eq(instruction),
                self.error_value.eq(value),
                self.busy.eq(0),
            ]

        with m.If(self.busy & (self.error == 0)):
            with m.If(self.stop):
                m.d.sync += stop(MachineError.STOPPED, self.instruction, 0)
            for _, at, name in now.running:
                with m.Elif(getattr(self, f"{name}_error") != 0):
                    m.d.sync += stop(getattr(self, f"{name}_error"), at, getattr(self, f"{name}_value"))
            with m.Elif(now.over):
                m.d.sync += stop(MachineError.EVENT, self.instruction, now.which)
            with m.Elif(now.there & ~now.legal):
                m.d.sync += stop(now.why, self.instruction, now.value)
            with m.Elif((self.instruction == self.length) & ~now.ended):
                m.d.sync += stop(MachineError.FETCH, self.instruction, 0)
            with m.Elif((quiet + 1)[:32] == self.watchdog):
                m.d.sync += stop(MachineError.WATCHDOG, self.instruction, 0)
