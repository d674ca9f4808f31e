"""The one way kernels of the cost model are compiled: cached on disk, C division, types kept for the checker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.extending import register_jitable

from ..workloads.compiled import use_private_cache

__all__ = ["dispatch", "helper", "inlined", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def _stamp() -> str:
    """Digest of every source a kernel may call into."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_STAMP = _stamp()


def kernel(function: F) -> F:
    """Compile an integer kernel; no fast-math, no check for division by zero (specs exclude it)."""
    return _compiled(function)


def inlined(function: F) -> F:
    """A kernel that becomes part of those that call it: a call would pass every field of its records by itself."""
    return _compiled(function, forceinline=True)


def _compiled(function: F, **options: bool) -> F:
    use_private_cache()
    compiled = njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    # Numba's cache watches only the file of the function itself; a change of a callee in another file would go on using
    # the old code, that is, give wrong numbers. Absent when NUMBA_DISABLE_JIT is set.
    if hasattr(compiled, "_cache"):
        held = compiled._cache._cache_file
        held._source_stamp = _STAMP
        # The index is written before the data that it names: a process that is killed between the two, or reads there,
        # must not find data of an older source under that name.
        held._data_name_pattern = held._data_name_pattern.replace(".{number", f".{_STAMP[:12]}.{{number")
    return cast(F, compiled)


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
