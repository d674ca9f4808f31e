"""A result as pandas frames: by op, by pass, by cause, by layer, and the energy ledger."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pandas as pd

from ..dataflow.account import items
from ..simulator.result import SimResult
from ..simulator.system_result import SystemResult
from ..workloads.errors import printable
from .compare import Comparison
from .declared import columns, counts_kind
from .energy import energy, ledger
from .level import AnyResult, step_of
from .records import layer_of, op_records, pass_records
from .system import spans

__all__ = [
    "causes_frame",
    "comparison_frame",
    "csv_text",
    "energy_frame",
    "layers_frame",
    "ops_frame",
    "passes_frame",
    "spans_frame",
]

_INTEGERS = ("m", "k", "n", "groups", "interleave", "tile_rows", "tile_cols", "bound_cycles")

_FORMULA = ("=", "+", "-", "@")
"""What makes a spreadsheet compute a cell instead of showing it (OWASP, CSV injection); a tab or a line break does too
and is escaped as all control characters are."""


def csv_text(frame: pd.DataFrame, *, index: bool = True) -> str:
    """``frame`` as CSV that opens in a spreadsheet as what it says: a name there is never a formula."""
    plain = frame.reset_index() if index else frame
    return plain.map(_cell).to_csv(index=False)


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def ops_frame(result: AnyResult) -> pd.DataFrame:
    """One row an op, in order; what does not apply to an op is missing."""
    types = {"resident": "boolean", **dict.fromkeys(_INTEGERS, "Int64")}
    return pd.DataFrame.from_records(op_records(step_of(result), energy(result))).astype(types).set_index("index")


def spans_frame(result: SystemResult) -> pd.DataFrame:
    """When each op starts and ends with its neighbours, in whole cycles of the overlapped step; the rows of
    :func:`ops_frame`."""
    return pd.DataFrame(spans(result), columns=["start", "end"], dtype="int64").rename_axis("index")


def comparison_frame(comparison: Comparison) -> pd.DataFrame:
    """One row a run, in order; ``saving`` is a share of the energy of the baseline, with its band."""
    records = []
    for row in comparison.rows:
        own = row.saving
        shares = (None,) * 3 if own is None else (own.share, own.low, own.high)
        plain = {f.name: getattr(row, f.name) for f in fields(row) if f.name != "saving"}
        records.append({**plain, **dict(zip(("saving", "saving_low", "saving_high"), shares, strict=True))})
    shown = dict.fromkeys(("saving", "saving_low", "saving_high"), "float64")
    return pd.DataFrame.from_records(records).astype(shown)


def passes_frame(result: SimResult) -> pd.DataFrame:
    """Cycles, their share, multiply-accumulates and joules by pass."""
    frame = pd.DataFrame.from_dict({str(p): r for p, r in pass_records(result).items()}, orient="index")
    frame.insert(1, "share", frame["cycles"] / frame["cycles"].sum())
    return frame.rename_axis("pass")


def causes_frame(result: SimResult) -> pd.DataFrame:
    """Cycles of the step and their share by cause."""
    frame = pd.DataFrame({"cycles": pd.Series(items(result.cycles), dtype="int64")})
    return frame.assign(share=frame["cycles"] / frame["cycles"].sum()).rename_axis("cause")


def layers_frame(result: SimResult) -> pd.DataFrame:
    """Sums over all passes by module path, in the order of the forward pass; ``FF`` .. ``OPT`` are cycles."""
    ops = ops_frame(result).assign(layer=[layer_of(r) for r in result.ops])
    summed = {"cycles", *items(result.cycles), *columns(counts_kind(result.ops)), "dense_macs", "energy_j"}
    sums = ops.groupby("layer", sort=False)[[name for name in ops if name in summed]].sum()
    passes = ops.pivot_table(index="layer", columns="pass", values="cycles", aggfunc="sum", fill_value=0, sort=False)
    passes = passes.reindex(columns=["FF", "BP", "WU", "OPT"], fill_value=0).rename_axis(columns=None)
    return sums.join(passes)


def energy_frame(result: AnyResult) -> pd.DataFrame:
    """The energy ledger: one row a kind of action, with its price and where that comes from."""
    return pd.DataFrame.from_records([row.document() for row in ledger(result)]).set_index("action")
