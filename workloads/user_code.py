"""What a Python file of the user's own defines, as ``path/to/file.py:name``."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import InputError, nearest

__all__ = ["importable", "is_user", "user_code", "user_object"]


def is_user(text: str) -> bool:
    """Whether ``text`` is of the form file.py:name, or was meant to be."""
    return ".py:" in text or text.endswith(".py")


def user_object(spec: str, what: str) -> tuple[Path, str, Any]:
    """The file, the name and the callable that ``spec`` names; ``what`` it is meant as, for the messages."""
    file, colon, name = spec.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise InputError(f"{what} {spec!r} is not of the form path/to/file.py:function")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"{file}: no such file")
    return path, name, _find(_load(path), path, name)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let the user's file import its neighbours."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def user_code(where: str, path: Path) -> Iterator[None]:
    """Turn what the user's code raises, also at exit, into an :class:`InputError` with its line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f" at line {lines[-1]}" if lines else ""
        text = "\n".join(str(error).strip().splitlines()[:12])[:1000]
        raise InputError(f"{where}: fails{line}: {type(error).__name__}: {text}") from error


def _load(path: Path) -> ModuleType:
    name = f"_weft_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles of the file look their module up by name.
    sys.modules[name] = module
    with user_code(str(path), path), importable(path.parent):
        spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, path: Path, name: str) -> Any:
    found = getattr(module, name, None)
    if callable(found):
        return found
    own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    advice = nearest(name, own) if own else "the file defines none"
    raise InputError(f"{path}: no function {name!r}: {advice}")
