"""The engines of a machine: which there are, and what asks all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import assert_never

from ..workloads.errors import InputError
from ..workloads.step import MatrixOp
from .accelerator import AcceleratorSpec, EngineSpec
from .constraint import Constraint
from .engine import Engine
from .gather.engine import Gather
from .gather.spec import GatherSpec
from .macro_tiles import Tiled
from .mapping import Mapping
from .objective import Objective
from .outside import OutsideMapping
from .placement import Placement
from .prices import Pricing, unpriced
from .stce.engine import Stce
from .stce.spec import StceSpec
from .xnor.engine import Xnor
from .xnor.spec import XnorSpec

__all__ = [
    "engine_of",
    "engines_of",
    "evaluate",
    "ours_alone",
    "outside_engines",
    "peak_of",
    "place",
    "placed_on",
    "register_engine",
    "tiled",
]

Make = Callable[[AcceleratorSpec], Engine | None]

_OUTSIDE: dict[str, Make] = {}
"""Engines of others, by name."""


@lru_cache(maxsize=1024)
def engines_of(spec: AcceleratorSpec) -> tuple[Engine, ...]:
    """The engines of a machine, in the order of its description; those of others after its own."""
    made = (make(spec) for make in _OUTSIDE.values())
    return (*(_engine(own, spec) for own in spec.engines), *(engine for engine in made if engine is not None))


def ours_alone(spec: AcceleratorSpec) -> bool:
    """Whether a machine has no engine of others; none of its own is made for it."""
    return all(make(spec) is None for make in _OUTSIDE.values())


def outside_engines() -> bool:
    """Whether there are engines of others."""
    return bool(_OUTSIDE)


def register_engine(name: str, make: Make) -> None:
    """Let machines have an engine called ``name``, in this process: ``make`` gives that of a machine, None if it has
    none."""
    if name in _OUTSIDE:
        raise InputError(f"engine {name!r} exists already; choose another name")
    _OUTSIDE[name] = make
    engines_of.cache_clear()


def peak_of(spec: AcceleratorSpec) -> int:
    """Multiply-accumulates a cycle of all engines of a machine."""
    return sum(engine.peak for engine in engines_of(spec))


def _engine(own: EngineSpec, spec: AcceleratorSpec) -> Engine:
    match own:
        case StceSpec():
            return Stce(spec, own)
        case XnorSpec():
            return Xnor(spec, own)
        case GatherSpec():
            return Gather(spec, own)
        case _:
            assert_never(own)


def place(
    op: MatrixOp,
    spec: AcceleratorSpec,
    objective: Objective,
    pricing: Pricing = unpriced,
    wanted: Constraint | None = None,
) -> Placement:
    """The best placement of ``op`` on any engine of ``spec`` that can run it; of equals that of the first engine."""
    found, refused = list[Placement](), list[InputError]()
    for engine in engines_of(spec):
        if engine.takes(op):
            try:
                found.append(engine.place(op, objective, pricing, wanted))
            except InputError as error:
                refused.append(error)
    if found:
        return min(found, key=lambda placement: placement.cost(objective))
    if refused:
        raise refused[0]
    raise InputError(f"no engine of {spec.name!r} takes {op.name!r} ({op.gemm}, {op.sparse or 'dense'})")


def evaluate(op: MatrixOp, spec: AcceleratorSpec, mapping: Mapping, pricing: Pricing = unpriced) -> Placement:
    """Cost of ``op`` under ``mapping`` on the first engine that the mapping is of."""
    return engine_of(mapping, spec).evaluate(op, mapping, pricing)


def tiled(op: MatrixOp, spec: AcceleratorSpec, mapping: Mapping) -> Tiled:
    """The macro-tiles of a placed product, on the first engine that its mapping is of."""
    return engine_of(mapping, spec).tiled(op, mapping)


def placed_on(placement: Placement, spec: AcceleratorSpec) -> Engine:
    """The engine of ``spec`` that a placement names."""
    for engine in engines_of(spec):
        if engine.name == placement.engine:
            return engine
    names = ", ".join(engine.name for engine in engines_of(spec))
    raise InputError(f"a placement is on the engine {placement.engine!r}, which {spec.name!r} does not have ({names})")


def engine_of(mapping: Mapping, spec: AcceleratorSpec) -> Engine:
    """The first engine that a mapping is of."""
    array = mapping.array
    for engine in engines_of(spec):
        if engine.kind == array.kind and (not isinstance(array, OutsideMapping) or engine.name == array.engine):
            return engine
    raise InputError(f"{spec.name!r} has no engine of kind {array.kind!r}, which the mapping is for")
