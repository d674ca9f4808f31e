"""The machines of many points, struct of arrays: what each field is, which points have the same, which are none.

A description is made once for each combination of values of a table, whose rules look at nothing else, and of a whole
machine for whoever asks: what is refused, and in which words, is what the description itself says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...dataflow.accelerator import AcceleratorSpec
from ...workloads.errors import InputError
from .axes import WORK
from .space import Value

__all__ = ["Fleet", "Machines", "alike"]


class Machines:
    """Makes machines of base machines and fields by path, with every table of the same values made once."""

    def __init__(self, bases: Mapping[str, AcceleratorSpec], names: tuple[str, ...]) -> None:
        self._bases = bases
        self.own: list[str] = []
        self.tables: dict[str, list[tuple[str, str]]] = {}
        """Of each table that varies the names of its fields, and their paths inside it."""
        for name in names:
            if name in WORK:
                continue
            table, dot, leaf = name.partition(".")
            if dot:
                self.tables.setdefault(table, []).append((name, leaf))
            else:
                self.own.append(name)
        self._made: dict[tuple[object, ...], Any] = {}

    def at(self, arch: str, values: Mapping[str, Value]) -> AcceleratorSpec:
        """The machine of ``arch`` with ``values`` by path; InputError where that is none."""
        changed: dict[str, Any] = {table: self.table(arch, table, values) for table in self.tables}
        return replace(self._bases[arch], **changed | {name: values[name] for name in self.own})

    def table(self, arch: str, table: str, values: Mapping[str, Value]) -> Any:
        """A table of it; InputError where there is none."""
        leaves = self.tables[table]
        key = (arch, table, *(values[name] for name, _ in leaves))
        made = self._made.get(key)
        if made is None:
            made = self._table(self._bases[arch], table, {leaf: values[name] for name, leaf in leaves})
            self._made[key] = made
        if isinstance(made, str):
            raise InputError(made)
        return made

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


class Fleet:
    """Machines of points whose axes have ``values``, [points] each; ``arch``: of those without such an axis.

    ``refused``: texts [points], why one is none, "" of one that is.
    """

    def __init__(
        self, bases: Mapping[str, AcceleratorSpec], arch: str, values: Mapping[str, NDArray[Any]], points: int
    ) -> None:
        self._bases, self._arch, self._values, self._points = bases, arch, values, points
        self._machines = Machines(bases, tuple(values))
        self._codes: dict[str, tuple[NDArray[np.int64], int]] = {}
        self.refused = np.full(points, "", object)
        for table in self._machines.tables:
            self._refuse(partial(self._table, table), table)
        if self._machines.own:
            self._refuse(self.at, *self._machines.own)

    def __len__(self) -> int:
        return self._points

    def arch(self, i: int) -> str:
        """The base of a machine."""
        return str(self._values["arch"][i]) if "arch" in self._values else self._arch

    def values(self, i: int) -> dict[str, Value]:
        """Values of the axes at a point."""
        return {name: column[i : i + 1].tolist()[0] for name, column in self._values.items()}

    def at(self, i: int) -> AcceleratorSpec:
        """A machine; InputError where it is none."""
        return self._machines.at(self.arch(i), self.values(i))

    def some(self, rows: NDArray[np.int64]) -> list[AcceleratorSpec]:
        """The machines ``rows``, int64 [some], all of them ones."""
        names = tuple(self._values)
        lists = [self._values[name][rows].tolist() for name in names]
        points = [dict(zip(names, point, strict=True)) for point in zip(*lists, strict=True)]
        return [self._machines.at(str(at.get("arch", self._arch)), at) for at in points]

    def column(self, path: str) -> NDArray[Any]:
        """A field of all machines, float64 [points], NaN where they have no such table or value; of a machine that is
        none what it would be."""
        if path in self._values:
            return self._values[path].astype(np.float64)
        first, which = self.kinds("arch")
        return np.array([_field(self._bases[self.arch(int(i))], path) for i in first], np.float64)[which]

    def kinds(self, *names: str, rows: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Points, or the ``rows`` of them, by what they have of ``names``, axes and whole tables: where each kind comes
        first, int64 [kinds], and the kind of each, int64 [rows]."""
        varied = [axis for axis in self._values if axis in names or axis.partition(".")[0] in names]
        coded = [self._coded(axis) for axis in varied]
        own = coded if rows is None else [(codes[rows], size) for codes, size in coded]
        first, which = alike(own, self._points if rows is None else len(rows))
        return first if rows is None else rows[first], which

    def _coded(self, axis: str) -> tuple[NDArray[np.int64], int]:
        if axis not in self._codes:
            codes, found = pd.factorize(self._values[axis])
            self._codes[axis] = codes.astype(np.int64), len(found)
        return self._codes[axis]

    def _table(self, table: str, i: int) -> object:
        return self._machines.table(self.arch(i), table, self.values(i))

    def _refuse(self, make: Callable[[int], object], *names: str) -> None:
        """Refuse what cannot be made, with the first reason that there is."""
        open_ = np.flatnonzero(self.refused == "")
        first, which = self.kinds("arch", *names, rows=open_)
        why = np.full(len(first), "", object)
        for kind, i in enumerate(first):
            try:
                make(int(i))
            except InputError as error:
                why[kind] = str(error)
        self.refused[open_] = why[which]


def alike(coded: list[tuple[NDArray[np.int64], int]], rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by codes, int64 [rows] each below a size: where each kind comes first, int64 [kinds], ascending, and the
    kind of each row, int64 [rows]."""
    which, kinds = np.zeros(rows, np.int64), 1
    for codes, size in coded:
        found, unique = pd.factorize(which * size + codes)
        which, kinds = found.astype(np.int64), len(unique)
    first = np.flatnonzero(np.diff(np.maximum.accumulate(which), prepend=-1)) if rows else np.zeros(0, np.int64)
    assert len(first) == (kinds if rows else 0), "kinds are numbered as they first come"
    return first, which


def _field(spec: AcceleratorSpec, path: str) -> float:
    found: Any = spec
    for name in path.split("."):
        found = getattr(found, name, None)
    return np.nan if found is None else float(found)
