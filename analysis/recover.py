"""What Weft 0.1.0 left beside a results folder when it was killed while it replaced that folder as a whole.

It renamed ``out`` to ``.out.PID.old``, put ``.out.PID.part`` in its place, and moved back what was not its own.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from ..workloads.errors import InputError

__all__ = ["recover"]

_FILES = frozenset(
    (
        "result.json",
        "ops.csv",
        "ops.parquet",
        "energy.csv",
        "workload.json",
        "machine.toml",
        "layers.png",
        "layers-dark.png",
        "roofline.png",
        "roofline-dark.png",
    )
)
"""All that it wrote itself."""


def recover(folder: Path) -> None:
    """Bring back a ``folder`` that was moved away, or the files in it that were; an InputError names what cannot be."""
    place = Path(os.path.realpath(folder))
    for left in sorted(_left(place), key=lambda path: path.stat().st_mtime, reverse=True):
        if left.suffix == ".old" and not os.path.lexists(place):
            left.rename(place)
        else:
            _merge(left, place)


def _left(place: Path) -> list[Path]:
    name = re.compile(rf"\.{re.escape(place.name)}\.(\d+)\.(old|part)")
    if not place.parent.is_dir():
        return []
    found = [(path, match) for path in place.parent.iterdir() if (match := name.fullmatch(path.name))]
    return [path for path, match in found if _is_from_weft(path) and not _runs(int(match[1]))]


def _is_from_weft(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir() or path.stat().st_uid != os.geteuid():
        return False
    if {entry.name for entry in path.iterdir()} <= _FILES:
        return True
    try:
        return path.suffix == ".old" and "weft_version" in json.loads((path / "result.json").read_bytes())
    except (OSError, ValueError, RecursionError, TypeError):
        return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _merge(left: Path, place: Path) -> None:
    """Move what is the user's to ``place``, and remove the rest: ``place`` has it, or it was never finished."""
    theirs = [entry for entry in left.iterdir() if entry.name not in _FILES]
    taken = [entry.name for entry in theirs if os.path.lexists(place / entry.name)]
    if taken:
        raise InputError(
            f"{left}: holds files of yours that an interrupted run moved there, but {place / taken[0]} is there too; "
            "move or delete one of them"
        )
    for entry in theirs:
        entry.rename(place / entry.name)
    for entry in left.iterdir():
        entry.unlink()
    left.rmdir()
