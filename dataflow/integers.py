"""Integer arithmetic that kernels and plain Python share."""

from __future__ import annotations

from .jit import helper
from .operand import BYTE

__all__ = ["ceil_div", "whole_bytes"]

_SHIFT = BYTE.bit_length() - 1


@helper
def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


@helper
def whole_bytes(bits: int) -> int:
    """Bytes that so many bits take; a shift, since the search asks of every mapping."""
    return (bits + BYTE - 1) >> _SHIFT
