"""Workload files: versioned JSON that round-trips exactly and loads no code."""

from __future__ import annotations

from pathlib import Path

from .files import write_atomically
from .step import Workload
from .strict import dump_json, read_json, read_text

__all__ = ["dumps_workload", "load_workload", "loads_workload", "save_workload"]


def dumps_workload(workload: Workload) -> bytes:
    """JSON of a workload; equal workloads give equal bytes."""
    # Older versions know no such keys and refuse what they do not know.
    unused = {key: True for key in ("frozen", "measured", "layer_patterns", "assumed") if not getattr(workload, key)}
    return dump_json(Workload, workload, unused or None)


def loads_workload(text: str | bytes, source: str = "workload") -> Workload:
    """Workload of JSON text; ``source`` names it in errors."""
    return read_json(Workload, text, source)


def save_workload(workload: Workload, path: Path) -> None:
    """Write a workload file, whole or not at all."""
    write_atomically(path, dumps_workload(workload))


def load_workload(path: Path) -> Workload:
    """Read a workload file; a file that breaks a rule is refused with the place and the rule."""
    return loads_workload(read_text(path), str(path))
