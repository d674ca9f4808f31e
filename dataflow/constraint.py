"""Mappings that users fix or restrict: rules by layer, from a TOML file, and what they leave of the search's space."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, assert_never

import numpy as np

from ..workloads.errors import InputError, nearest, require_choice, require_int
from ..workloads.gemm import GEMM_PASSES, MAX_DIM, Pass
from ..workloads.groups import Groups
from ..workloads.operand import NMOperand
from ..workloads.schemes.annotate import layer_names
from ..workloads.sparsity import MAX_GROUP, NMPattern
from ..workloads.step import MatrixOp, Workload
from ..workloads.strict import read_text, read_toml
from ..workloads.unstructured import Unstructured
from .accelerator import AcceleratorSpec, ArrayKind
from .mapping import COMPACT, Compact, EngineMapping, Mapping
from .problem import Problem
from .stce.dataflows import NUMBER
from .stce.mapping import DENSE, ArrayMapping, Dataflow, holds_pairs
from .stce.space import FORMS, FREE_SPACE, Only
from .stce.spec import MAX_ACCUMULATORS, StceSpec
from .xnor.mapping import XnorMapping
from .xnor.spec import XnorSpec

__all__ = ["ALL", "Constraint", "Extent", "MappingFile", "MappingRule", "mapping_file", "parse_mapping", "refusal"]

_ALIASED = {"extra": "forbid", "alias_generator": lambda name: name.rstrip("_")}
ALL: Literal["all"] = "all"
"""A macro-tile that takes all rows or columns of its product."""
Extent = int | Literal["all"]
_MOST = {"interleave": MAX_ACCUMULATORS, "pairs": MAX_GROUP, "tile_rows": MAX_DIM, "tile_cols": MAX_DIM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What a mapping must be; fields as in `Mapping`, a value or those that are allowed; None: whatever is best.

    ``pairs``: those that a PE holds of a dense operand in WS. Tiles are as the array sees them, so with ``n2s = "a"``
    rows are columns of C; ``"all"`` is all there are.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    dataflow: Dataflow | None = None
    interleave: int | tuple[int, ...] | None = None
    pairs: int | tuple[int, ...] | None = None
    n2s: Literal["a", "b"] | None = None
    tile_rows: Extent | tuple[Extent, ...] | None = None
    tile_cols: Extent | tuple[Extent, ...] | None = None
    resident: bool | None = None
    order: Literal["mn", "nm"] | None = None
    compact: Compact | None = None

    def __post_init__(self) -> None:
        if self.dataflow is not None:
            found = require_choice("dataflow of a mapping rule", self.dataflow, tuple(Dataflow))
            object.__setattr__(self, "dataflow", Dataflow(found))
        for name, most in _MOST.items():
            if getattr(self, name) == ():
                raise InputError(f"{name} of a mapping rule allows no value: name one, or leave it out")
            for value in _listed(getattr(self, name)):
                if value != ALL:
                    require_int(f"{name} of a mapping rule", value, 1, most)
        if not any(self.allowed_forms(online=True)):
            raise InputError(
                "a mapping rule asks for compact = 'buffer', which needs resident = false and order = 'nm': the copy "
                "stays while the other operand streams past it"
            )

    @property
    def given(self) -> dict[str, Any]:
        """What it asks for, by field."""
        return {f.name: value for f in fields(Constraint) if (value := getattr(self, f.name)) is not None}

    def allowed_forms(self, *, online: bool) -> list[bool]:
        """Of each of `search.FORMS` whether it may be; ``online``: SORE reduces an operand on the way in."""
        wanted = (self.resident, None if self.order is None else self.order == "mn")
        return [
            all(ask is None or ask == bool(have) for ask, have in zip(wanted, (resident, rows_slow), strict=True))
            and self.compact in (None, COMPACT[compact])
            and (online or COMPACT[compact] == "remade")
            for resident, rows_slow, compact in FORMS
        ]

    def only(self, p: Problem) -> Only | None:
        """What it leaves of the space of ``p``; None if that is nothing."""
        rows, cols = _extents(self.tile_rows, p.rows), _extents(self.tile_cols, p.cols)
        formed = self.resident is not None or self.order is not None or self.compact is not None
        forms = sum(ok << i for i, ok in enumerate(self.allowed_forms(online=bool(p.online)))) if formed else -1
        if rows == [] or cols == [] or not forms:
            return None
        dataflows = FREE_SPACE.dataflows if self.dataflow is None else 1 << NUMBER[self.dataflow]
        lists = (_listed(self.interleave), _listed(self.pairs), rows or (), cols or ())
        interleaves, pairs, high, wide = (np.array(sorted(set(values)), np.int64) for values in lists)
        return Only(dataflows, interleaves, pairs, high, wide, forms)

    def __str__(self) -> str:
        return ", ".join(f"{name} = {_shown(value)}" for name, value in self.given.items())


def _listed(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _shown(value: Any) -> str:
    return " or ".join(str(v).lower() if isinstance(v, bool) else str(v) for v in _listed(value))


def _extents(asked: Extent | tuple[Extent, ...] | None, size: int) -> list[int] | None:
    """Those asked for that a product of ``size`` rows or columns can have; None where none is asked for."""
    if asked is None:
        return None
    return [size if extent == ALL else int(extent) for extent in _listed(asked) if extent == ALL or extent <= size]


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingRule(Constraint):
    """A constraint of the ops whose path, layer or weight matches ``layers`` (shell wildcards), in a pass or in all."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _ALIASED

    layers: str = "*"
    pass_: Pass | None = None

    def __post_init__(self) -> None:
        # A dataclass with slots is another class than the one that zero-argument super() means.
        Constraint.__post_init__(self)
        if self.pass_ is not None and self.pass_ not in GEMM_PASSES:
            raise InputError(f"pass of a mapping rule must be FF, BP or WU, not {self.pass_}")
        if not self.given:
            raise InputError(
                f"a mapping rule for {self.layers!r} asks for nothing: give it one of "
                f"{', '.join(f.name for f in fields(Constraint))}"
            )

    def matches(self, op: MatrixOp, names: Iterable[str]) -> bool:
        """Whether it is for ``op``, which goes by these names."""
        return self.pass_ in (None, op.pass_) and any(fnmatchcase(name, self.layers) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """The file: ``[[op]]`` tables."""

    __pydantic_config__ = {"extra": "forbid"}

    op: tuple[MappingRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFile:
    """Rules, with the text that they were read from and its place."""

    source: str
    text: str
    rules: tuple[MappingRule, ...]

    def constraints(self, workload: Workload) -> list[Constraint | None]:
        """For each op of ``workload`` what the rules ask of it: of those that match it the last one that gives a field
        holds for that field. A rule that matches no op is refused."""
        layers = layer_names(workload)
        used: set[int] = set()
        found: list[Constraint | None] = []
        for op in workload.ops:
            given: dict[str, Any] = {}
            if isinstance(op, MatrixOp):
                names = dict.fromkeys((op.name, *layers.get(op.parameter or "", ())))
                for i, rule in enumerate(self.rules):
                    if rule.matches(op, names):
                        used.add(i)
                        given |= rule.given
            found.append(self._merged(op.name, given) if given else None)
        for i, rule in enumerate(self.rules):
            if i not in used:
                raise InputError(f"{self.source}: op.{i}: {_unmatched(rule, workload, layers)}")
        return found

    def _merged(self, name: str, given: dict[str, Any]) -> Constraint:
        try:
            return Constraint(**given)
        except InputError as error:
            raise InputError(f"{self.source}: the rules for {name!r} contradict each other: {error}") from None


def _unmatched(rule: MappingRule, workload: Workload, layers: dict[str, tuple[str, ...]]) -> str:
    names = {name for op in workload.matrix_ops for name in (op.name, *layers.get(op.parameter or "", ()))}
    if any(fnmatchcase(name, rule.layers) for name in names):
        return f"layers = {rule.layers!r} has no product in {rule.pass_}; leave out pass, or name another one"
    # A weight goes by its layer's name too.
    layer = {name for name in names if name.rpartition(".")[0] not in names}
    return f"layers = {rule.layers!r} matches no product: {nearest(rule.layers, layer)}"


def mapping_file(path: str | Path) -> MappingFile:
    """Rules of a TOML file."""
    return parse_mapping(read_text(Path(path)), str(path))


def parse_mapping(text: str, source: str) -> MappingFile:
    """Rules of TOML text; ``source`` names it in errors."""
    rules = read_toml(_Rules, text, source).op
    if not rules:
        raise InputError(f"{source}: holds no rule; a rule is a table [[op]]")
    return MappingFile(source=source, text=text, rules=rules)


Fits = Callable[[Constraint], "Mapping | None"]


def refusal(op: MatrixOp, own: ArrayKind, spec: AcceleratorSpec, wanted: Constraint, online: bool, fits: Fits) -> str:
    """Why no mapping of ``op`` on ``own`` is as wanted, and what would be the nearest that is; ``fits`` searches."""
    near = next(_nearest(op, own, wanted, fits), None)
    free = None if near else fits(Constraint())
    advice = f"possible with {near}" if near else f"left free, the search takes {_words(free)}" if free else ""
    reason = _reason(op, own, spec, wanted, online)
    return f"{op.name!r} in {op.pass_} cannot have {wanted}: {reason}" + (f"; {advice}" if advice else "")


def _reason(op: MatrixOp, own: ArrayKind, spec: AcceleratorSpec, wanted: Constraint, online: bool) -> str:
    sparse = op.sparse
    if sparse is not None and wanted.n2s not in (None, sparse.operand):
        return f"its operand {sparse.operand} is {sparse} and flows N2S"
    if not any(wanted.allowed_forms(online=online)):
        return "SORE reduces no operand of it, so there is no compact copy to keep"
    refused = None
    for make in _arrays(op, own, wanted):
        try:
            array = make()
            array.check(spec)
            break
        except InputError as error:
            refused = error
    else:
        return str(refused) if refused else "no array mapping is left"
    for name in ("tile_rows", "tile_cols"):
        asked = [extent for extent in _listed(getattr(wanted, name)) if extent != ALL]
        if asked and ALL not in _listed(getattr(wanted, name)) and min(asked) > max(op.gemm.m, op.gemm.n):
            return f"{name} = {min(asked)} is more than the product {op.gemm} has"
    return f"no such macro-tile of {op.gemm} fits its sizes and the buffers of {spec.name!r}"


def _arrays(op: MatrixOp, own: ArrayKind, wanted: Constraint) -> Iterator[Callable[[], EngineMapping]]:
    """Mappings of ``own`` as wanted; making one may refuse it."""
    for dataflow in Dataflow if wanted.dataflow is None else (wanted.dataflow,):
        patterns: Iterable[NMPattern] = (DENSE,)
        match op.sparse:
            case None | Groups(expanded=True):
                if holds_pairs(dataflow):
                    patterns = (NMPattern(keep=d, group=d) for d in _listed(wanted.pairs) or (1,))
            case NMOperand(pattern=pattern):
                patterns = (pattern,)
            case Unstructured() | Groups():
                return
            case _:
                assert_never(op.sparse)
        for pattern in patterns:
            for interleave in _listed(wanted.interleave) or (1,):
                match own:
                    case StceSpec():
                        yield partial(ArrayMapping, dataflow=dataflow, pattern=pattern, interleave=interleave)
                    case XnorSpec():
                        yield partial(XnorMapping, dataflow=dataflow, group=pattern.group, interleave=interleave)
                    case _:
                        assert_never(own)


def _nearest(op: MatrixOp, own: ArrayKind, wanted: Constraint, fits: Fits) -> Iterator[str]:
    """Single fields that, changed to the nearest value possible, let the others stand."""
    sizes = sorted({s for i in range(20) for s in (2**i, 3 * 2**i) if s < max(op.gemm.m, op.gemm.n)})
    match own:
        case StceSpec(pe=pe):
            most, held = pe.accumulators, pe.weight_pairs
        case XnorSpec():
            most, held = own.accumulators, own.weight_words
        case _:
            assert_never(own)
    choices: dict[str, list[Any]] = {
        "interleave": list(range(1, most + 1)),
        "pairs": list(range(1, held + 1)),
        "n2s": ["a", "b"],
        "compact": list(COMPACT),
        "tile_rows": [*sizes, ALL],
        "tile_cols": [*sizes, ALL],
        "resident": [True, False],
        "order": ["mn", "nm"],
        "dataflow": list(Dataflow),
    }
    for name, values in choices.items():
        if name not in wanted.given:
            continue
        asked = [v for v in _listed(wanted.given[name]) if isinstance(v, int)]
        by_distance = sorted(values, key=lambda v: min((abs(v - a) for a in asked), default=0) if v != ALL else MAX_DIM)
        for value in by_distance if asked else values:
            try:
                changed = replace(wanted, **{name: value})
            except InputError:
                continue
            if fits(changed) is not None:
                yield f"{name} = {_shown(value)}"
                break


def _words(mapping: Mapping) -> str:
    m = mapping
    return str(
        Constraint(
            dataflow=m.array.dataflow,
            interleave=m.array.interleave,
            n2s=m.n2s,
            tile_rows=m.tile_rows,
            tile_cols=m.tile_cols,
            resident=m.resident,
            order=m.order,
            compact=m.compact,
        )
    )
