"""Machines from TOML: the presets that ship, and anybody's file."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from ..workloads.errors import InputError, nearest
from ..workloads.strict import dump_json, read
from .accelerator import AcceleratorSpec

__all__ = ["load_spec", "parse_spec", "preset_names", "preset_text", "spec_hash"]


@cache
def preset_names() -> tuple[str, ...]:
    """Machines that ship."""
    folder = resources.files(__package__) / "presets"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def preset_text(name: str) -> str:
    """TOML of a preset, with its comments."""
    if name not in preset_names():
        raise InputError(f"machine {name!r} is neither a preset nor a .toml file: {nearest(name, preset_names())}")
    return (resources.files(__package__) / "presets" / f"{name}.toml").read_text(encoding="utf-8")


def load_spec(name: str | Path) -> AcceleratorSpec:
    """Machine of a preset name or of a path that ends in ``.toml``."""
    path = Path(name)
    if path.suffix != ".toml":
        return parse_spec(preset_text(str(name)), f"{name}.toml")
    try:
        return parse_spec(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None


def parse_spec(text: str, source: str) -> AcceleratorSpec:
    """Machine of TOML text; ``source`` names it in errors."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source}: is not valid TOML: {error}") from None
    return read(AcceleratorSpec, table, source, _keys)


def _keys(place: str) -> list[str]:
    """Valid keys of the table at a dotted path."""
    kind: Any = AcceleratorSpec
    for part in filter(None, place.split(".")):
        kind = get_type_hints(kind).get(part)
        if not is_dataclass(kind):
            return []
    return [f.name for f in fields(kind)]


def spec_hash(spec: AcceleratorSpec) -> str:
    """Twelve hexadecimal digits that change with any choice of the machine."""
    return hashlib.sha256(dump_json(AcceleratorSpec, spec)).hexdigest()[:12]
