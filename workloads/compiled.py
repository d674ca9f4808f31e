"""How kernels are compiled, and where Numba keeps them."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from .errors import InputError
from .files import cache_folder, is_private, sources_digest

__all__ = ["compiled", "full_disk", "sources_digest", "use_private_cache"]

F = TypeVar("F", bound=Callable[..., Any])

_BESIDE = [Path(__file__).parents[1] / name for name in ("dataflow", "simulator/kernels", "workloads/schemes")]
"""Folders with kernels."""


def compiled(function: F, stamp: str, **options: Any) -> F:
    """``function`` by Numba, kept on disk as long as ``stamp`` stays, the `sources_digest` of its folder."""
    use_private_cache()
    made = numba.njit(cache=True, nogil=True, **options)(function)
    # Numba's cache watches only the file of the function itself; a change of a callee in another file would go on using
    # the old code, that is, give wrong numbers. Absent when NUMBA_DISABLE_JIT is set.
    if hasattr(made, "_cache"):
        held = made._cache._cache_file
        held._source_stamp = stamp
        # The index is written before the data that it names: a process that is killed between the two, or reads there,
        # must not find data of an older source under that name.
        held._data_name_pattern = held._data_name_pattern.replace(".{number", f".{stamp[:12]}.{{number")
    return cast(F, made)


@cache
def use_private_cache() -> None:
    """See to it that no kernel is loaded that another user can have put there; call it before one is made."""
    numba.config.CACHE_DIR = _choose()


def _choose() -> str:
    """Numba's ``CACHE_DIR``; "" leaves each kernel beside its source.

    A kept kernel is a pickle, so loading one runs what it says: it must lie where nobody else can put one. Beside a
    source that we may not write to Numba would take a folder of the user's that another may have made.
    """
    named = str(numba.config.CACHE_DIR)
    if not named:
        kept = [folder / "__pycache__" for folder in _BESIDE]
        places = [(place if place.exists() else place.parent) for place in kept]
        if all(is_private(place) and _takes_files(place) for place in places):
            return ""
        folder = cache_folder("numba")
        if not _takes_files(folder):
            raise InputError(f"{folder}: cannot be written; let WEFT_CACHE name another folder")
        return str(folder)
    try:
        Path(named).mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(f"NUMBA_CACHE_DIR: {named} cannot be made: {error.strerror}; leave it out") from None
    if not is_private(Path(named).resolve()):
        raise InputError(
            f"NUMBA_CACHE_DIR: {named} is not ours alone, so kernels there are not loaded; `chmod go-w` it if it is "
            "yours, or leave it out"
        )
    return named


def _takes_files(folder: Path) -> bool:
    """As Numba tries it; where it cannot it looks elsewhere."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def full_disk(error: OSError) -> InputError | None:
    """What to say if ``error`` came up while a kernel was kept, where Numba names neither the file nor a way out."""
    caching = Path("numba") / "core" / "caching.py"
    if not any(Path(frame.filename).match(str(caching)) for frame in traceback.extract_tb(error.__traceback__)):
        return None
    named = str(numba.config.CACHE_DIR)
    place, variable = named or "beside their sources", "NUMBA_CACHE_DIR" if _is_users(named) else "WEFT_CACHE"
    return InputError(f"kernels cannot be kept in {place}: {error.strerror}; let {variable} name another folder")


def _is_users(named: str) -> bool:
    return not named or named == os.environ.get("NUMBA_CACHE_DIR")
