"""Machines from TOML: the presets that ship, and anybody's file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..workloads.errors import InputError, nearest
from ..workloads.strict import dump_json, read_text, read_toml
from .accelerator import AcceleratorSpec
from .operand import FP16

__all__ = ["dumps_spec", "load_spec", "parse_spec", "preset_names", "preset_text", "spec_hash"]


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
    """Machine of a preset name or of a path that ends in ``.toml``.

    Files that it names, a memory as ``dram.kind`` or an energy table as ``technology``, lie beside it.
    """
    path = Path(name)
    if path.suffix != ".toml":
        return parse_spec(preset_text(str(name)), f"{name}.toml")
    return spec_at(path, read_text(path))


def spec_at(path: Path, text: str) -> AcceleratorSpec:
    """Machine of ``text``, which is what ``path`` holds."""
    spec = parse_spec(text, str(path))
    dram = replace(spec.dram, kind=_beside(path, spec.dram.kind))
    return replace(spec, dram=dram, technology=_beside(path, spec.technology))


def _beside(path: Path, name: str) -> str:
    """The whole path of a file that ``path`` names, so that it is found from wherever the machine is read again."""
    return str((path.parent / name).resolve()) if name.endswith(".toml") else name


def parse_spec(text: str, source: str) -> AcceleratorSpec:
    """Machine of TOML text; ``source`` names it in errors."""
    return read_toml(AcceleratorSpec, text, source)


def dumps_spec(spec: AcceleratorSpec) -> str:
    """TOML of a machine, which `parse_spec` reads back as it was; equal machines give equal text."""
    tables = [f.name for f in fields(spec) if is_dataclass(getattr(spec, f.name))]
    parts = [_table(spec), *(f"[{name}]\n{_table(getattr(spec, name))}" for name in tables)]
    return "\n".join(parts)


def _table(of: Any) -> str:
    """Lines of the plain values; what is not given has no line."""
    values = {f.name: getattr(of, f.name) for f in fields(of)}
    return "".join(f"{k} = {_value(v)}\n" for k, v in values.items() if not (v is None or is_dataclass(v)))


def _value(value: str | int | bool) -> str:
    # JSON writes DEL as it is, which TOML forbids.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def spec_hash(spec: AcceleratorSpec) -> str:
    """Twelve hexadecimal digits that change with any choice of the machine that changes a result.

    An FP16 machine is hashed without its format, as it was before there was a second one, and one whose banks answer in
    the next cycle without ``read_latency``: its results keep their name.
    The capacity of DRAM decides whether a step runs, never what it costs.
    """
    without = {"dram": {"capacity_bytes"}}
    if spec.pe.operand is FP16:
        without["pe"] = {"format"}
    if spec.array.read_latency == 1:
        without["array"] = {"read_latency"}
    return hashlib.sha256(dump_json(AcceleratorSpec, spec, without)).hexdigest()[:12]
