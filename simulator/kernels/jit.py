"""The one way kernels of the simulator are compiled: cached on disk until a source of this folder changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...workloads.compiled import compiled, sources_digest

__all__ = ["bare", "bare_inlined", "exact", "inlined", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])

_STAMP = sources_digest(Path(__file__).parent)


def kernel(function: F, **options: Any) -> F:
    """Compile a kernel; the folder's others may be called, wherever they stand."""
    return compiled(function, _STAMP, **options)


inlined = partial(kernel, forceinline=True)
"""A kernel that becomes part of those that call it: a call would pass every array in seven words."""

exact = partial(kernel, error_model="numpy")
"""A kernel whose divisions are those of IEEE 754: by zero an infinity, no error."""

bare = partial(kernel, error_model="numpy", _nrt=False)
"""Without reference counts on the arrays, which it neither allocates nor keeps: where they cost more than its work."""

bare_inlined = partial(bare, forceinline=True)
