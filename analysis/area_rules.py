"""What the modules of a machine depend on: how often each is there, and what of the machine decides its counts.

The numbers are those that the RTL is sized by. Most are widths, so that a PE of 5 accumulators is that of 8: what was
measured of one holds for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataflow.engine_time import wuve_latency
from ..dataflow.operand import OPERAND_FORMATS
from ..dataflow.stce.spec import PESpec
from ..dataflow.xnor.spec import ADD_LATENCY
from ..workloads.update_rule import SGD

__all__ = ["NUMBERS", "RULES", "Factor", "Numbers", "Rule"]

Numbers = dict[str, NDArray[Any]]
"""By name, int64, a machine a place or one for all."""


@dataclass(frozen=True, slots=True)
class Factor:
    """Something that counts differ by: a class of machines by ``numbers``, or, where they are more or less of it, their
    place ``along`` a number, between whose measured values counts are interpolated.

    ``fields``: of the machine, as a refusal names them.
    """

    numbers: tuple[str, ...]
    fields: tuple[str, ...]
    along: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A module: ``times`` is the number that counts it; its RTL is the same where all of ``key`` are. Counts of one are
    the sum of what its ``factors`` take and of ``linear`` numbers, times what each takes."""

    times: str
    key: tuple[str, ...]
    factors: tuple[Factor, ...]
    linear: tuple[str, ...] = ()


_POWERS = 1 << np.arange(60)
_FORMATS = {name: number for number, name in enumerate(OPERAND_FORMATS)}
_RING = 16
"""Words below which a memory of LUTs is no smaller: RAM16X4 of ECP5; one of UltraScale+ has 32."""
_ASK = 25
"""Bits of the ask in a step (hdl/blocks/control_format.py)."""


def _tell(count: Any) -> Any:
    """Bits that tell ``count`` things apart, at least one."""
    return np.maximum(1, np.searchsorted(_POWERS, count))


def _hold(number: Any) -> Any:
    """Bits that ``number`` is written in."""
    return np.searchsorted(_POWERS, number, side="right")


def _coded(names: Any, codes: Mapping[str, int]) -> Any:
    names = np.asarray(names)
    return np.select([names == name for name in codes], list(codes.values()), -1)


def _grid(rows: Any, cols: Any, lanes: Any, sums: Any, words: Any, held: Any, longest: Any, lm: Any, la: Any) -> Numbers:
    """An array's numbers, as hdl/blocks/frame.py and control_format.py have them."""
    delay = np.maximum(1, (held - 1) * np.maximum(sums, la) + la)
    made = {
        "rows": rows,
        "cols": cols,
        "pes": rows * cols,
        "lanes": lanes,
        "context": _tell(sums),
        "held": _tell(held),
        "chunk": _tell(-(-words // lanes)),
        "position": _tell(words),
        "interleave": _hold(sums),
        "part": _hold(words),
        "pairs": _hold(longest),
        "delay": _tell(delay),
        "row_delay": _hold(delay),
        "drain": _hold(rows * sums),
        "shift": _hold(held * rows),
        "tail": _hold(lm + la + rows * np.maximum(delay, sums) + rows + cols + sums),
        "pace": _hold(np.maximum(sums, la)),
        "lm": lm,
        "la": la,
        "west": rows * lanes,
        "one": np.ones(1, np.int64),
    }
    width = _ASK + 1 + made["chunk"] + 7 + made["context"] + made["position"] + made["held"]
    made["ring"] = np.maximum(_RING, 1 << made["delay"]) * width
    made["counters"] = made["drain"] + made["shift"] + made["tail"]
    return made


def _stce(f: Mapping[str, Any]) -> Numbers:
    made = _grid(
        f["array.rows"],
        f["array.cols"],
        f["array.w2e_words"],
        f["pe.accumulators"],
        f["pe.dense_words"],
        f["pe.weight_pairs"],
        f["pe.max_group"],
        f["pe.multiply_latency"],
        f["pe.add_latency"],
    )
    form = _coded(f["pe.format"], _FORMATS)
    recoded = form == _FORMATS["fp16"]
    own = {"west_recoded": made["west"] * recoded, "cols_recoded": made["cols"] * recoded}
    group = np.searchsorted(_POWERS, f["pe.max_group"])
    return made | own | {"mhz": f["mhz"], "format": form, "group": group, "index": np.maximum(1, group)}


def _xnor(f: Mapping[str, Any]) -> Numbers:
    one = np.ones(1, np.int64)
    held, bits = f["xnor.weight_words"], f["xnor.word_bits"]
    made = _grid(
        f["xnor.rows"],
        f["xnor.cols"],
        one,
        f["xnor.accumulators"],
        f["xnor.dense_words"],
        held,
        held,
        f["xnor.popcount_latency"],
        ADD_LATENCY * one,
    )
    return made | {"mhz": f["mhz"], "bits": bits, "cols_bits": made["cols"] * bits, "used": _hold(made["rows"])}


def _sore(f: Mapping[str, Any]) -> Numbers:
    lanes, group = f["sore.lanes"], np.minimum(8, f["pe.max_group"])
    kind = _coded(f["sore.kind"], {"serial": 0, "network": 1})
    return {
        "mhz": f["mhz"],
        "lanes": lanes,
        "kind": kind,
        "group": group,
        "format": _coded(f["pe.format"], _FORMATS),
        "serial_lanes": lanes * (kind == 0),
        "network_values": lanes * group * (kind == 1),
        "one": np.ones(1, np.int64),
    }


def _wuve(f: Mapping[str, Any]) -> Numbers:
    lm, la = np.broadcast_arrays(f["pe.multiply_latency"], f["pe.add_latency"])
    flight = np.zeros(lm.shape, np.int64)
    for both in np.unique(lm * 64 + la):
        flight[lm * 64 + la == both] = _depth(int(both) // 64, int(both) % 64)
    return {
        "mhz": f["mhz"],
        "lanes": f["wuve.lanes"],
        "format": _coded(f["pe.format"], _FORMATS),
        "lm": lm,
        "la": la,
        "flight": f["wuve.lanes"] * flight,
        "one": np.ones(1, np.int64),
    }


@cache
def _depth(multiply: int, add: int) -> int:
    return wuve_latency(SGD, PESpec(multiply_latency=multiply, add_latency=add))


NUMBERS: dict[str, Callable[[Mapping[str, Any]], Numbers]] = {
    "stce": _stce,
    "xnor_engine": _xnor,
    "sore": _sore,
    "wuve": _wuve,
}
"""Of each block, from the fields that it depends on, by path, and ``mhz``: int64 arrays, texts where a field is one."""

_CLOCK = Factor((), ("clock_hz",), along="mhz")
_FORMAT = Factor(("format",), ("pe.format",))
_WIDTHS = ("context", "held", "chunk", "position", "lm", "la", "mhz")
_ROW = (*_WIDTHS, "interleave", "delay", "row_delay", "drain")
_CONTROL = (*_WIDTHS, "interleave", "part", "pairs", "row_delay", "drain", "shift", "tail", "pace")
_STCE = (
    _FORMAT,
    Factor(("format", "lm"), ("pe.format", "pe.multiply_latency")),
    Factor(("format", "la"), ("pe.format", "pe.add_latency")),
    Factor(("position", "lanes"), ("pe.dense_words", "array.w2e_words")),
    Factor(("format", "position"), ("pe.format", "pe.dense_words")),
    Factor(("format", "lanes"), ("pe.format", "array.w2e_words")),
    Factor(("context",), ("pe.accumulators",)),
    Factor(("held",), ("pe.weight_pairs",)),
    Factor(("group",), ("pe.max_group",)),
    _CLOCK,
)
_XNOR = (
    Factor(("context",), ("xnor.accumulators",)),
    Factor(("held",), ("xnor.weight_words",)),
    Factor(("position",), ("xnor.dense_words",)),
    Factor(("lm",), ("xnor.popcount_latency",)),
    _CLOCK,
)
_XNOR_PE = (
    Factor((), ("xnor.word_bits",), along="bits"),
    Factor(("context",), ("xnor.accumulators",)),
    Factor(("held",), ("xnor.weight_words",), along="bits"),
    Factor(("position",), ("xnor.dense_words",), along="bits"),
    Factor(("lm",), ("xnor.popcount_latency",), along="bits"),
    _CLOCK,
)
_SORE = (Factor(("kind", "group"), ("sore.kind", "pe.max_group")), Factor(("kind", "format"), ("sore.kind", "pe.format")))
_SORE_CLOCK = Factor(("kind",), ("clock_hz",), along="mhz")
_WUVE = (
    _FORMAT,
    Factor(("lm",), ("pe.multiply_latency",)),
    Factor(("la",), ("pe.add_latency",)),
    _CLOCK,
)

RULES: dict[str, dict[str, Rule]] = {
    "stce": {
        "pe": Rule("pes", (*_WIDTHS, "format", "lanes", "index"), _STCE),
        "stce_row": Rule("rows", _ROW, _STCE, ("ring", "drain")),
        "edges": Rule(
            "one",
            (*_CONTROL, "format", "lanes", "index", "delay", "rows", "cols"),
            _STCE,
            ("west", "west_recoded", "cols", "cols_recoded"),
        ),
        "control": Rule("one", _CONTROL, _STCE, ("counters",)),
    },
    "xnor_engine": {
        "xnor_pe": Rule("pes", (*_WIDTHS, "bits"), _XNOR_PE),
        "xnor_row": Rule("rows", (*_ROW, "used"), _XNOR, ("ring", "drain")),
        "edges": Rule(
            "one", (*_CONTROL, "bits", "delay", "used", "rows", "cols"), _XNOR, ("rows", "cols", "cols_bits")
        ),
        "control": Rule("one", (*_CONTROL, "used"), _XNOR, ("counters",)),
    },
    "sore": {
        "sore_lane": Rule("lanes", ("kind", "group", "format", "mhz"), (*_SORE, _SORE_CLOCK)),
        "edges": Rule(
            "one",
            ("kind", "group", "format", "mhz", "lanes"),
            (*_SORE, _SORE_CLOCK),
            ("serial_lanes", "network_values"),
        ),
    },
    "wuve": {
        "wuve_lane": Rule("lanes", ("format", "lm", "la", "mhz"), _WUVE),
        "edges": Rule("one", ("format", "lm", "la", "mhz", "lanes"), _WUVE, ("flight",)),
    },
}
"""By block and module."""
