"""Integer arithmetic that kernels and plain Python share."""

from __future__ import annotations

from .jit import helper

__all__ = ["ceil_div"]


@helper
def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)
