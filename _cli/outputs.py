"""Where results go: stdout as JSON, and files in places that are known to be writable before the long work."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..workloads.errors import InputError

__all__ = ["print_json", "require_writable_file", "require_writable_folder", "write_files"]


_ROOM = 4096
"""Bytes: more than a full disk has."""


def print_json(document: dict[str, Any] | list[dict[str, Any]]) -> None:
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")


def require_writable_file(path: Path, option: str = "-o") -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; {option} takes the file to write")
    if path.is_symlink():
        raise InputError(f"{path}: is a link, which would be replaced; give {os.path.realpath(path)} itself")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file; {option} takes the file to write")
    _require_room(path, path.absolute().parent)


def require_writable_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; -o takes the folder to write to")
    _require_room(path, path.absolute())


def _require_room(path: Path, folder: Path) -> None:
    """Refuse a ``path`` where a file cannot be written in ``folder``, or in what there is of it, by writing one."""
    held = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not held.is_dir():
        raise InputError(f"{path}: cannot be written: {held} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=held) as file:
            file.write(bytes(_ROOM))
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{path}: cannot be written: {why[:1].lower()}{why[1:]} at {held}") from None


def write_files(folder: Path, kind: str, files: dict[str, str]) -> None:
    """Write all of ``files``, text by name, in the place of those of the same ``kind``."""
    from ..analysis.publish import publish

    publish(folder, kind, {name: text.encode() for name, text in files.items()})
