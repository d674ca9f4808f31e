"""One lane of the vector unit: every operation on one pipeline, which all of them pass from end to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.spaces import Target
from ...dataflow.program.unit_time import VectorPlan, vector_plan
from ...dataflow.program.vector_operations import OPERATIONS, Slot, VectorOpcode
from ..blocks.fp.add import Fp32Add
from ..blocks.fp.datapath import wire
from ..blocks.fp.multiply import Fp32Multiply
from ..blocks.passing import Passing

__all__ = ["CONSTANTS", "VectorLane", "is_nan", "slot_age"]

CONSTANTS = ("factor", "epsilon", "momentum", "rest")
"""Registers of a command that a lane takes."""
_MINUS_ZERO = 1 << 31
_Cases = Mapping[tuple[VectorOpcode, ...], Any]
_NAN = 0x7FC00000
_NORMED = (VectorOpcode.PRODUCTS, VectorOpcode.NORMALISE, VectorOpcode.NORMALISE_BACKWARD)
_OF_COLUMNS = tuple(o for o, operation in OPERATIONS.items() if operation.columns)
_OF_B = (VectorOpcode.PRODUCTS, VectorOpcode.NORMALISE_BACKWARD)
_RUNNING = (VectorOpcode.RUNNING_MEAN, VectorOpcode.RUNNING_VARIANCE)
_INTO_SUM = (VectorOpcode.SUM, VectorOpcode.SQUARES, VectorOpcode.PRODUCTS)


def slot_age(slot: Slot, operation: VectorOpcode, plan: VectorPlan) -> int:
    """The age of a beat at which its word of a slot is there: just as it is taken, a sum so late that it is whole."""
    match slot:
        case Slot.MEAN:
            return plan.entered
        case Slot.SUM:
            return plan.entered if OPERATIONS[operation].columns else plan.scaled
        case Slot.DEVIATION:
            return plan.parted
        case Slot.BIAS:
            return plan.met
        case Slot.DOT:
            return plan.met if operation == VectorOpcode.PRODUCTS else plan.scaled
        case _:
            return plan.scaled


def is_nan(bits: Any) -> Any:
    """Whether an FP32 number is none."""
    return bits[23:31].all() & bits[:23].any()


def _above_zero(bits: Any) -> Any:
    """Of what is no NaN."""
    return ~bits[31] & bits[:31].any()


def _canonical(bits: Any) -> Any:
    return Mux(is_nan(bits), _NAN, bits)


def _minus(bits: Any) -> Any:
    return Cat(bits[:31], ~bits[31])


def _greater(m: Module, a: Any, b: Any) -> Any:
    """Of two that are no NaNs."""
    apart = a[31] ^ b[31]
    less = wire(m, "less", a[:31] < b[:31])
    same = a[:31] == b[:31]
    return Mux(apart, b[31] & (a[:31] | b[:31]).any(), Mux(a[31], less, ~less & ~same))


class VectorLane(wiring.Component):
    """Takes ``a``, ``b``, ``c`` at age ``entered`` (`VectorPlan`), slots at `slot_age`, ``partial`` at ``scaled``.

    ``result`` leaves at ``ended``, with ``takes``: whether the term is the largest so far. ``kept`` leaves at
    ``summed``, what SUM becomes and the next term takes as ``partial``; ``dot`` at ``added``, what DOT becomes, or of
    what the root is taken. ``fresh`` and ``fresh_dot``, at ``scaled`` and ``met``: sums start from -0.0.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        super().__init__(self.ports(target))

    @classmethod
    def ports(cls, _target: Target) -> dict[str, Any]:
        """Members of the signature."""
        return {
            "operation": In(5),
            "first": In(1),
            **{name: In(32) for name in CONSTANTS},
            **{name: In(32) for name in ("a", "b", "c", "partial")},
            "slots": In(32).array(len(Slot)),
            "fresh": In(1),
            "fresh_dot": In(1),
            **{name: Out(32) for name in ("result", "kept", "dot")},
            "takes": Out(1),
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        plan, slots = vector_plan(self.target), self.slots
        parted, word, before = self._enter(m, plan)
        # d, or what has passed by
        x = Mux(self._of(*_NORMED, VectorOpcode.SQUARES), parted, word.at(plan.parted))
        y = self._chosen(
            m,
            "scale",
            self.factor,
            {
                _NORMED: slots[Slot.DEVIATION],
                (VectorOpcode.SQUARES,): parted,
                (VectorOpcode.RUNNING_MEAN,): self.momentum,
            },
        )
        scaled = self._multiply(m, "scaled", x, y, plan.parted)
        by_itself = (*_OF_COLUMNS, VectorOpcode.SCALE, VectorOpcode.SQUARES)
        hit = before.at(plan.parted)
        word = self._pass(
            m,
            "parted",
            plan.parted,
            word,
            {(VectorOpcode.ADD,): parted, (VectorOpcode.SELECT,): Mux(hit, parted, word.at(plan.parted))},
        )
        word = self._pass(m, "scaled", plan.scaled, word, {by_itself: scaled.at(plan.scaled)})
        self._meet(m, plan, word, scaled)
        return m

    def _of(self, *operations: VectorOpcode) -> Any:
        """Whether the operation is one of them."""
        return Cat(*[self.operation == operation for operation in operations]).any()

    def _chosen(self, m: Module, name: str, usual: Any, cases: _Cases) -> Any:
        """What the operation takes."""
        chosen = Signal(32, name=f"{name}_chosen")
        with m.Switch(self.operation):
            for operations, value in cases.items():
                with m.Case(*operations):
                    m.d.comb += chosen.eq(value)
            with m.Default():
                m.d.comb += chosen.eq(usual)
        return chosen

    def _pass(self, m: Module, name: str, age: int, word: Passing, cases: _Cases) -> Passing:
        """The word that passes on, or what some operations put in its place."""
        return Passing(m, f"word_{name}", self._chosen(m, f"word_{name}", word.at(age), cases), age)

    def _add(self, m: Module, name: str, a: Any, b: Any, age: int) -> Passing:
        m.submodules[name] = unit = Fp32Add(self.target.spec.pe.add_latency, subnormals=True)
        m.d.comb += [unit.a.eq(a), unit.b.eq(b)]
        return Passing(m, name, unit.sum, age + unit.latency)

    def _multiply(self, m: Module, name: str, a: Any, b: Any, age: int) -> Passing:
        m.submodules[name] = unit = Fp32Multiply(self.target.spec.pe.multiply_latency)
        m.d.comb += [unit.a.eq(a), unit.b.eq(b)]
        return Passing(m, name, unit.product, age + unit.latency)

    def _enter(self, m: Module, plan: VectorPlan) -> tuple[Value, Passing, Passing]:
        """The first sum or difference; what passes by beside it; whether a position is the one that is looked for."""
        a, c = wire(m, "own", _canonical(self.a)), wire(m, "before", Mux(self.first, _MINUS_ZERO, _canonical(self.c)))
        word = self._chosen(
            m,
            "word",
            a,
            {
                (VectorOpcode.RELU,): Mux(is_nan(a) | _above_zero(a), a, 0),
                (VectorOpcode.MASK,): Mux(~is_nan(self.b) & _above_zero(self.b), a, 0),
                (VectorOpcode.SELECT,): c,
                (VectorOpcode.RUNNING_MEAN,): self.slots[Slot.MEAN],
                tuple(o for o in _OF_COLUMNS if o != VectorOpcode.RUNNING_MEAN): self.slots[Slot.SUM],
            },
        )
        other = self._chosen(
            m, "other", _minus(self.slots[Slot.MEAN]), {(VectorOpcode.ADD,): self.b, (VectorOpcode.SELECT,): c}
        )
        parted = self._add(m, "part", Mux(self._of(*_OF_B), self.b, a), other, plan.entered)
        zeros = ~(self.b[:31] | self.factor[:31]).any()
        hit = ~is_nan(self.b) & ((self.b == self.factor) | zeros)
        passing = Passing(m, "word_entered", word, plan.entered)
        return parted.at(plan.parted), passing, Passing(m, "hit", wire(m, "hit", hit), plan.entered)

    def _meet(self, m: Module, plan: VectorPlan, word: Passing, scaled: Passing) -> None:
        """Two products and a sum side by side, the last sum, the last product."""
        slots, own = self.slots, word.at(plan.scaled)
        deviation = Passing(m, "deviation", slots[Slot.DEVIATION], plan.parted)
        by = self._chosen(
            m,
            "weigh",
            self.momentum,
            {
                (VectorOpcode.NORMALISE,): slots[Slot.WEIGHT],
                (VectorOpcode.PRODUCTS,): own,
                (VectorOpcode.NORMALISE_BACKWARD,): slots[Slot.DOT],
            },
        )
        backward = (VectorOpcode.NORMALISE_BACKWARD,)
        weighed = self._multiply(m, "weigh", scaled.at(plan.scaled), by, plan.scaled)
        running: _Cases = {
            (VectorOpcode.RUNNING_MEAN,): slots[Slot.RUNNING_MEAN],
            (VectorOpcode.RUNNING_VARIANCE,): slots[Slot.RUNNING_VARIANCE],
        }
        beside = self._multiply(
            m,
            "beside",
            self._chosen(m, "beside", slots[Slot.DOT], {backward: slots[Slot.WEIGHT], **running}),
            self._chosen(
                m, "beside_by", self.rest, {backward: deviation.at(plan.scaled), (VectorOpcode.MEANS,): self.factor}
            ),
            plan.scaled,
        )
        summed = self._sum(m, plan, own)
        largest = self._largest(m, plan, own)
        maximum = (VectorOpcode.MAXIMUM, VectorOpcode.POSITION)
        word = self._pass(
            m,
            "summed",
            plan.summed,
            word,
            {(*_INTO_SUM, VectorOpcode.GATHER, *backward): summed.at(plan.summed), maximum: largest.at(plan.summed)},
        )
        m.d.comb += self.kept.eq(word.at(plan.summed))
        met = plan.met
        from_product = self._of(VectorOpcode.NORMALISE, VectorOpcode.PRODUCTS, VectorOpcode.RUNNING_VARIANCE)
        to: _Cases = {
            (VectorOpcode.NORMALISE,): slots[Slot.BIAS],
            (VectorOpcode.PRODUCTS,): Mux(self.fresh_dot, _MINUS_ZERO, slots[Slot.DOT]),
            backward: _minus(weighed.at(met)),
            (VectorOpcode.DEVIATION,): self.epsilon,
        }
        end = Mux(from_product, weighed.at(met), word.at(met))
        added = self._add(m, "add", end, self._chosen(m, "add_to", beside.at(met), to), met)
        means = self.operation == VectorOpcode.MEANS
        m.d.comb += self.dot.eq(Mux(means, beside.at(plan.added), added.at(plan.added)))
        last = self._multiply(m, "last", added.at(plan.added), beside.at(plan.added), plan.added)
        word = self._pass(m, "added", plan.added, word, {(VectorOpcode.NORMALISE, *_RUNNING): added.at(plan.added)})
        m.d.comb += self.result.eq(Mux(self._of(*backward), last.at(plan.ended), word.at(plan.ended)))

    def _sum(self, m: Module, plan: VectorPlan, own: Any) -> Passing:
        total = self.slots[Slot.SUM]
        to = self._chosen(
            m,
            "sum_to",
            Mux(self.fresh, _MINUS_ZERO, total),
            {
                (VectorOpcode.GATHER,): Mux(self.fresh, _MINUS_ZERO, self.partial),
                (VectorOpcode.NORMALISE_BACKWARD,): _minus(total),
            },
        )
        return self._add(m, "sum", own, to, plan.scaled)

    def _largest(self, m: Module, plan: VectorPlan, own: Any) -> Passing:
        """The first of equals, the first NaN before all."""
        held = self.partial
        takes = wire(m, "takes", self.fresh | (~is_nan(held) & (is_nan(own) | _greater(m, own, held))))
        m.d.comb += self.takes.eq(Passing(m, "takes", takes, plan.scaled).at(plan.ended))
        return Passing(m, "largest", wire(m, "largest", Mux(takes, own, held)), plan.scaled)
