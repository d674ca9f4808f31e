"""The update rules with the numbers of one step, and what the host writes into WUVE's registers for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, get_args

from ..workloads.errors import InputError, require_int
from ..workloads.update_rule import ADAM, ADAMW, NESTEROV, SGD, UpdateRule

__all__ = ["SETTINGS", "Adam", "AdamW", "Nesterov", "Sgd", "UpdateSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    rule: ClassVar[UpdateRule]

    rate: float
    inverse_scale: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InputError(f"{field.name} of {type(self).__name__} must be a finite number, not {value!r}")

    def _registers(self) -> dict[str, float]:
        raise NotImplementedError

    @property
    def constants(self) -> tuple[float, ...]:
        """The constants of the rule in its order; made in double precision, to be rounded once to FP32."""
        registers = self._registers()
        return tuple(registers[name] for name in self.rule.constants)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Momentum(_Settings):
    momentum: float = 0.0
    weight_decay: float = 0.0

    def _registers(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd(_Momentum):
    """SGD with momentum; its state is one array, the velocity."""

    rule = SGD


@dataclass(frozen=True, slots=True, kw_only=True)
class Nesterov(_Momentum):
    """SGD with Nesterov momentum; its state is one array, the velocity."""

    rule = NESTEROV


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adaptive(_Settings):
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    step: int

    def __post_init__(self) -> None:
        _Settings.__post_init__(self)
        name = type(self).__name__
        require_int(f"step of {name}", self.step, 1, 2**53)
        for beta in ("beta1", "beta2"):
            value = getattr(self, beta)
            if not 0.0 <= value < 1.0:
                raise InputError(f"{beta} of {name} must be at least 0 and below 1, not {value}")

    def _registers(self) -> dict[str, float]:
        correction = math.sqrt(1.0 - self.beta2**self.step)
        return {
            "inverse_scale": self.inverse_scale,
            "beta1": self.beta1,
            "rest1": 1.0 - self.beta1,
            "beta2": self.beta2,
            "rest2": 1.0 - self.beta2,
            "rate": self.rate * correction / (1.0 - self.beta1**self.step),
            "epsilon": self.epsilon * correction,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam(_Adaptive):
    """Adam at step ``step`` (from 1); its state is two arrays, the mean and the mean square of the gradient."""

    rule = ADAM


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW(_Adaptive):
    """AdamW at step ``step`` (from 1); its state is that of Adam."""

    rule = ADAMW

    weight_decay: float = 0.0

    def _registers(self) -> dict[str, float]:
        return {**_Adaptive._registers(self), "shrink": 1.0 - self.rate * self.weight_decay}


UpdateSettings = Sgd | Nesterov | Adam | AdamW
SETTINGS: dict[str, type[UpdateSettings]] = {made.rule.name: made for made in get_args(UpdateSettings)}
"""The settings of each rule, by its name."""
