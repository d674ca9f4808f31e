"""What a search under the objectives energy and EDP pays for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..workloads.step import MatrixOp
from .accelerator import EngineKind

__all__ = ["FREE", "Prices", "Pricing", "unpriced"]


class Prices(NamedTuple):
    """Picojoules of the actions that a mapping changes, ``fixed`` for those it does not, and ``cycle`` of every cycle
    that it takes: what the machine draws whatever it does."""

    dram_byte: float
    buffer_byte: float
    w2e_word: float
    n2s_pair: float
    output_word: float
    sore_group: float
    fixed: float
    cycle: float = 0.0


FREE = Prices(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""For the objectives that ask for no energy."""

Pricing = Callable[[MatrixOp, EngineKind, str], Prices]
"""(op, kind of engine, operand that flows N2S): what an engine pays for the actions of the op."""


def unpriced(op: MatrixOp, kind: EngineKind, n2s: str) -> Prices:
    """Nothing costs anything."""
    return FREE
