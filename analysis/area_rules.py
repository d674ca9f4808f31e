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

    ``fields``: of the machine, as a refusal names them. With ``bound`` it adds nothing and only says how far what was
    measured reaches: linear numbers of the rule follow it.
    """

    numbers: tuple[str, ...]
    fields: tuple[str, ...]
    along: str | None = None
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A module: ``times`` is the number that counts it; its RTL is the same where all of ``key`` are. Counts of one are
    the sum of what its ``factors`` take and of ``linear`` numbers, times what each takes. With ``singles`` what one
    field alone takes is met exactly, at the expense of those that were measured together."""

    times: str
    key: tuple[str, ...]
    factors: tuple[Factor, ...]
    linear: tuple[str, ...] = ()
    singles: bool = False


_POWERS = 1 << np.arange(60)
_FORMATS = {name: number for number, name in enumerate(OPERAND_FORMATS)}
_SMALLEST_RING = 16
"""Steps below which a row's ring is taken to be no smaller."""
_STEP = 32
"""Bits of a step besides those that tell places apart (hdl/blocks/control_format.py)."""
_BEAT = 7
"""Bits of a beat in a step of the XNOR engine (hdl/blocks/beats.py)."""


def _tell(count: Any) -> Any:
    """Bits that tell ``count`` things apart, at least one."""
    return np.maximum(1, np.searchsorted(_POWERS, count))


def _hold(number: Any) -> Any:
    """Bits that ``number`` is written in."""
    return np.searchsorted(_POWERS, number, side="right")


def _coded(names: Any, codes: Mapping[Any, int]) -> Any:
    names = np.asarray(names)
    return np.select([names == name for name in codes], list(codes.values()), -1)


def _grid(f: Mapping[str, Any], names: str, own: Numbers) -> Numbers:
    """An array's numbers, as hdl/blocks/frame.py and control_format.py have them, of the fields called ``names``."""
    rows, cols, sums, words, held, longest, lm = (f[name] for name in names.split())
    lanes, la = own["lanes"], own["la"]
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
        "tail": _hold(own["read"] - 1 + lm + la + rows * np.maximum(delay, sums) + rows + cols + sums),
        "pace": _hold(np.maximum(sums, la)),
        "lm": lm,
        "la": la,
        "mhz": f["mhz"],
        "west": rows * lanes,
        "read": own["read"],
        "one": np.ones(1, np.int64),
    }
    for name, bits in (("sums", "context"), ("words", "position"), ("held", "held")):
        made[f"{name}_deep"] = 1 << made[bits]
    made["dense_bits"] = own["word"] * lanes * np.maximum(f["lut_ram"], 2 << made["chunk"])
    made["held_bits"] = own["word"] * np.maximum(f["lut_ram"], 2 << made["held"])
    width = _STEP + own.get("beat", 0) + made["chunk"] + made["context"] + made["position"] + made["held"]
    made["ring"] = np.maximum(_SMALLEST_RING, 1 << made["delay"]) * width
    return made | own


def _stce(f: Mapping[str, Any]) -> Numbers:
    form, group = _coded(f["pe.format"], _FORMATS), f["pe.max_group"]
    recoded = form == _FORMATS["fp16"]
    own = {
        "format": form,
        "index": _tell(group),
        "word": 16 + recoded,
        "lanes": f["array.w2e_words"],
        "read": f["array.read_latency"],
    }
    made = _grid(
        f,
        "array.rows array.cols pe.accumulators pe.dense_words pe.weight_pairs pe.max_group pe.multiply_latency",
        own | {"la": f["pe.add_latency"]},
    )
    return made | {"west_recoded": made["west"] * recoded, "cols_recoded": made["cols"] * recoded}


def _xnor(f: Mapping[str, Any]) -> Numbers:
    one, bits = np.ones(1, np.int64), f["xnor.word_bits"]
    made = _grid(
        f,
        "xnor.rows xnor.cols xnor.accumulators xnor.dense_words xnor.weight_words xnor.weight_words "
        "xnor.popcount_latency",
        {"lanes": one, "read": one, "la": ADD_LATENCY * one, "word": 2 * bits, "beat": _BEAT * one},
    )
    return made | {
        "bits": bits,
        "cols_bits": made["cols"] * bits,
        "bits_lm": bits * made["lm"],
        "used": _hold(made["rows"]),
    }


def _sore(f: Mapping[str, Any]) -> Numbers:
    lanes, group = f["sore.lanes"], np.minimum(8, f["pe.max_group"])
    kind, form = _coded(f["sore.kind"], {"serial": 0, "network": 1}), _coded(f["pe.format"], _FORMATS)
    return {
        "mhz": f["mhz"],
        "lanes": lanes,
        "kind": kind,
        "group": group,
        "format": form,
        "serial_lanes": lanes * (kind == 0),
        "network_values": lanes * group * (kind == 1),
        "bf16_serial": (form == _FORMATS["bf16"]) * (kind == 0),
        "bf16_network": (form == _FORMATS["bf16"]) * (kind == 1) * group,
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
"""Of each block, from the fields that it depends on, by path, ``mhz``, and ``lut_ram``, the words of a memory of LUTs:
int64 arrays, texts where a field is one."""

_WIDTHS = ("context", "held", "chunk", "position", "lm", "la", "mhz")
_ROW = (*_WIDTHS, "read", "interleave", "delay", "row_delay", "drain")
_CONTROL = (*_WIDTHS, "read", "interleave", "part", "pairs", "row_delay", "drain", "shift", "tail", "pace")
_EDGES = (*_CONTROL, "delay", "rows", "cols")

_CLOCK = Factor((), ("clock_hz",), along="mhz")
_FORMAT = Factor(("format",), ("pe.format",))
_BANKS = Factor(("read",), ("array.read_latency",))
_LATENCIES = (Factor(("lm",), ("pe.multiply_latency",)), Factor(("la",), ("pe.add_latency",)))
_STCE_PE = (
    _FORMAT,
    *_LATENCIES,
    Factor((), ("pe.dense_words",), along="words_deep"),
    Factor(("lanes",), ("array.w2e_words",)),
    Factor((), ("pe.max_group",), along="index"),
    Factor((), ("pe.accumulators",), along="sums_deep"),
    Factor((), ("pe.weight_pairs",), along="held_deep"),
    _CLOCK,
)
_XNOR_PE = (
    Factor((), ("xnor.word_bits",), along="bits"),
    Factor(("lm",), ("xnor.popcount_latency",)),
    Factor((), ("xnor.dense_words",), along="words_deep", bound=True),
    Factor((), ("xnor.weight_words",), along="held_deep", bound=True),
    Factor((), ("xnor.accumulators",), along="sums_deep"),
    _CLOCK,
)
_RING = ("ring", "context", "held", "position", "drain")
_LOOPS = ("context", "held", "position", "drain", "shift", "tail")
_LANE = Factor(("kind", "group"), ("sore.kind", "pe.max_group"))

RULES: dict[str, dict[str, Rule]] = {
    "stce": {
        "pe": Rule("pes", (*_WIDTHS, "format", "lanes", "index"), _STCE_PE, ("dense_bits",), singles=True),
        "stce_row": Rule("rows", _ROW, (_BANKS,), _RING),
        "edges": Rule(
            "one",
            (*_EDGES, "format", "lanes", "index"),
            (_FORMAT, _BANKS),
            ("west", "west_recoded", "cols", "cols_recoded", "delay"),
        ),
        "control": Rule("one", _CONTROL, (_BANKS,), _LOOPS),
    },
    "xnor_engine": {
        "xnor_pe": Rule("pes", (*_WIDTHS, "bits"), _XNOR_PE, ("dense_bits", "held_bits", "bits_lm"), singles=True),
        "xnor_row": Rule("rows", (*_ROW, "used"), (), _RING),
        "edges": Rule("one", (*_EDGES, "bits", "used"), (), ("cols", "cols_bits", "delay")),
        "control": Rule("one", (*_CONTROL, "used"), (), _LOOPS),
    },
    "sore": {
        "sore_lane": Rule("lanes", ("kind", "group", "format", "mhz"), (_LANE,), ("bf16_serial", "bf16_network")),
        "edges": Rule("one", ("kind", "group", "lanes", "mhz"), (_LANE,), ("serial_lanes", "network_values")),
    },
    "wuve": {
        "wuve_lane": Rule("lanes", ("format", "lm", "la", "mhz"), (_FORMAT, *_LATENCIES)),
        "edges": Rule("one", ("lm", "la", "lanes", "mhz"), (), ("flight",)),
    },
}
"""By block and module."""
