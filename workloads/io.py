"""Workload files: versioned JSON that round-trips exactly and loads no code."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .errors import InputError
from .step import Workload
from .strict import dump_json, read_file, read_json

__all__ = ["dumps_workload", "load_workload", "loads_workload", "save_workload", "write_atomically"]


def dumps_workload(workload: Workload) -> bytes:
    """JSON of a workload; equal workloads give equal bytes."""
    # Older versions know no such keys and refuse what they do not know.
    unused = {key: True for key in ("frozen", "measured") if not getattr(workload, key)}
    return dump_json(Workload, workload, unused or None)


def loads_workload(text: str | bytes, source: str = "workload") -> Workload:
    """Workload of JSON text; ``source`` names it in errors."""
    return read_json(Workload, text, source)


def save_workload(workload: Workload, path: Path) -> None:
    """Write a workload file, whole or not at all."""
    write_atomically(path, dumps_workload(workload))


def load_workload(path: Path) -> Workload:
    """Read a workload file; a file that breaks a rule is refused with the place and the rule."""
    return loads_workload(read_file(path), str(path))


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that an interruption leaves the old file or the new one, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
