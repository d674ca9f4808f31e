"""Machines by columns of their fields: the points of millions without a description of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...workloads.errors import InputError, nearest
from ..accelerator import AcceleratorSpec
from ..operand import BYTE, INDEX_BITS, OPERAND_FORMATS
from ..problem import RATE
from ..ranges import FieldRule, Range, field_rules
from .points import COLUMN, XNOR, Points, points_of

__all__ = ["points_from_columns"]

_RULES = {
    rule.path: rule
    for rule in field_rules(AcceleratorSpec)
    # A unit that a machine may do without has no part in a step; none of these machines keeps tensors on chip.
    if rule.table in ("", "xnor") and rule.path != "buffers.resident_bytes"
}
_AS_THEY_ARE = {
    "R": "array.rows",
    "C": "array.cols",
    "w": "array.w2e_words",
    "Lm": "pe.multiply_latency",
    "La": "pe.add_latency",
    "Lr": "array.read_latency",
    "sore_lanes": "sore.lanes",
    "accumulators": "pe.accumulators",
    "dense_words": "pe.dense_words",
    "weight_pairs": "pe.weight_pairs",
    "max_group": "pe.max_group",
    "wuve_lanes": "wuve.lanes",
    "vector_lanes": "vector.lanes",
}
_OF_XNOR = {name: name.replace("_", ".", 1) for name in XNOR}
_HALVES = {"west_half": "buffers.w2e_bytes", "north_half": "buffers.n2s_bytes", "out_half": "buffers.output_bytes"}
_OF_RATE = ("dram.bytes_per_second", "dram.efficiency_percent", "clock_hz")
_MADE = {"word_bits", "sum_bits", "index_bits", "rate", "sore_network"}
if COLUMN.keys() != _AS_THEY_ARE.keys() | _OF_XNOR.keys() | _HALVES.keys() | _MADE:
    raise TypeError(f"a point is {list(COLUMN)}, not what columns are made into")


def points_from_columns(base: AcceleratorSpec, columns: Mapping[str, ArrayLike]) -> Points:
    """`points_of` of machines that are ``base`` but for ``columns``: by the path of a field (``array.rows``), its
    values, [points], integers, words or truths.

    They have no prices, which the objectives energy and edp need. Refuses a field that there is not, and the first
    machine that cannot be.
    """
    points_of([base])
    given = _columns(base, columns)
    points = len(next(iter(given.values())))
    _require(base, given, points)

    def column(path: str) -> NDArray[Any]:
        return given[path] if path in given else np.full(points, _value(base, path))

    rows = np.empty((points, len(COLUMN)), np.int64)
    for name, path in (_AS_THEY_ARE | _OF_XNOR).items():
        rows[:, COLUMN[name]] = column(path)
    for name, path in _HALVES.items():
        rows[:, COLUMN[name]] = column(path) // 2
    formats, of = np.unique(column("pe.format"), return_inverse=True)
    words = [OPERAND_FORMATS[name] for name in formats.tolist()]
    rows[:, COLUMN["word_bits"]] = np.array([word.bits for word in words])[of]
    rows[:, COLUMN["sum_bits"]] = np.array([word.accumulator.bits for word in words])[of]
    rows[:, COLUMN["index_bits"]] = INDEX_BITS
    rows[:, COLUMN["sore_network"]] = column("sore.kind") == "network"
    rows[:, COLUMN["rate"]] = _rates([column(path) for path in _OF_RATE])
    # Of a memory that is too slow to be timed a point knows nothing.
    for name in (*_HALVES, "sore_network"):
        rows[rows[:, COLUMN["rate"]] == 0, COLUMN[name]] = 0
    bits = rows[:, COLUMN["xnor_word_bits"]]
    family, first = _families((of * 2 + column("wuve.pregenerate")) * (1 + bits.max()) + bits)
    return Points(rows, family, tuple(_machine(base, given, int(i)) for i in first))


def _columns(base: AcceleratorSpec, columns: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    """Columns as arrays of one length and of the kind of their fields."""
    known = [path for path, rule in _RULES.items() if not rule.table or getattr(base, rule.table) is not None]
    for path in columns:
        if path not in known:
            raise InputError(f"machines by columns of {base.name!r} have no field {path!r}: {nearest(path, known)}")
    given = {path: np.asarray(values) for path, values in columns.items()}
    sizes = {path: values.shape for path, values in given.items()}
    if not sizes or len(set(sizes.values())) > 1 or any(len(shape) != 1 or shape[0] == 0 for shape in sizes.values()):
        raise InputError(f"columns must have one value for each machine, all as many and one at least, not {sizes}")
    for path, values in given.items():
        wanted = _kinds(_RULES[path])
        if values.dtype.kind not in wanted:
            raise InputError(
                f"column {path!r} must hold {_RULES[path].values}, not {values.dtype} ({values[0]!r} first)"
            )
    return given


def _kinds(rule: FieldRule) -> str:
    """Kinds of arrays that hold a field."""
    if isinstance(rule.allowed, Range):
        return "iu"
    return "b" if rule.allowed is bool else "U"


def _require(base: AcceleratorSpec, given: dict[str, NDArray[Any]], points: int) -> None:
    """Refuse the first machine that cannot be, in the words of its description."""
    wrong = np.zeros(points, bool)
    for path, values in given.items():
        match _RULES[path].allowed:
            case Range(least, most, _):
                wrong |= (values < least) | (values > most)
            case tuple() as words:
                wrong |= ~np.isin(values, words)
            case _:
                pass
    held, group = (given.get(f"pe.{name}", getattr(base.pe, name)) for name in ("dense_words", "max_group"))
    wrong |= np.asarray(held) < np.asarray(group)
    if "xnor.word_bits" in given:
        wrong |= given["xnor.word_bits"] % BYTE != 0
    if wrong.any():
        i = int(np.argmax(wrong))
        _machine(base, given, i)
        raise AssertionError(f"machine {i} is refused by its columns and not by its description")


def _value(spec: AcceleratorSpec, path: str) -> object:
    part, _, name = path.partition(".")
    own = getattr(spec, part)
    # Of a table that the machine does without, as a point has it.
    return 0 if own is None and _RULES[path].table else getattr(own, name) if name else own


def _machine(base: AcceleratorSpec, given: dict[str, NDArray[Any]], i: int) -> AcceleratorSpec:
    """The description of a machine."""
    own, parts = dict[str, Any](), dict[str, dict[str, Any]]()
    for path, values in given.items():
        part, _, name = path.partition(".")
        (parts.setdefault(part, {}) if name else own)[name or part] = values[i].item()
    return replace(base, **own, **{part: replace(getattr(base, part), **new) for part, new in parts.items()})


def _rates(of: list[NDArray[Any]]) -> NDArray[np.int64]:
    """`MemoryMachine.rate`, int64 [points], of bytes a second, percent and clock; bytes times percent leave 64 bits."""
    kinds, which = np.unique(np.stack([part.astype(np.int64) for part in of], axis=1), axis=0, return_inverse=True)
    found = [peak * percent * RATE // (100 * clock) for peak, percent, clock in kinds.tolist()]
    return np.array(found, np.int64)[which.reshape(-1)]


def _families(kinds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of equal kinds in the order in which they first come, int64 [points], and where each comes first."""
    _, first, which = np.unique(kinds, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return np.argsort(order)[which.reshape(-1)], first[order]
