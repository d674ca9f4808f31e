"""Points as machines and steps: specs of many points by shared parts, steps of each kind once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...dataflow.accelerator import AcceleratorSpec
from ...workloads.catalog import open_model
from ...workloads.errors import InputError
from ...workloads.schemes.annotate import annotate
from ...workloads.schemes.policies import patterns_of
from ...workloads.schemes.scheme import scheme as scheme_of
from ...workloads.step import Workload
from ...workloads.strict import read_file
from ...workloads.user_code import is_user
from .axes import WORK
from .space import Space, Value

__all__ = ["Machines", "Work", "model_digest", "step_at", "traced", "work_at"]


class Work(NamedTuple):
    """What a point works on. ``digest``: of the model's file, so that a changed one is another model; ``nm``: "" where
    the scheme takes none."""

    model: str
    digest: str
    seq: int | None
    batch: int | None
    scheme: str
    nm: str


def model_digest(model: str) -> str:
    """Of a model that is a file; what is built in goes by its name and the sources."""
    path = Path(model.rpartition(":")[0] if is_user(model) else model)
    return hashlib.sha256(read_file(path)).hexdigest() if path.is_file() else ""


class Machines:
    """Makes machines of base machines and fields by path, with every table of the same values made once."""

    def __init__(self, bases: Mapping[str, AcceleratorSpec], names: tuple[str, ...]) -> None:
        self._bases = bases
        self._own: list[str] = []
        self._tables: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            if name in WORK:
                continue
            table, dot, leaf = name.partition(".")
            if dot:
                self._tables.setdefault(table, []).append((name, leaf))
            else:
                self._own.append(name)
        self._made: dict[tuple[object, ...], Any] = {}

    def at(self, arch: str, values: Mapping[str, Value]) -> AcceleratorSpec:
        """The machine of ``arch`` with ``values`` by path; InputError where that is none."""
        base, changed = self._bases[arch], dict[str, Any]()
        for table, leaves in self._tables.items():
            key = (arch, table, *(values[name] for name, _ in leaves))
            made = self._made.get(key)
            if made is None:
                made = self._table(base, table, {leaf: values[name] for name, leaf in leaves})
                self._made[key] = made
            if isinstance(made, str):
                raise InputError(made)
            changed[table] = made
        changed |= {name: values[name] for name in self._own}
        return replace(base, **changed)

    def _table(self, base: AcceleratorSpec, table: str, values: dict[str, Value]) -> Any:
        """The table, or why there is none."""
        own = getattr(base, table)
        if own is None:
            return f"machine {base.name!r} has no [{table}]"
        try:
            return _nested(own, values)
        except InputError as error:
            return str(error)


def _nested(own: Any, values: dict[str, Value]) -> Any:
    """``own`` with fields replaced, also those of tables inside it."""
    plain = {leaf: value for leaf, value in values.items() if "." not in leaf}
    inner: dict[str, dict[str, Value]] = {}
    for leaf, value in values.items():
        table, dot, rest = leaf.partition(".")
        if dot:
            inner.setdefault(table, {})[rest] = value
    known = {f.name for f in fields(own)}
    missing = next((name for name in (*plain, *inner) if name not in known), None)
    if missing is not None:
        raise InputError(f"there is no field {missing!r} here")
    made = {name: _nested(getattr(own, name), of) for name, of in inner.items() if is_dataclass(getattr(own, name))}
    return replace(own, **plain, **made)


def work_at(space: Space, digests: Mapping[str, str], values: Mapping[str, Value]) -> Work:
    """What a point works on; ``digests``: by model."""

    def one(name: str) -> Any:
        return values[name] if name in values else getattr(space, name)

    model, name = one("model"), one("scheme")
    nm = one("nm") if scheme_of(name).takes_pattern else ""
    return Work(model, digests[model], one("seq"), one("batch"), name, nm)


def traced(work: Work) -> Workload:
    """The step of it as traced, once in a process; an earlier trace on disk is used."""
    return _traced(work._replace(scheme="", nm=""))


@lru_cache(maxsize=64)
def _traced(work: Work) -> Workload:
    return open_model(work.model, batch=work.batch, seq=work.seq)


@lru_cache(maxsize=64)
def step_at(work: Work) -> Workload:
    """The step of it, annotated once in a process."""
    step = traced(work)
    return annotate(step, work.scheme, patterns_of(work.nm, step) if work.nm else None)
