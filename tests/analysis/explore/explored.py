"""Explored machines: a small space of real ones, decided as a sweep does, and as many as one likes of made-up ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from weft.analysis.explore.page.summary import Summary
from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec
from weft.dataflow.batch.evaluate import Status
from weft.dataflow.batch.front import front
from weft.dataflow.config_io import load_spec
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.strict import read_json
from weft.workloads.trace import trace_step

AXES: dict[str, list[Any]] = {
    "array.rows": [4, 6, 8, 12, 16, 24],
    "array.cols": [4, 6, 8, 12],
    "pe.accumulators": [4, 8],
    "buffers.w2e_bytes": [1024, 16384, 131072],
    "buffers.n2s_bytes": [16384, 131072],
    "dram.bytes_per_second": [800_000_000, 1_600_000_000, 3_200_000_000],
}
OBJECTIVES = [
    {"name": "cycles", "direction": "min", "unit": "cycles"},
    {"name": "pes", "direction": "min", "unit": "PEs"},
    {"name": "buffer_bytes", "direction": "min", "unit": "B"},
    {"name": "samples_per_second", "direction": "max", "unit": "1/s"},
]
BATCH, MOST_PES = 16, 192
NAMES = {Status.RUNS: "runs", Status.LEFT_OUT: "left out", Status.NO_ROOM: "no room"}
REFUSED = f"at most {MOST_PES} PEs"


def machines() -> Iterator[AcceleratorSpec]:
    base = load_spec("sat-ecp5")
    for rows, cols, sums, west, north, rate in product(*AXES.values()):
        yield replace(
            base,
            array=replace(base.array, rows=rows, cols=cols),
            pe=replace(base.pe, accumulators=sums),
            buffers=BufferSpec(w2e_bytes=west, n2s_bytes=north, output_bytes=base.buffers.output_bytes),
            dram=replace(base.dram, bytes_per_second=rate),
        )


@cache
def small() -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Points, front and summary of 864 variants of sat-ecp5, training resnet9 under BDWP 2:8."""
    work = annotate(trace_step(zoo.source("resnet9"), batch=BATCH), "bdwp", NMPattern.parse("2:8"))
    specs = list(machines())
    axes = pd.DataFrame(list(product(*AXES.values())), columns=list(AXES))
    pes = (axes["array.rows"] * axes["array.cols"]).to_numpy()
    held = np.array([s.buffers.w2e_bytes + s.buffers.n2s_bytes + s.buffers.output_bytes for s in specs])
    allowed = np.flatnonzero(pes <= MOST_PES)
    rates = axes["dram.bytes_per_second"].to_numpy(float)
    costs = np.stack((pes, held, rates), axis=1)[allowed]
    found = front(work, [specs[i] for i in allowed], costs)
    frame = _frame(axes, pes, held)
    ran = allowed[found.status == Status.RUNS]
    frame.loc[allowed, "status"] = [NAMES[Status(s)] for s in found.status]
    frame.loc[frame["status"] == "refused", "reason"] = REFUSED
    frame.loc[allowed, "bound_cycles"] = found.bound
    frame.loc[allowed, "cycles"] = found.cycles
    frame.loc[allowed, "dram_bytes"] = found.dram_bytes
    frame.loc[ran, "seconds"] = frame.loc[ran, "cycles"] / specs[0].clock_hz
    frame.loc[ran, "samples_per_second"] = BATCH / frame.loc[ran, "seconds"]
    best = frame.loc[allowed[found.best]].copy()
    best["system_gap"] = -0.01
    return frame, best, _summary(frame, AXES)


def _frame(axes: pd.DataFrame, pes: np.ndarray, held: np.ndarray) -> pd.DataFrame:
    """Of the contract's columns, with nothing decided."""
    n = len(axes)
    frame = pd.concat([pd.DataFrame({"point": np.arange(n)}), axes], axis=1)
    frame["status"], frame["reason"] = "refused", ""
    for name in ("cycles", "bound_cycles", "dram_bytes"):
        frame[name] = np.zeros(n, np.int64)
    for name in ("seconds", "joules", "lut", "samples_per_second"):
        frame[name] = np.full(n, np.nan)
    frame["pes"], frame["buffer_bytes"] = pes, held
    return frame


def _summary(frame: pd.DataFrame, axes: dict[str, list[Any]]) -> dict[str, Any]:
    refused = frame.loc[frame["status"] == "refused", "reason"].value_counts()
    return {
        "weft_version": "0.1.0",
        "model": "resnet9, batch 16, bdwp 2:8",
        "machine": "sat-ecp5",
        "axes": axes,
        "objectives": OBJECTIVES,
        "points": len(frame),
        "statuses": frame["status"].value_counts().to_dict(),
        "refused_by": {str(name): int(count) for name, count in refused.items()},
        "importances": {
            "cycles": [{"axis": a, "share": s} for a, s in zip(axes, (0.44, 0.3, 0.02, 0.05, 0.04, 0.1), strict=False)],
            "pes": [{"axis": a, "share": s} for a, s in zip(axes, (0.6, 0.4), strict=False)],
        },
        "advice": ["More DRAM bandwidth helps most from here on."],
        "command": "weft explore ecp5.toml -o out/ecp5",
    }


def large(rows: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """``rows`` machines whose numbers follow no simulator but look like one's; objectives as above and energy."""
    draw = np.random.default_rng(seed)
    axes = pd.DataFrame({name: draw.choice(values, rows) for name, values in AXES.items()})
    axes["wuve.lanes"] = draw.integers(1, 200, rows)
    axes["arch"] = draw.choice(["sat", "flat"], rows)
    pes = (axes["array.rows"] * axes["array.cols"]).to_numpy()
    held = (axes["buffers.w2e_bytes"] + axes["buffers.n2s_bytes"]).to_numpy()
    frame = _frame(axes, pes, held)
    work = 4e10 * (1 + draw.exponential(0.2, rows))
    least = (work / pes + 3e15 / axes["dram.bytes_per_second"] ** 0.7 + 1e6 / axes["wuve.lanes"]).to_numpy()
    frame["bound_cycles"] = least.astype(np.int64)
    cycles = (least * (1 + draw.exponential(0.002, rows))).astype(np.int64) + 1
    kind = draw.choice(["runs", "left out", "refused", "no room"], rows, p=[0.55, 0.3, 0.1, 0.05])
    frame["status"] = kind
    frame["reason"] = np.where(kind == "refused", draw.choice(["lut", "bram", "closes the clock"], rows), "")
    ran = kind == "runs"
    frame.loc[ran, "cycles"] = cycles[ran]
    frame.loc[ran, "seconds"] = cycles[ran] / 60e6
    frame.loc[ran, "samples_per_second"] = BATCH / frame.loc[ran, "seconds"]
    frame.loc[ran, "joules"] = (1e-9 * cycles + 0.02 * pes)[ran] * (1 + draw.exponential(0.3, rows))[ran]
    order = frame[ran].sort_values(["cycles", "pes"])
    best = order[order["pes"] < order["pes"].cummin().shift(fill_value=10**9)]
    summary = _summary(frame, {**AXES, "wuve.lanes": sorted(set(axes["wuve.lanes"].tolist())), "arch": ["sat", "flat"]})
    summary["objectives"] = [*OBJECTIVES, {"name": "joules", "direction": "min", "unit": "J"}]
    return frame, best, summary


def write(folder: Path, found: tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]], part: int = 300) -> Path:
    """``folder`` as `weft explore` leaves it, ``part`` points a file."""
    frame, best, summary = found
    (folder / "points").mkdir(parents=True)
    for number, start in enumerate(range(0, len(frame), part)):
        # Each part numbers its words its own way.
        words = {name: "category" for name in ("status", "reason", "arch") if name in frame.columns}
        some = frame.iloc[start : start + part].astype(words)
        some.to_parquet(folder / "points" / f"{number:06}.parquet", index=False)
    best.to_parquet(folder / "front.parquet", index=False)
    (folder / "explore.json").write_text(json.dumps(summary))
    return folder


def summary_of(found: tuple[pd.DataFrame, pd.DataFrame | None, dict[str, Any]]) -> Summary:
    """What the page reads of `explore.json`."""
    return read_json(Summary, json.dumps(found[2]), "explore.json")
