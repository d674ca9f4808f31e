"""WUVE: the weight update of one parameter a cycle a lane. Operations and depth are those of docs/design/machine.md."""

from __future__ import annotations

from typing import Any, assert_never

from amaranth import Cat, EnableInserter, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.engine_time import unit_latency, update_plan, wuve_latency
from ...dataflow.stce.spec import PESpec
from ...workloads.update_rule import SGD, Operation, Unit, UpdateRule
from .enabled import enable_port, enabled
from .fp.add import Fp32Add
from .fp.multiply import Fp32Multiply
from .fp.units import CONVERTED
from .passing import Passing
from .place import place
from .recurrence import Fp32Divide, Fp32SquareRoot

__all__ = ["Lane", "Wuve"]

_PART = "wuve_lane"


class Lane(wiring.Component):
    """A rule of update: what enters in a cycle leaves, updated, `latency` cycles later.

    ``next_master`` is the updated ``master`` and ``weight16`` the same as an operand; so has each number of the state
    its ``next_``. The constants stand still while parameters are in flight. ``widened``: the gradient comes in FP32,
    and waits for as long as it would have been widened. With ``stalls`` everything holds in a cycle without ``en``.
    """

    def __init__(self, pe: PESpec, rule: UpdateRule, widened: bool = False, stalls: bool = False) -> None:
        self.pe, self.rule, self.widened, self.stalls = pe, rule, widened, stalls
        self.units = CONVERTED[pe.format]
        self.latency = wuve_latency(rule, pe)
        super().__init__(self.ports(pe, rule, widened, stalls))

    @property
    def contract(self) -> str:
        """What the Verilog says above the module."""
        done = [f"  {x.name} = {x.unit} {' '.join(x.operands)}" for x in self.rule.operations]
        said = f"{self.rule.title}: what enters in a cycle leaves, updated, {self.latency} cycles later."
        explained = [f"\n{self.rule.explained}."] if self.rule.explained else []
        still = ["The constants stand still while parameters are in flight."]
        still += ["In a cycle without en everything holds."] if self.stalls else []
        return "\n".join([said, *still, "", *done, *explained])

    @classmethod
    def ports(cls, pe: PESpec, rule: UpdateRule, widened: bool = False, stalls: bool = False) -> dict[str, Any]:
        """Members of the signature."""
        return {
            **enable_port(stalls),
            "gradient16": In(32 if widened else pe.operand.bits),
            **{name: In(32) for name in (*rule.held, *rule.constants)},
            **{f"next_{name}": Out(32) for name in rule.held},
            "weight16": Out(pe.operand.bits),
        }

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        plan = update_plan(self.rule, self.pe)
        passing = {name: Passing(m, name, getattr(self, name), 0) for name in self.rule.enters}
        for operation in self.rule.operations:
            passing[operation.name] = self._operate(m, operation, plan.starts[operation.name], passing)
        result = passing[self.rule.weight16]
        m.d.comb += self.weight16.eq(result.at(plan.depth))
        for name, last in zip(self.rule.held, self.rule.leaves, strict=True):
            m.d.comb += getattr(self, f"next_{name}").eq(passing[last].at(plan.depth))
        return EnableInserter(self.en)(m) if self.stalls else m

    def _operate(self, m: Module, operation: Operation, start: int, passing: dict[str, Passing]) -> Passing:
        """An operation on the values of the parameter that entered ``start`` cycles ago."""
        name, latency = operation.name, unit_latency(operation.unit, self.rule, self.pe)
        first, *rest = (passing[x].at(start) if x in passing else getattr(self, x) for x in operation.operands)
        match operation.unit:
            case Unit.WIDEN if self.widened:
                return passing[operation.operands[0]]
            case Unit.WIDEN:
                return self._unit(m, name, self.units.widen(latency), start, "value", half=first)
            case Unit.NARROW:
                return self._unit(m, name, self.units.narrow(latency), start, "half", value=first)
            case Unit.MULTIPLY:
                return self._unit(m, name, Fp32Multiply(latency), start, "product", a=first, b=rest[0])
            case Unit.ADD:
                return self._unit(m, name, Fp32Add(latency, subnormals=True), start, "sum", a=first, b=rest[0])
            case Unit.SUBTRACT:
                minus = Cat(rest[0][:31], ~rest[0][31])
                return self._unit(m, name, Fp32Add(latency, subnormals=True), start, "sum", a=first, b=minus)
            case Unit.ROOT:
                return self._unit(m, name, Fp32SquareRoot(latency), start, "root", value=first)
            case Unit.DIVIDE:
                return self._unit(m, name, Fp32Divide(latency), start, "quotient", a=first, b=rest[0])
        assert_never(operation.unit)

    def _unit(self, m: Module, name: str, unit: Any, age: int, result: str, **operands: Value) -> Passing:
        m.submodules[name] = placed = enabled(unit) if self.stalls else unit
        if self.stalls:
            m.d.comb += placed.en.eq(self.en)
        m.d.comb += [getattr(unit, port).eq(value) for port, value in operands.items()]
        return Passing(m, name, getattr(unit, result), age + unit.latency)


class Wuve(wiring.Component):
    """The engine of ``rule``: lanes side by side, a parameter a cycle each, with the constants of a step in common.

    Lane ``i`` takes in a parameter in each cycle with ``valid[i]``; it leaves, with ``leaving[i]``, `latency` cycles
    later.

    ``widened``: gradients come in FP32. With ``stalls`` everything holds in a cycle without ``en``, parameters enter
    together, in a cycle with ``enter``, and ``left`` is high in that in which they leave. With ``blackbox`` the lanes
    are instances of the module in `parts`.
    """

    def __init__(
        self,
        spec: AcceleratorSpec,
        rule: UpdateRule = SGD,
        *,
        widened: bool = False,
        stalls: bool = False,
        blackbox: bool = False,
    ) -> None:
        self.pe, self.rule, self.widened, self.stalls = spec.pe, rule, widened, stalls
        self.lanes = spec.wuve.lanes
        self.latency = wuve_latency(rule, self.pe)
        self.blackbox = blackbox
        constants = {name: In(32) for name in rule.constants}
        own = {name: member for name, member in Lane.ports(self.pe, rule, widened).items() if name not in constants}
        super().__init__(
            {
                "valid": In(1).array(self.lanes),
                **constants,
                **{name: member.array(self.lanes) for name, member in own.items()},
                "leaving": Out(1).array(self.lanes),
                **({"en": In(1), "enter": In(1), "left": Out(1)} if stalls else {}),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The module that a black-boxed engine is made of, by name."""
        return {_PART: Lane(*self._of)} if self.blackbox else {}

    @property
    def _of(self) -> tuple[PESpec, UpdateRule, bool, bool]:
        return self.pe, self.rule, self.widened, self.stalls

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        common = {*self.rule.constants, "en"}
        for i in range(self.lanes):
            lane = place(m, f"lane_{i}", Lane, *self._of, module=_PART if self.blackbox else None)
            for name, member in Lane.ports(*self._of).items():
                outer = getattr(self, name) if name in common else getattr(self, name)[i]
                inner = getattr(lane, name)
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
            valid = self.valid[i] & self.enter if self.stalls else self.valid[i]
            m.d.comb += self.leaving[i].eq(self._in_flight(m, f"flight_{i}", valid))
        if not self.stalls:
            return m
        m.d.comb += self.left.eq(self._in_flight(m, "flight", self.enter))
        return EnableInserter(self.en)(m)

    def _in_flight(self, m: Module, name: str, enters: Value) -> Value:
        flight = Signal(self.latency, name=name)
        m.d.sync += flight.eq(Cat(enters, flight))
        return flight[-1]
