"""What varies in a space, checked against the machine's own rules, and which values each point has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.config_io import load_spec
from ...dataflow.objective import Objective
from ...dataflow.ranges import FieldRule, Range, field_rules
from ...workloads.errors import InputError, nearest, require_int
from ...workloads.schemes.policies import Policy
from ...workloads.schemes.scheme import scheme
from ...workloads.sparsity import LayerPatterns
from .space import Space, Span, Value

__all__ = ["WORK", "Axes", "Axis", "axes_of", "machine_fields"]

WORK = ("model", "seq", "batch", "scheme", "nm", "objective", "arch")
"""What varies beside the fields of the machine: `Space` has a field of each name."""
_MOST_VALUES = 2**32
_CAPACITIES = ("buffers", "pe.accumulators", "pe.dense_words", "pe.weight_pairs", "pe.max_group")
_BESIDE = ("vector", "wuve", "dram.capacity_bytes")
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""Of splitmix64 (Steele, Lea and Flood 2014)."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One name and its values, in the order in which points have them."""

    name: str
    values: Sequence[Value]

    def taken(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Values at ``places``, int64 [points]: int64, float64, bool or text, [points]."""
        if isinstance(self.values, range):
            return np.asarray(self.values.start + self.values.step * places)
        return np.array(self.values, object if isinstance(self.values[0], str) else None)[places]


@dataclass(frozen=True, slots=True)
class Axes:
    """All axes, the last one fastest in a grid; ``tied``: names that have the value of an axis."""

    axes: tuple[Axis, ...]
    tied: dict[str, str]
    size: int
    sampler: str
    seed: int

    def places(self, numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Of the points ``numbers``, int64 [points], the place of the value of each axis, int64 [points] each."""
        if self.sampler == "search":
            raise ValueError("a search asks for its points one after the other")
        if self.sampler == "list":
            return [numbers] * len(self.axes)
        if self.sampler == "latin":
            return [
                _stratum(_shuffled(numbers, self.size, self.seed, a), len(axis.values), self.size)
                for a, axis in enumerate(self.axes)
            ]
        found, rest = list[NDArray[np.int64]](), numbers
        for axis in reversed(self.axes):
            rest, place = np.divmod(rest, len(axis.values))
            found.append(place)
        return found[::-1]

    def columns(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Values of the points ``numbers``, int64 [points], by name: int64, float64, bool or text, [points]; tied names
        too."""
        return self.at(self.places(numbers))

    def at(self, places: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Values at places of all axes, int64 [points] each, by name as `columns` has them."""
        own = {axis.name: axis.taken(here) for axis, here in zip(self.axes, places, strict=True)}
        return own | {name: own[to] for name, to in self.tied.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return (*(axis.name for axis in self.axes), *self.tied)


def _stratum(shuffled: NDArray[np.int64], values: int, size: int) -> NDArray[np.int64]:
    """The value of each stratum; every one comes as often as any other, or once more."""
    if values <= 2**31 and size <= 2**31:
        return shuffled * values // size
    return np.array([int(s) * values // size for s in shuffled], np.int64)


def _shuffled(numbers: NDArray[np.int64], size: int, seed: int, axis: int) -> NDArray[np.int64]:
    """A permutation of range(size) at ``numbers``: a Feistel network over the next power of four that walks until it
    is back inside, so that no point needs to know of another."""
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    found = numbers.astype(np.uint64)
    outside = np.ones(len(found), bool)
    while outside.any():
        left, right = found[outside] >> np.uint64(half), found[outside] & mask
        for turn in range(4):
            left, right = right, left ^ (_mixed(right, (seed << 16) + (axis << 4) + turn) & mask)
        found[outside] = (left << np.uint64(half)) | right
        outside = found >= np.uint64(size)
    return found.astype(np.int64)


def _mixed(words: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        mixed = words + np.uint64((key * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
        for shift, factor in zip((30, 27), _MIX, strict=True):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


@cache
def machine_fields() -> dict[str, FieldRule]:
    """Fields of a machine that an axis may be, by their paths."""
    return {rule.path: rule for rule in field_rules(AcceleratorSpec) if rule.path not in ("name", "description")}


def axes_of(space: Space) -> Axes:
    """The axes of a space, the slowest first: work, then what searches depend on, then what only has to fit.

    Refuses a name that is none, and a value outside of its rule.
    """
    given = _of_rows(space) if space.sampler == "list" else dict(space.axes)
    known = (*WORK, *machine_fields())
    axes, tied = list[Axis](), dict[str, str]()
    for name, values in given.items():
        if name not in known:
            raise InputError(f"axes: there is no {name!r}; {nearest(name, known)}")
        if isinstance(values, str):
            if values not in given or isinstance(given[values], str):
                free = [n for n, v in given.items() if not isinstance(v, str)]
                raise InputError(f"axes.{name} is to be as {values!r}, which is no axis of its own: {_or(free)}")
            tied[name] = values
        else:
            axes.append(Axis(name, _values(name, values)))
    for name, to in tied.items():
        axis = next(axis for axis in axes if axis.name == to)
        for value in axis.values if not isinstance(axis.values, range) else (axis.values[0], axis.values[-1]):
            _require(f"axes.{name}", name, value)
    if space.sampler != "list":
        axes.sort(key=lambda axis: _rank(axis.name))
    sizes = [len(axis.values) for axis in axes]
    size = sizes[0] if space.sampler == "list" else space.points or int(np.prod([float(s) for s in sizes]))
    if space.sampler == "grid":
        size = 1
        for one in sizes:
            size *= one
        if size > 2**40:
            raise InputError(f"the grid has {size:,} points, more than 2^40; use sampler 'latin' or 'search'")
    return Axes(tuple(axes), tied, size, space.sampler, space.seed)


def _or(names: Sequence[str]) -> str:
    return "name one of " + ", ".join(map(repr, names)) if names else "there is none"


def _of_rows(space: Space) -> dict[str, tuple[Value, ...] | Span | str]:
    """Listed points as axes of as many values."""
    if space.axes:
        raise InputError("sampler 'list' has its points in [[listed]]; leave [axes] out")
    names = tuple(space.listed[0])
    for i, row in enumerate(space.listed):
        if set(row) != set(names):
            odd = sorted(set(row) ^ set(names))[0]
            raise InputError(f"listed[{i}]: every listed point names the same fields, and {odd!r} is not in all")
    return {name: tuple(row[name] for row in space.listed) for name in names}


def _rank(name: str) -> int:
    if name in WORK:
        return WORK.index(name)
    if name.startswith(_CAPACITIES):
        return len(WORK) + 1
    return len(WORK) + 2 if name.startswith(_BESIDE) else len(WORK)


def _values(name: str, given: tuple[Value, ...] | Span) -> Sequence[Value]:
    where = f"axes.{name}"
    if isinstance(given, Span):
        found = _spanned(where, given)
    else:
        if not given:
            raise InputError(f"{where} has no values; give one at least")
        found = tuple(_meant(name, value) for value in given)
    for value in (found[0], found[-1]) if isinstance(found, range) else found:
        _require(where, name, value)
    return found


def _meant(name: str, value: Value) -> Value:
    """TOML's 77e9 is a float; a whole one is meant as the integer that a field takes."""
    rule = machine_fields().get(name)
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole and (name in ("batch", "seq") or (rule and isinstance(rule.allowed, Range))) else value


def _spanned(where: str, span: Span) -> Sequence[Value]:
    for key in ("first", "last", "times", "step"):
        value = getattr(span, key)
        if value is not None and not (isinstance(value, int) or value.is_integer()):
            raise InputError(f"{where}.{key} must be a whole number, not {value}")
    first, last = int(span.first), int(span.last)
    if first > last:
        raise InputError(f"{where} goes from first = {first} to last = {last}, which is less")
    if span.times is not None and span.step is not None:
        raise InputError(f"{where} has both times and step; give one")
    if span.times is not None:
        if span.times < 2 or first < 1:
            raise InputError(f"{where} grows by times = {span.times} from {first}; both must grow: 2 and 1 at least")
        values, value = list[Value](), first
        while value <= last:
            values.append(value)
            value *= int(span.times)
        return tuple(values)
    step = 1 if span.step is None else int(span.step)
    if step < 1:
        raise InputError(f"{where}.step must be 1 at least, not {step}")
    found = range(first, last + 1, step)
    if len(found) > _MOST_VALUES:
        raise InputError(f"{where} has {len(found):,} values, more than 2^32; give a step")
    return found


def _require(where: str, name: str, value: Value) -> None:
    """Refuse a value that no machine, or no work, can have."""
    rule = machine_fields().get(name)
    if rule is None:
        _require_work(where, name, value)
        return
    match rule.allowed:
        case Range(least, most, _):
            require_int(where, value, least, most)
        case tuple() as words:
            if value not in words:
                raise InputError(f"{where} has {value!r}: {nearest(str(value), words)}")
        case kind:
            if not isinstance(value, kind):
                raise InputError(f"{where} has {value!r}; it may be {rule.values}")


def _read_patterns(text: str) -> object:
    return Policy.read(text) or LayerPatterns.read(text.split(","))


_WORDS: dict[str, Callable[[str], object]] = {
    "scheme": scheme,
    "objective": Objective.named,
    "arch": load_spec,
    "nm": _read_patterns,
    "model": str,
}


def _require_work(where: str, name: str, value: Value) -> None:
    if name in ("batch", "seq"):
        require_int(where, value, 1, 2**31)
        return
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} has {value!r}; it must be text")
    try:
        _WORDS[name](value)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
