"""A training in the machine's arithmetic: what `weft train --numerics machine` computes with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.operand import FormatName
from ...workloads.errors import InputError
from ...workloads.graph import Graph
from ...workloads.update_rule import Operation, Unit, UpdateRule
from ..array import canonical
from ..compact import either
from ..operand import Half
from ..update_settings import SETTINGS, UpdateSettings
from .step import Execution

__all__ = ["MachineNumerics", "applied", "machine_numerics", "numerics_of", "updated"]

Single = npt.NDArray[np.float32]

_FORMATS: dict[str, FormatName] = {"machine": "fp16", "machine-bf16": "bf16", "machine-fp8": "fp8"}


def machine_numerics(name: str) -> MachineNumerics:
    """The numerics that a training names: ``machine``, ``machine-bf16`` or ``machine-fp8``."""
    return MachineNumerics(format=_FORMATS[name])


def numerics_of(spec: AcceleratorSpec) -> str:
    """What a training calls the numerics of a machine."""
    for name, format in _FORMATS.items():
        if format == spec.pe.format:
            return name
    raise InputError(
        f"pe.format of {spec.name!r} is {spec.pe.format!r}, of which WUVE makes no weights: a training runs in "
        f"{either(tuple(_FORMATS.values()))}"
    )


@dataclass(frozen=True, slots=True)
class MachineNumerics:
    """Forward, backward and update with operands of ``format`` (docs/design/accelerator.md)."""

    format: FormatName

    def begin(self, graph: Graph, held: Mapping[str, Single], pixels: Single) -> Begun:
        """Begin a step, or do a forward pass, with parameters and buffers by name and a batch, float32 of any shape."""
        return Begun(graph, held, pixels, self.format)

    def update(
        self, rule: UpdateRule, settings: Mapping[str, float], master: Single, gradient: Half, state: tuple[Single, ...]
    ) -> tuple[Single, ...]:
        """The new weight and state of a parameter, float32 of any shape, as WUVE makes them of an operand."""
        kind = SETTINGS[rule.name]
        known: dict[str, Any] = {name: value for name, value in settings.items() if name in kind.__dataclass_fields__}
        if settings.get("weight_decay") and "weight_decay" not in known:
            raise InputError(f"rule {rule.name!r} has no weight decay, but {settings['weight_decay']:g} is asked for")
        return updated(kind(**known), master, gradient, state)


class Begun:
    """A step whose forward pass is done."""

    def __init__(self, graph: Graph, held: Mapping[str, Single], pixels: Single, format: FormatName) -> None:
        self._run = Execution(graph, held, pixels, format)
        self.scores: Single = self._run.forward().astype(np.float32)
        """float32 [batch, classes]."""

    def gradients(self, gradient: Single) -> tuple[dict[str, Half], dict[str, Single]]:
        """Of the gradient of the scores, float32 of their shape: the gradients of the parameters, operands, and what
        buffers become, float32 of any shape."""
        return self._run.backward(gradient)


def updated(settings: UpdateSettings, master: Single, gradient: Half, state: tuple[Single, ...]) -> tuple[Single, ...]:
    """What `engines.run_wuve` makes of ``master`` and ``state``, float32 of any shape, without its cycles.

    ``gradient`` is an operand of that shape, of FP8 in E5M2.
    """
    return applied(settings.rule, (gradient, master, *state), np.array(settings.constants, np.float32))


def applied(rule: UpdateRule, entering: Iterable[Any], constants: Single) -> tuple[Single, ...]:
    """What ``rule`` makes of what enters it, a gradient, operand or widened, and float32 of any shape, with its
    ``constants`` float32 [constants] in its order."""
    with np.errstate(all="ignore"):
        known = dict(zip((*rule.enters, *rule.constants), (*entering, *constants), strict=True))
        for operation in rule.operations:
            known[operation.name] = _done(operation, [known[name] for name in operation.operands])
    return tuple(canonical(known[name]) for name in rule.leaves)


def _done(operation: Operation, x: list[Single]) -> Single:
    """Each rounded once to FP32, as NumPy does."""
    match operation.unit:
        case Unit.WIDEN:
            return x[0].astype(np.float32)
        case Unit.MULTIPLY:
            return x[0] * x[-1]
        case Unit.ADD:
            return x[0] + x[-1]
        case Unit.SUBTRACT:
            return x[0] - x[-1]
        case Unit.ROOT:
            return np.sqrt(x[0])
        case Unit.DIVIDE:
            return x[0] / x[-1]
        case Unit.NARROW:
            return x[0]
    assert_never(operation.unit)
