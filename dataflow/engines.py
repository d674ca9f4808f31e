"""The engines of a machine: which there are, and what asks all of them."""

from __future__ import annotations

from functools import lru_cache
from typing import assert_never

from ..workloads.errors import InputError
from ..workloads.step import MatrixOp
from .accelerator import AcceleratorSpec, EngineSpec
from .constraint import Constraint
from .engine import Engine
from .macro_tiles import Tiled
from .mapping import Mapping
from .objective import Objective
from .placement import Placement
from .prices import Pricing, unpriced
from .stce.engine import Stce
from .stce.spec import StceSpec
from .xnor.engine import Xnor
from .xnor.spec import XnorSpec

__all__ = ["engines_of", "evaluate", "place", "tiled"]


@lru_cache(maxsize=1024)
def engines_of(spec: AcceleratorSpec) -> tuple[Engine, ...]:
    """The engines of a machine, in the order of its description."""
    return tuple(_engine(own, spec) for own in spec.engines)


def _engine(own: EngineSpec, spec: AcceleratorSpec) -> Engine:
    match own:
        case StceSpec():
            return Stce(spec, own)
        case XnorSpec():
            return Xnor(spec, own)
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
    return _of(mapping, spec).evaluate(op, mapping, pricing)


def tiled(op: MatrixOp, spec: AcceleratorSpec, mapping: Mapping) -> Tiled:
    """The macro-tiles of a placed product, on the first engine that its mapping is of."""
    return _of(mapping, spec).tiled(op, mapping)


def _of(mapping: Mapping, spec: AcceleratorSpec) -> Engine:
    for engine in engines_of(spec):
        if engine.kind == mapping.array.kind:
            return engine
    raise InputError(f"{spec.name!r} has no engine of kind {mapping.array.kind!r}, which the mapping is for")
