"""The one way kernels of the cost model are compiled: cached on disk, C division, types kept for the checker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.extending import register_jitable

from ..workloads.compiled import compiled, sources_digest

__all__ = ["bare", "dispatch", "helper", "inlined", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])


_STAMP = sources_digest(Path(__file__).parent)


def kernel(function: F) -> F:
    """Compile an integer kernel; no fast-math, no check for division by zero (specs exclude it)."""
    # Said outright: what is left open is taken over from whichever kernel asks first.
    return _compiled(function, _nrt=True)


def bare(function: F) -> F:
    """A kernel without reference counts on arrays, which it neither makes nor returns nor gets from another: counting
    those of every field of its records takes most of the time of a short one.

    An array that it made would not compile; one that a kernel gave it would never be freed.
    """
    return _compiled(function, _nrt=False)


def inlined(function: F) -> F:
    """A bare kernel that becomes part of those that call it: a call would pass every field of its records by itself."""
    return _compiled(function, _nrt=False, forceinline=True)


def _compiled(function: F, **options: bool) -> F:
    return compiled(function, _STAMP, error_model="numpy", **options)


def dispatch(functions: Sequence[Callable[..., Any]], first: int = 0) -> Callable[..., Any]:
    """``f(number, *arguments)`` for kernels to call: the function of that number, counted from ``first``; a number that
    has none raises IndexError.

    Not cached on disk by itself (a closure's key would hold the identity of its callees), so plain Python calls it
    through a `kernel`.
    """
    own = functions[0]
    if len(functions) > 1:
        rest = dispatch(functions[1:], first + 1)

        def ask(number: int, *arguments: Any) -> Any:
            if number == first:
                return own(*arguments)
            return rest(number, *arguments)
    else:

        def ask(number: int, *arguments: Any) -> Any:
            if number != first:
                raise IndexError("no object has this number")
            return own(*arguments)

    return cast(Callable[..., Any], njit(nogil=True, error_model="numpy", forceinline=True)(ask))


def helper(function: F) -> F:
    """Let kernels call what stays plain Python elsewhere, where integers have no bound."""
    return cast(F, register_jitable(error_model="numpy")(function))
