"""Where results go: stdout as JSON, and files in places that are known to be writable before the long work."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ..workloads.errors import InputError

__all__ = ["print_json", "require_writable_file", "require_writable_folder", "write_files"]


def print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")


def require_writable_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; -o takes the file to write")
    _require_access(path)


def require_writable_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; -o takes the folder to write to")
    _require_access(path)


def _require_access(path: Path) -> None:
    held = next((parent for parent in (path, *path.absolute().parents) if parent.exists()), Path("/"))
    if not (held.is_dir() or held == path):
        raise InputError(f"{path}: cannot be written: {held} is not a folder")
    if not os.access(held, os.W_OK):
        raise InputError(f"{path}: cannot be written: permission denied at {held}")


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write all of ``files``, text by name, or none where one of them cannot be."""
    from ..workloads.io import write_atomically

    for name in files:
        require_writable_file(folder / name)
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
