"""The one way kernels of the cost model are compiled: cached on disk, C division, types kept for the checker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile an integer kernel; no fast-math, no check for division by zero (specs exclude it)."""
    return cast(F, njit(cache=True, error_model="numpy")(function))
