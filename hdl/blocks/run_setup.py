"""Runs of an array one after the other: its run registers from what a product chooses, and the start of each."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from .control_format import ControlFormat
from .frame import Gridded

__all__ = ["RunSetup", "chosen_layout"]

_COUNTS = ("parts", "runs", "across", "down")


def chosen_layout(spec: Gridded) -> data.StructLayout:
    """What a run of an array is chosen by."""
    f = ControlFormat(spec)
    run = {name: field.shape for name, field in f.run}
    own = {"weight_stationary": 1, "interleave": run["interleave"], "keep": run["part_pairs"]}
    own |= {"group": run["part_words"], "rest": run["part_words"], "rows": bits_for(f.frame.rows)}
    return data.StructLayout({**own, **{name: run[name] for name in _COUNTS}, **f.pe.run})


class RunSetup(wiring.Component):
    """Sets up an array and starts it, run after run.

    ``put`` takes what a run is chosen by, from the lowest bit on: ``weight_stationary`` and ``interleave``; ``keep``
    and ``group`` of the executed pattern; in OS ``rest``, words of the last group of a run, and ``rows``, those of the
    array in use, in WS anything; the four loop counts in the order of ``run``; and what only some PEs have. All else
    follows, bit by bit of a factor: there is no multiplier and no divider.

    Two runs wait, one of them being set up, beside the one in the array, whose registers ``run`` are constant from
    ``start`` to ``done``. A run that is taken when none is there starts later by 4 cycles, one for each bit of the
    number of rows, and one for each bit of that of accumulators or of the cycles of an addition, whichever is larger;
    one that is set up by then in the second cycle without ``busy`` of the array. ``done`` is in the first cycle without
    it after each run.
    """

    def __init__(self, spec: Gridded) -> None:
        self.format = f = ControlFormat(spec)
        self.frame = frame = f.frame
        run = {name: field.shape for name, field in f.run}
        self.chosen = chosen_layout(spec)
        self._rows_bits: int = bits_for(frame.rows)
        self._pace_bits: int = bits_for(max(frame.accumulators, frame.add_latency))
        super().__init__(
            {
                "put": In(stream.Signature(self.chosen)),
                "busy": In(1),
                "run": Out(wiring.Signature({name: Out(shape) for name, shape in run.items()})),
                "start": Out(1),
                "done": Out(1),
            }
        )

    @property
    def cycles(self) -> int:
        """From that in which a run is taken, when no other is there, to that of its ``start``."""
        return self._rows_bits + self._pace_bits + 4

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        waiting, own = Signal(self.chosen, name="waiting"), Signal(self.chosen, name="own")
        waits, takes, is_set, leaves = (Signal(name=name) for name in ("waits", "takes", "is_set", "leaves"))
        pending, running = Signal(name="pending"), Signal(name="running")
        left = Signal(range(self.cycles), name="steps_left")
        m.d.comb += [
            self.put.ready.eq(~waits),
            is_set.eq(left == 1),
            self.start.eq(pending & ~self.busy),
            self.done.eq(running & ~self.busy),
            leaves.eq(is_set & ~pending & (~running | self.done)),
            takes.eq(waits & ((left == 0) | leaves)),
        ]
        m.d.sync += [
            waits.eq(Mux(waits, ~takes, self.put.valid)),
            pending.eq(leaves | (pending & self.busy)),
            running.eq(self.start | (running & self.busy)),
        ]
        with m.If(takes):
            m.d.sync += [Value.cast(own).eq(Value.cast(waiting)), left.eq(self._rows_bits + self._pace_bits + 2)]
        with m.Elif(leaves):
            m.d.sync += left.eq(0)
        with m.Elif(~is_set & (left != 0)):
            m.d.sync += left.eq(left - 1)
        with m.If(~waits):
            m.d.sync += Value.cast(waiting).eq(Value.cast(self.put.payload))
        registers = self._registers(m, own, self._products(m, waiting, own, takes, left))
        with m.If(leaves):
            m.d.sync += [getattr(self.run, name).eq(value) for name, value in registers.items()]
        return m

    def _products(self, m: Module, waiting: Any, own: Any, takes: Any, left: Any) -> dict[str, Any]:
        """The products that registers are sums of, a bit of a factor a cycle, the lowest first.

        First ``keep`` R, by the bits of R; then of what that gives all others, by the bits of interleave or pace.
        """
        frame = self.frame
        rows = Signal(self._rows_bits, name="rows_bits")
        interleave, pace = (Signal(self._pace_bits, name=f"{name}_bits") for name in ("interleave", "pace"))
        widths = {
            "shifted": len(self.run.shift_pairs),
            "words": max(len(self.run.part_words), len(self.run.drain_words)),
            "delay": len(self.run.row_delay),
            "below": len(self.run.tail_cycles),
        }
        total = {name: Signal(width, name=name) for name, width in widths.items()}
        addend = {name: Signal(width, name=f"{name}_addend") for name, width in widths.items()}

        def add(name: str, factor: Any) -> None:
            m.d.sync += addend[name].eq(addend[name] << 1)
            with m.If(factor[0]):
                m.d.sync += total[name].eq(total[name] + addend[name])

        with m.If(left > self._pace_bits + 2):
            m.d.sync += rows.eq(rows >> 1)
            add("shifted", rows)
        with m.If(left == self._pace_bits + 2):
            m.d.sync += [
                interleave.eq(own.interleave),
                pace.eq(self._pace(own)),
                addend["words"].eq(Mux(own.weight_stationary, own.group, own.rows)),
                addend["delay"].eq(own.keep - 1),
                # (keep - 1) (R - 1)
                addend["below"].eq(total["shifted"] - own.keep - (frame.rows - 1)),
                *(total[name].eq(0) for name in ("words", "delay", "below")),
            ]
        with m.If((left > 1) & (left < self._pace_bits + 2)):
            m.d.sync += [interleave.eq(interleave >> 1), pace.eq(pace >> 1)]
            add("words", interleave)
            add("delay", pace)
            add("below", pace)
        with m.If(takes):
            m.d.sync += [rows.eq(frame.rows), addend["shifted"].eq(waiting.keep), total["shifted"].eq(0)]
        return total

    def _pace(self, own: Any) -> Any:
        latency = self.frame.add_latency
        return Mux(own.interleave < latency, latency, own.interleave)

    def _registers(self, m: Module, own: Any, made: dict[str, Any]) -> dict[str, Any]:
        """The registers of the run that is set up, by name."""
        x, stationary = self.frame, own.weight_stationary

        def chosen(ws: Any, os: Any) -> Any:
            return Mux(stationary, ws, os)

        fixed_ws = x.multiply_latency + x.read_latency + x.cols + x.rows * x.add_latency
        fixed_os = x.latency + x.read_latency + x.rows + x.cols - 1
        pace = self._pace(own)
        return {
            **{name: own[name] for name in ("weight_stationary", "interleave", *_COUNTS, *self.format.pe.run)},
            "part_words": chosen(made["words"], own.group),
            "rest_words": chosen(made["words"], own.rest),
            "part_pairs": own.keep,
            "rest_pairs": chosen(own.keep, Mux(own.keep < own.rest, own.keep, own.rest)),
            "offset_step": chosen(own.group, 0),
            "row_delay": chosen(made["delay"] + x.add_latency, 1),
            "drain_words": chosen(0, made["words"]),
            "shift_pairs": chosen(made["shifted"], 0),
            "tap": chosen(own.keep - 1, 0),
            "tail_cycles": chosen(made["below"] + own.interleave + fixed_ws, made["words"] + fixed_os) - pace,
        }
