"""WUVE: the weight update of one parameter a cycle a lane. Operations and depth are those of docs/design/machine.md."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.engine_time import DIVIDE_LATENCY, wuve_latency
from ...dataflow.stce.spec import PESpec
from ...workloads.errors import InputError, nearest
from .fp.add import Fp32Add
from .fp.multiply import Fp32Multiply
from .fp.units import OPERAND_UNITS
from .place import place
from .recurrence import Fp32Divide, Fp32SquareRoot

__all__ = ["AdamLane", "SgdLane", "Wuve"]

_PART = "wuve_lane"


class _Passing:
    """A value of every parameter in flight; it exists from ``age`` cycles after its parameter entered."""

    def __init__(self, m: Module, name: str, value: Value, age: int) -> None:
        self._m, self._name = m, name
        self.age = age
        self._stages = [value]

    def at(self, age: int) -> Value:
        """The value of the parameter of that age, through as many registers as it takes."""
        while self.age + len(self._stages) <= age:
            register = Signal(32, name=f"{self._name}_at_{self.age + len(self._stages)}", reset_less=True)
            self._m.d.sync += register.eq(self._stages[-1])
            self._stages.append(register)
        return self._stages[age - self.age]

    def negated(self) -> _Passing:
        value = self._stages[0]
        return _Passing(self._m, f"minus_{self._name}", Cat(value[:31], ~value[31]), self.age)


class _Lane(wiring.Component):
    """A rule of update: what enters in a cycle leaves, updated, `latency` cycles later.

    ``next_master`` is the updated ``master`` and ``weight16`` the same as an operand; so has each of ``STATE`` its
    ``next_``. The ``CONSTANTS`` stand still while parameters are in flight.
    """

    STATE: tuple[str, ...]
    CONSTANTS: tuple[str, ...]

    def __init__(self, pe: PESpec) -> None:
        self.pe = pe
        self.units = OPERAND_UNITS[pe.format]
        super().__init__(self.ports(pe))

    @classmethod
    def ports(cls, pe: PESpec) -> dict[str, Any]:
        """Members of the signature."""
        held = ("master", *cls.STATE)
        return {
            "gradient16": In(16),
            **{name: In(32) for name in (*held, *cls.CONSTANTS)},
            **{f"next_{name}": Out(32) for name in held},
            "weight16": Out(16),
        }

    @staticmethod
    def latency(pe: PESpec) -> int:
        """Depth of the pipeline."""
        raise NotImplementedError

    def _entering(self, m: Module, name: str) -> _Passing:
        return _Passing(m, name, getattr(self, name), 0)

    def _unit(self, m: Module, name: str, unit: Any, age: int, result: str, **operands: Value) -> _Passing:
        m.submodules[name] = unit
        m.d.comb += [getattr(unit, port).eq(value) for port, value in operands.items()]
        return _Passing(m, name, getattr(unit, result), age + unit.latency)

    def _widen(self, m: Module, latency: int) -> _Passing:
        return self._unit(m, "widen", self.units.widen(latency), 0, "value", half=self.gradient16)

    def _multiply(self, m: Module, name: str, a: _Passing, b: Value, age: int) -> _Passing:
        return self._unit(m, name, Fp32Multiply(self.pe.multiply_latency), age, "product", a=a.at(age), b=b)

    def _add(self, m: Module, name: str, a: _Passing, b: _Passing) -> _Passing:
        age, unit = max(a.age, b.age), Fp32Add(self.pe.add_latency, subnormals=True)
        return self._unit(m, name, unit, age, "sum", a=a.at(age), b=b.at(age))

    def _leave(self, m: Module, narrow_latency: int, master: _Passing, **state: _Passing) -> None:
        unit = self.units.narrow(narrow_latency)
        narrow = self._unit(m, "narrow", unit, master.age, "half", value=master.at(master.age))
        m.d.comb += [self.weight16.eq(narrow.at(narrow.age)), self.next_master.eq(master.at(narrow.age))]
        m.d.comb += [getattr(self, f"next_{name}").eq(value.at(narrow.age)) for name, value in state.items()]


class SgdLane(_Lane):
    """SGD with momentum.

    The products of weight and velocity are made beside that of the gradient, so that of the four multiplications in the
    depth two are left for the conversions.
    """

    STATE = ("velocity",)
    CONSTANTS = ("inverse_scale", "weight_decay", "momentum", "rate")

    @staticmethod
    def latency(pe: PESpec) -> int:
        return wuve_latency("sgd", pe)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        multiply, add = self.pe.multiply_latency, self.pe.add_latency
        master, velocity = self._entering(m, "master"), self._entering(m, "velocity")

        gradient = self._multiply(m, "unscale", self._widen(m, multiply), self.inverse_scale, multiply)
        decay = self._multiply(m, "decay", master, self.weight_decay, multiply)
        gradient = self._add(m, "regularise", gradient, decay)
        kept = self._multiply(m, "keep", velocity, self.momentum, multiply + add)
        velocity = self._add(m, "accelerate", kept, gradient)
        step = self._multiply(m, "scale", velocity, self.rate, velocity.age)
        master = self._add(m, "step", master, step.negated())
        self._leave(m, multiply, master, velocity=velocity)
        return m


class AdamLane(_Lane):
    """Adam. ``rest1`` is 1 - ``beta1``, ``rest2`` is 1 - ``beta2``; ``rate`` and ``epsilon`` are those of the step.

    Root and quotient take a cycle less than docs/design/machine.md grants them, and the conversions the two that this
    saves.
    """

    STATE = ("mean", "square")
    CONSTANTS = ("inverse_scale", "beta1", "rest1", "beta2", "rest2", "rate", "epsilon")

    @staticmethod
    def latency(pe: PESpec) -> int:
        return wuve_latency("adam", pe)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        master, mean, square = (self._entering(m, name) for name in ("master", "mean", "square"))

        gradient = self._multiply(m, "unscale", self._widen(m, 1), self.inverse_scale, 1)
        now = gradient.age
        fresh = self._multiply(m, "weigh_mean", gradient, self.rest1, now)
        kept = self._multiply(m, "keep_mean", mean, self.beta1, now)
        mean = self._add(m, "average", kept, fresh)
        power = self._multiply(m, "power", gradient, gradient.at(now), now)
        fresh = self._multiply(m, "weigh_square", power, self.rest2, power.age)
        kept = self._multiply(m, "keep_square", square, self.beta2, power.age)
        square = self._add(m, "average_square", kept, fresh)

        unit, age = Fp32SquareRoot(DIVIDE_LATENCY - 1), square.age
        root = self._unit(m, "root", unit, age, "root", value=square.at(age))
        root = self._add(m, "offset", root, _Passing(m, "epsilon", self.epsilon, root.age))
        scaled = self._multiply(m, "scale", mean, self.rate, mean.age)
        unit, age = Fp32Divide(DIVIDE_LATENCY - 1), root.age
        step = self._unit(m, "divide", unit, age, "quotient", a=scaled.at(age), b=root.at(age))
        master = self._add(m, "step", master, step.negated())
        self._leave(m, 1, master, mean=mean, square=square)
        return m


_LANES: dict[str, type[_Lane]] = {"adam": AdamLane, "sgd": SgdLane}


class Wuve(wiring.Component):
    """The engine of ``rule``: lanes side by side, a parameter a cycle each, with the constants of a step in common.

    Lane ``i`` takes in a parameter in each cycle with ``valid[i]``; it leaves, with ``leaving[i]``, `latency` cycles
    later.

    With ``blackbox`` the lanes are instances of the module in `parts`.
    """

    def __init__(self, spec: AcceleratorSpec, rule: str = "sgd", *, blackbox: bool = False) -> None:
        if rule not in _LANES:
            raise InputError(f"WUVE has no rule {rule!r}; {nearest(rule, _LANES)}")
        self.pe = spec.pe
        self.lane = _LANES[rule]
        self.lanes = spec.wuve.lanes
        self.latency = self.lane.latency(self.pe)
        self.blackbox = blackbox
        constants = {name: In(32) for name in self.lane.CONSTANTS}
        own = {name: member for name, member in self.lane.ports(self.pe).items() if name not in constants}
        super().__init__(
            {
                "valid": In(1).array(self.lanes),
                **constants,
                **{name: member.array(self.lanes) for name, member in own.items()},
                "leaving": Out(1).array(self.lanes),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The module that a black-boxed engine is made of, by name."""
        return {_PART: self.lane(self.pe)} if self.blackbox else {}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for i in range(self.lanes):
            lane = place(m, f"lane_{i}", self.lane, self.pe, module=_PART if self.blackbox else None)
            for name, member in self.lane.ports(self.pe).items():
                outer = getattr(self, name) if name in self.lane.CONSTANTS else getattr(self, name)[i]
                inner = getattr(lane, name)
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
            flight = Signal(self.latency, name=f"flight_{i}")
            m.d.sync += flight.eq(Cat(self.valid[i], flight))
            m.d.comb += self.leaving[i].eq(flight[-1])
        return m
