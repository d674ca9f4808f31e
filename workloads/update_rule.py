"""The update rules. What a rule is stands here and nowhere else: time, energy, memory, RTL and training read it.

A rule is trained by PyTorch and run by WUVE (docs/design/machine.md); both are of one `UpdateRule`, so that what was
trained is what is timed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from .errors import InputError, nearest

__all__ = [
    "ADAM",
    "ADAMW",
    "NESTEROV",
    "SGD",
    "UPDATE_RULES",
    "Held",
    "Operation",
    "RuleName",
    "Trained",
    "Unit",
    "UpdateRule",
    "Updated",
    "update_rule",
]

RuleName = Literal["sgd", "nesterov", "adam", "adamw"]
"""The keys of `UPDATE_RULES`, for type checkers and for what reads files and commands."""

Updated = Literal["weight", "gradient", "state"]
"""What an update touches: the weight with its copies, its gradient, the master with its state."""

GRADIENT, MASTER = "gradient16", "master"
"""What enters with every parameter besides the state: its gradient, an operand, and its FP32 weight."""


class Unit(StrEnum):
    """What does an operation. All results are FP32 but that of ``NARROW``, an operand."""

    WIDEN = "widen"
    MULTIPLY = "multiply"
    ADD = "add"
    SUBTRACT = "subtract"
    ROOT = "root"
    DIVIDE = "divide"
    NARROW = "narrow"


@dataclass(frozen=True, slots=True)
class Operation:
    """``name`` = ``unit`` of ``operands``: what enters, constants, and operations before this one, by name."""

    name: str
    unit: Unit
    operands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """An FP32 number a parameter, kept from step to step: what it becomes, and PyTorch's name of it."""

    name: str
    becomes: str
    in_torch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What trains by a rule: a class of ``torch.optim`` with ``settings``, and the usual rate and weight decay.

    ``counts_steps``: PyTorch keeps a step number a parameter besides the state.
    """

    optimizer: str
    settings: Mapping[str, float | bool]
    counts_steps: bool
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UpdateRule:
    """A rule by which a step updates each parameter.

    ``operations`` are in an order in which they can be done; each is rounded to nearest even. ``becomes`` is the new
    master weight, ``weight16`` the operand made of it. ``constants`` are written before a step, one for all parameters
    of a tensor; ``explained`` says what a name of theirs does not. Names are those of the ports of the RTL.
    """

    name: RuleName
    title: str
    state: tuple[Held, ...]
    constants: tuple[str, ...]
    explained: str
    operations: tuple[Operation, ...]
    becomes: str
    weight16: str
    trained: Trained

    def __post_init__(self) -> None:
        known = set(self.enters) | set(self.constants)
        for operation in self.operations:
            missing = set(operation.operands) - known
            assert not missing and operation.name not in known, f"{self.name}: {operation}"
            known.add(operation.name)
        assert {self.becomes, self.weight16, *(held.becomes for held in self.state)} <= known, self.name

    def __reduce__(self) -> tuple[object, ...]:
        """Another process has the same rule, not a copy of it."""
        return update_rule, (self.name,)

    @property
    def held(self) -> tuple[str, ...]:
        """What is read and written of a parameter in FP32: the master weight, then the state."""
        return (MASTER, *(held.name for held in self.state))

    @property
    def enters(self) -> tuple[str, ...]:
        """All that is read of a parameter."""
        return (GRADIENT, *self.held)

    @property
    def leaves(self) -> tuple[str, ...]:
        """The operations whose results replace `held`."""
        return (self.becomes, *(held.becomes for held in self.state))

    @property
    def divides(self) -> bool:
        """Whether a root or a quotient is among the operations."""
        return any(operation.unit in (Unit.ROOT, Unit.DIVIDE) for operation in self.operations)

    @property
    def decays(self) -> bool:
        """Whether weights can decay under the rule."""
        return bool({"weight_decay", "shrink"} & set(self.constants))


_VELOCITY = (Held("velocity", becomes="accelerate", in_torch="momentum_buffer"),)
_MOMENTS = (
    Held("mean", becomes="average", in_torch="exp_avg"),
    Held("square", becomes="average_square", in_torch="exp_avg_sq"),
)
_MOMENTUM_CONSTANTS = ("inverse_scale", "weight_decay", "momentum", "rate")
_ADAM_CONSTANTS = ("inverse_scale", "beta1", "rest1", "beta2", "rest2", "rate", "epsilon")
_CORRECTED = "rest1 is 1 - beta1, rest2 is 1 - beta2;\nrate and epsilon are corrected for the bias at the step"

_ACCELERATED = (
    Operation("widen", Unit.WIDEN, (GRADIENT,)),
    Operation("unscale", Unit.MULTIPLY, ("widen", "inverse_scale")),
    Operation("decay", Unit.MULTIPLY, (MASTER, "weight_decay")),
    Operation("regularise", Unit.ADD, ("unscale", "decay")),
    Operation("keep", Unit.MULTIPLY, ("velocity", "momentum")),
    Operation("accelerate", Unit.ADD, ("keep", "regularise")),
)
_LOOKED_AHEAD = (
    Operation("ahead", Unit.MULTIPLY, ("accelerate", "momentum")),
    Operation("look", Unit.ADD, ("ahead", "regularise")),
)
_AVERAGED = (
    Operation("widen", Unit.WIDEN, (GRADIENT,)),
    Operation("unscale", Unit.MULTIPLY, ("widen", "inverse_scale")),
    Operation("weigh_mean", Unit.MULTIPLY, ("unscale", "rest1")),
    Operation("keep_mean", Unit.MULTIPLY, ("mean", "beta1")),
    Operation("average", Unit.ADD, ("keep_mean", "weigh_mean")),
    Operation("power", Unit.MULTIPLY, ("unscale", "unscale")),
    Operation("weigh_square", Unit.MULTIPLY, ("power", "rest2")),
    Operation("keep_square", Unit.MULTIPLY, ("square", "beta2")),
    Operation("average_square", Unit.ADD, ("keep_square", "weigh_square")),
    Operation("root", Unit.ROOT, ("average_square",)),
    Operation("offset", Unit.ADD, ("root", "epsilon")),
    Operation("scale", Unit.MULTIPLY, ("average", "rate")),
    Operation("divide", Unit.DIVIDE, ("scale", "offset")),
)


def _scaled(what: str) -> tuple[Operation, ...]:
    return (Operation("scale", Unit.MULTIPLY, (what, "rate")), *_stepped(MASTER, "scale"))


def _stepped(weight: str, by: str) -> tuple[Operation, ...]:
    return Operation("step", Unit.SUBTRACT, (weight, by)), Operation("narrow", Unit.NARROW, ("step",))


SGD = UpdateRule(
    name="sgd",
    title="SGD with momentum",
    state=_VELOCITY,
    constants=_MOMENTUM_CONSTANTS,
    explained="",
    operations=(*_ACCELERATED, *_scaled("accelerate")),
    becomes="step",
    weight16="narrow",
    trained=Trained(
        optimizer="SGD", settings={"momentum": 0.9}, counts_steps=False, learning_rate=0.1, weight_decay=5e-4
    ),
)

NESTEROV = UpdateRule(
    name="nesterov",
    title="SGD with Nesterov momentum",
    state=_VELOCITY,
    constants=_MOMENTUM_CONSTANTS,
    explained="",
    operations=(*_ACCELERATED, *_LOOKED_AHEAD, *_scaled("look")),
    becomes="step",
    weight16="narrow",
    trained=Trained(
        optimizer="SGD",
        settings={"momentum": 0.9, "nesterov": True},
        counts_steps=False,
        learning_rate=0.1,
        weight_decay=5e-4,
    ),
)

ADAM = UpdateRule(
    name="adam",
    title="Adam",
    state=_MOMENTS,
    constants=_ADAM_CONSTANTS,
    explained=_CORRECTED,
    operations=(*_AVERAGED, *_stepped(MASTER, "divide")),
    becomes="step",
    weight16="narrow",
    trained=Trained(optimizer="Adam", settings={}, counts_steps=True, learning_rate=2e-3, weight_decay=0.0),
)

ADAMW = UpdateRule(
    name="adamw",
    title="AdamW",
    state=_MOMENTS,
    constants=(*_ADAM_CONSTANTS, "shrink"),
    explained=f"{_CORRECTED};\nshrink is 1 - the rate, uncorrected, times the weight decay",
    operations=(*_AVERAGED, Operation("decay", Unit.MULTIPLY, (MASTER, "shrink")), *_stepped("decay", "divide")),
    becomes="step",
    weight16="narrow",
    trained=Trained(optimizer="AdamW", settings={}, counts_steps=True, learning_rate=2e-3, weight_decay=0.05),
)

UPDATE_RULES: dict[str, UpdateRule] = {rule.name: rule for rule in (SGD, NESTEROV, ADAM, ADAMW)}


def update_rule(name: str, where: str = "optimizer") -> UpdateRule:
    """The rule of that name; another one is refused as what ``where`` says it is."""
    if name not in UPDATE_RULES:
        raise InputError(f"{where} {name!r} is unknown: {nearest(name, UPDATE_RULES)}")
    return UPDATE_RULES[name]
