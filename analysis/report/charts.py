"""What the script draws: plain numbers in the units of the axes, and a figure of the page for each chart."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from ...workloads.words import joules_unit
from ..bins import BINS
from ..dram_time import DramData
from ..energy import ZJ_PER_J
from ..explore.front import pareto
from ..layer_groups import bar_labels
from ..promise import Promise, stage_words, stages
from ..roofline import farthest_below, group_point
from ..study_files import SavedStudy
from ..study_rows import by_table, row_name
from ..system import WAITS, use_shares
from ..tensor_energy import part_words, sums_of_parts
from ..theme import part_key
from ..words import time_unit
from .data import RunData, SystemData
from .folder import Run
from .groups import Group
from .markup import Html
from .parts import legend
from .tables import mapping_words, wait_name

__all__ = ["overview_data", "promise_data", "run_data", "study_data"]

WAIT_COLOURS = {
    "busy": "compute",
    "fill_drain": "fill_drain",
    "dram": "dram_stall",
    "sore": "sore",
    "dependency": "muted",
    "idle": "grid",
}


def overview_data(groups: Sequence[Group], datas: dict[int, RunData]) -> list[dict[str, Any]]:
    """Time of every run by cause; what it promises, and how long it takes with its ops overlapped."""
    made = []
    for group in groups:
        length, unit = time_unit(max(run.result.cycles.total / run.result.spec.clock_hz for run in group.runs))
        rows = []
        for run in group.runs:
            tick = run.result.spec.clock_hz * length
            promised = group.promised_seconds(run)
            rows.append(
                {
                    "label": run.name,
                    "causes": [n / tick for n in datas[id(run)].causes.values()],
                    "promised": None if promised is None else promised / length,
                    "overlapped": None if run.system is None else run.seconds / length,
                }
            )
        made.append({"unit": unit, "rows": rows})
    return made


def promise_data(group: Group, run: Run, found: Promise) -> dict[str, Any]:
    """The waterfall of one run, in the unit of its axis."""
    clock = run.result.spec.clock_hz
    length, unit = time_unit(found.dense / clock)
    rows = [
        {
            "label": stage.label,
            "cause": stage.cause,
            "whole": stage.whole,
            "from": float(stage.start) / clock / length,
            "to": float(stage.end) / clock / length,
            "words": stage_words(stage, found, clock),
        }
        for stage in stages(found)
    ]
    return {"unit": unit, "level": "with ops overlapped" if group.overlapped else "op after op", "rows": rows}


def run_data(data: RunData) -> dict[str, Any]:
    """Everything drawn about one run."""
    spec = data.run.result.spec
    length, unit = time_unit(data.run.result.cycles.total / spec.clock_hz)
    tick = spec.clock_hz * length

    def times(causes: dict[str, int]) -> list[float]:
        return [n / tick for n in causes.values()]

    return {
        "unit": unit,
        "passes": [
            {"label": str(p), "causes": times(causes)} for p, causes in data.passes.items() if any(causes.values())
        ],
        "layers": [
            {
                "label": bar.label,
                "causes": times(bar.cycles),
                "parts": [{"label": part.label, "causes": times(part.cycles)} for part in bar.parts],
            }
            for bar in data.bars
        ],
        "roofline": _roofline(data),
        "energy": _energy(data),
        "dram": None if data.dram is None else _dram(data, data.dram),
        "system": None if data.system is None else _system(data, data.system),
    }


def _roofline(data: RunData) -> dict[str, Any]:
    """A point of ops that are alike, the large ones first; those that lose most below their own roof have a name."""
    roof, result = data.roofline, data.run.result
    placed = [(group, point) for group in data.groups if (point := group_point(result, group)) is not None]
    found = sorted(((g, p) for g, p in placed if isfinite(p.intensity)), key=lambda pair: -pair[1].cycles)
    layers = {group.layer: group.layers for group, _ in found}
    short = dict(zip(layers, bar_labels(layers, longest=32), strict=True))
    named = {id(p) for p in farthest_below(p for _, p in found)}
    points = [
        {
            "name": p.name,
            "short": short[group.layer],
            "named": id(p) in named,
            "ops": len(group.ops),
            "pass": str(p.pass_),
            "x": p.intensity,
            "y": p.gmacs,
            "roof": p.gmacs / p.roof_gmacs,
            "memory": p.memory_bound,
            "share": p.cycles,
            "mapping": mapping_words(group.first),
        }
        for group, p in found
    ]
    return {"peak": roof.peak_gmacs, "sparse": roof.sparse_gmacs, "slope": roof.gbytes_per_s, "points": points}


def _energy(data: RunData) -> dict[str, Any]:
    """A row a pass, by part; the least, the likely and the most of it."""
    parts, bands = sums_of_parts(data.energy.values()), data.run.energy.pass_bands
    each, unit = joules_unit(max(band.high for band in bands.values()))
    return {
        "unit": unit,
        "parts": [{"key": part_key(part), "name": part_words(part)} for part in parts],
        "rows": [
            {
                "label": str(p),
                "causes": [spent.get(part, 0) / ZJ_PER_J / each for part in parts],
                "band": [end / each for end in bands[p]],
            }
            for p, spent in data.energy.items()
            if spent
        ],
    }


def _dram(data: RunData, dram: DramData) -> dict[str, Any]:
    spec = data.run.result.spec
    whole = dram.length / dram.rate / spec.clock_hz
    length, unit = time_unit(whole)
    per_bin = whole / BINS * 1e9
    return {
        "unit": unit,
        "end": whole / length,
        "bins": BINS,
        "peak": spec.dram.bytes_per_second / 1e9,
        "moved": [
            {"label": str(p), "colour": str(p).lower(), "gb": [float(f"{n / per_bin:.8g}") for n in moved]}
            for p, moved in dram.moved.items()
        ],
    }


def _system(data: RunData, system: SystemData) -> dict[str, Any]:
    run = data.run
    assert run.system is not None
    whole = run.system.end.max() / run.system.rate / run.result.spec.clock_hz
    length, unit = time_unit(whole)
    return {
        "unit": unit,
        "end": whole / length,
        "bins": BINS,
        "buffers": [
            {"label": name, "halves": [n / system.length for n in levels]} for name, levels in system.occupancy.items()
        ],
        "waits": [{"label": wait_name(w), "colour": WAIT_COLOURS.get(w, "port_stall")} for w in WAITS],
        "engines": [
            {"label": name, "shares": [100 * s for s in use_shares(use).values()]}
            for name, use in run.system.engines.items()
        ],
    }


def study_data(study: SavedStudy) -> list[dict[str, Any]]:
    """Validation accuracy over the speed-up of a step, a model each."""
    made = []
    for model, table in by_table(study.rows).items():
        rows = [r for r in table if r.validation is not None and r.speedup is not None]
        target = next((100 * row.target for row in rows if row.target is not None), None)
        at = [(row.speedup or 0.0, row.validation or 0.0) for row in rows]
        front = set(pareto(at, ("max", "max"), ties=True).tolist())
        points = [
            {
                "label": row_name(row),
                "x": row.speedup,
                "y": 100 * (row.validation or 0.0),
                "sd": 100 * (row.validation_sd or 0.0),
                "reached": row.reached == row.seeds,
                "named": i in front or row.reference,
            }
            for i, row in enumerate(rows)
        ]
        made.append({"model": model, "target": target, "points": points})
    return made


def cause_legend(causes: Sequence[dict[str, int]], names: dict[str, str]) -> Html:
    """Causes that anything was spent on, in the words of ``names``."""
    return legend([(name, c) for c, name in names.items() if any(of[c] for of in causes)])
