"""What a search under the objectives energy and EDP pays for."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FREE", "Prices"]


class Prices(NamedTuple):
    """Picojoules of the actions that a mapping changes, and ``fixed`` for those it does not."""

    dram_byte: float
    buffer_byte: float
    w2e_word: float
    n2s_pair: float
    output_word: float
    sore_group: float
    fixed: float


FREE = Prices(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""For the objectives that ask for no energy."""
