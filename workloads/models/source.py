"""What a model must bring along to be traced: how to build it, its inputs for a batch, and a scalar loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Generation", "ModelSource", "StepInputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """Arguments of one forward call on meta tensors, the batch size they carry, and what to print of their shape."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    batch: int
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How a model writes text. ``inputs(model, batch, past, tokens)``: those of a step of so many tokens a sample
    behind ``past`` others, whose keys and values it finds in ``past_key_values``. ``longest``: tokens that it can have
    in all, None where nothing says."""

    inputs: Callable[[nn.Module, int, int, int], StepInputs]
    longest: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model that can be traced.

    ``build`` and ``inputs`` are called under ``torch.device("meta")``, inputs first; ``inputs(batch, seq)`` gets the
    requested batch and sequence length, ``None`` where the user gave none. ``loss(output, inputs)`` makes the scalar
    that is differentiated. ``dtype``: to which parameters and inputs are cast; None leaves them as they are.
    ``generation``: None of a model that keeps no keys and values.
    """

    name: str
    title: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int | None, int | None], StepInputs]
    loss: Callable[[Any, StepInputs], Tensor]
    dtype: torch.dtype | None = None
    generation: Generation | None = None
