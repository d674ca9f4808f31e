"""The binary weights that a training ends with, as machines for inference take them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..gemm import Pass
from ..levels import Levels
from ..one_line import OneLine
from ..operand import Role
from .model import step_workload
from .spec import TrainResult

__all__ = ["BinaryLayer", "binary_layers"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class BinaryLayer(OneLine):
    """Weights of +1, bool [groups, outputs of one, inputs of one x taps], and the rows of its product in an image."""

    weights: npt.NDArray[np.bool_]
    positions: int


def binary_layers(result: TrainResult) -> dict[str, BinaryLayer]:
    """The layers of a finished training whose weights are binary, by module path; `InputError` if its scheme has
    none."""
    technique, spec = result.technique, result.spec
    if technique.scheme.levels.get(Pass.FF, {}).get(Role.WEIGHT) != Levels.BINARY:
        raise InputError(f"scheme {spec.scheme!r} does not train binary weights")
    step = step_workload(spec)
    rows = {op.parameter: op.gemm.m for op in step.matrix_ops if op.pass_ is Pass.FF}
    found = {}
    for name, layer in technique.layers.items():
        signs = layer.canonical(layer.operand(Pass.FF)).flatten(2).cpu().numpy() > 0
        found[name] = BinaryLayer(weights=signs, positions=rows[f"{name}.weight"] // spec.batch)
    return found
