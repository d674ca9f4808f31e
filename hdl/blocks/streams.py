"""SORE and WUVE between streams: what may wait, and the engine with it. Cycles are those of docs/design/machine.md."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Member, Out

from ...dataflow.accelerator import AcceleratorSpec
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import SGD, UpdateRule
from .payload import described, payload_of, payload_wires, payloads
from .skid import StreamSkid
from .sorter import Sore
from .update import Wuve

__all__ = ["SoreStream", "WuveStream", "chosen", "pairs_of", "parameters_of", "stream_contract", "updated_of"]

Members = dict[str, Member]

_WIDTH = 112
"""Of a line of a comment."""

_HELD = (
    "A beat at an output stays as it is until it is taken, in the cycle in which valid and ready meet. Where one "
    "waits, the engine stands still from the next cycle to that in which it is taken, and takes nothing in. No ready "
    "depends on an input in the same cycle. While the outputs are taken a beat goes in a cycle. Payloads:"
)


def chosen(engine: Any, names: Iterable[str]) -> Members:
    """Members of an engine by their names."""
    return {name: engine.signature.members[name] for name in names}


def parameters_of(wuve: Wuve) -> Members:
    """What a beat of parameters has: which lanes hold one, and what enters."""
    return chosen(wuve, ("valid", "gradient16", *wuve.rule.held))


def updated_of(wuve: Wuve) -> Members:
    """What a beat has when it leaves."""
    return chosen(wuve, ("leaving", *(f"next_{name}" for name in wuve.rule.held), "weight16"))


def pairs_of(sore: Sore) -> Members:
    """What leaves SORE at once: pairs, flags of their groups, and of one pair a beat whether it is the first."""
    return chosen(sore, ("pair", "nan", *(("leaving",) if sore.kind == "serial" else ())))


def stream_contract(said: str, component: Any) -> str:
    """``said`` of a component, what holds of all of them, and where the fields of its streams are."""
    lines = [textwrap.fill(said, _WIDTH), "", textwrap.fill(_HELD, _WIDTH)]
    for name, layout in payloads(component).items():
        lines += [f"{name}__payload", *described(layout)]
    return "\n".join(lines)


class _Engine(wiring.Component):
    """An engine that can hold still behind ``into``, and ``out`` behind it."""

    def __init__(self, engine: Any, into: Members, out: Members, fixed: Iterable[str]) -> None:
        self.engine, self._into, self._out = engine, into, out
        self._fixed = chosen(engine, fixed)
        super().__init__(
            {
                **self._fixed,
                "into": In(stream.Signature(payload_of(into))),
                "out": Out(stream.Signature(payload_of(out))),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The module that a black-boxed one is made of, by name."""
        parts: dict[str, Any] = self.engine.parts
        return parts

    def _wire(self, m: Module, enters: Any, leaves: Any) -> None:
        m.submodules.engine = self.engine
        m.submodules.skid = skid = StreamSkid({"out": payload_of(self._out)})
        wiring.connect(m, skid.out, wiring.flipped(self.out))
        m.d.comb += [
            self.into.ready.eq(skid.advance),
            self.engine.en.eq(skid.advance),
            enters.eq(self.into.valid),
            skid.out_leaving.valid.eq(leaves),
            *(getattr(self.engine, name).eq(getattr(self, name)) for name in self._fixed),
            *(port.eq(field) for field, port in payload_wires(self.into.payload, self._into, self.engine)),
            *(field.eq(port) for field, port in payload_wires(skid.out_leaving.payload, self._out, self.engine)),
        ]


class WuveStream(_Engine):
    """`Wuve` between streams."""

    def __init__(self, spec: AcceleratorSpec, rule: UpdateRule = SGD, *, blackbox: bool = False) -> None:
        wuve = Wuve(spec, rule, stalls=True, blackbox=blackbox)
        super().__init__(wuve, parameters_of(wuve), updated_of(wuve), rule.constants)

    @property
    def contract(self) -> str:
        """What the Verilog says above the module."""
        said = (
            "WUVE between streams: a beat of into, parameters in the lanes with valid, leaves at out, updated, "
            f"{self.engine.latency} cycles in which the engine runs after it was taken. The constants stand still "
            "while parameters are in flight."
        )
        return stream_contract(said, self)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        self._wire(m, self.engine.enter, self.engine.left)
        return m


class SoreStream(_Engine):
    """`Sore` between streams."""

    def __init__(self, spec: AcceleratorSpec, pattern: NMPattern, *, blackbox: bool = False) -> None:
        sore = Sore(spec, pattern, stalls=True, blackbox=blackbox)
        encoding = () if sore.operand.gradient is None else ("gradient",)
        super().__init__(sore, chosen(sore, ("value", "valid")), pairs_of(sore), encoding)

    @property
    def contract(self) -> str:
        """What the Verilog says above the module."""
        group, keep = self.engine.pattern.group, self.engine.pattern.keep
        how = (
            f"{group} beats of into, an element of its group in every lane each, are a round, which leaves as {keep} "
            "beats of out, a pair in every lane each, the first with leaving"
            if self.engine.kind == "serial"
            else "a beat of into, a group in every lane, leaves as a beat of out, all of its pairs"
        )
        said = (
            f"SORE between streams: {how}. Elements and pairs that are there are valid, those of a short group come "
            "first; nan tells of the group that the pairs are of."
        )
        return stream_contract(said, self)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        self._wire(m, self.engine.step, self.engine.pairs_leave)
        return m
