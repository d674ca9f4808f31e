"""What docs/results/which-machine.md shows, of explorations: `python -m weft.tests.machines_page OUT` makes it.

OUT holds a folder a space, named as in `STUDIES`. Its tables go between the marks of the page, its rows to
docs/results/which-machine.csv, its pictures to docs/images; the words round the tables stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import weft
from weft.analysis.area_by_shape import area_of_shape
from weft.analysis.energy import energy
from weft.analysis.explore.infeasible import broken
from weft.analysis.explore.machines import Machines
from weft.analysis.explore.saved import Explored, read_explored
from weft.analysis.pictures import pictures
from weft.analysis.theme import theme_of
from weft.dataflow.accelerator import AcceleratorSpec
from weft.hdl.flow.devices import DEVICES
from weft.simulator.system import simulate_system
from weft.workloads.files import write_atomically
from weft.workloads.step import Workload

from .study_page import ROOT

PAGE, ROWS = (ROOT / "docs" / "results" / f"which-machine.{kind}" for kind in ("md", "csv"))
BEGIN, END = "<!-- tables begin -->", "<!-- tables end -->"
PRESETS = {"xcup": "sat-vcu1525", "ecp5": "sat-ecp5"}
BOARD = ("vector.lanes", "dram.bytes_per_second")
"""What no LUT is counted for: a machine is also looked for among those that have as much of it as the preset."""
COUNTS = ("lut_sites", "ff", "dsp", "bram", "uram")
CHANNEL = {"xcup": 19_200_000_000, "ecp5": 1_600_000_000}
HEAD = (
    *("array", "sums", "XNOR", "SORE, WUVE, vector lanes", "buffers, KiB", "channels", "s a step", "against preset"),
    *("samples/s", "overlapped, s", "J", "LUT", "DSP"),
)
SPACE_HEAD = (
    *("space", "points", "run", "refused by LUTs / registers / DSPs / memory", "area not known", "no tile fits"),
    *("on the front", "the front overlapped", "what moved the time, %"),
)
WORDS = {"smaller": "smallest, no slower", "same board": "fastest", "any": "fastest, any lanes and channels"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


@dataclass(frozen=True)
class Study:
    """A model on a device, by the folder of its exploration; ``engine``: whether machines have an XNOR engine."""

    folder: str
    model: str
    engine: bool | None = None


STUDIES = (
    Study("resnet50-vu9p", "ResNet-50"),
    Study("vit-vu9p", "ViT-B/16"),
    Study("bitnet-vu9p", "BitNet 2B", engine=True),
    Study("bitnet-vu9p_without", "BitNet 2B", engine=False),
    Study("resnet50-ecp5", "ResNet-50"),
    Study("vit-ecp5", "ViT-B/16"),
    Study("bitnet-ecp5", "BitNet 2B", engine=True),
    Study("bitnet-ecp5_without", "BitNet 2B", engine=False),
)


@cache
def work(model: str, batch: int | None, seq: int | None, scheme: str, nm: str) -> Workload:
    """A step under a scheme."""
    return weft.sparsify(weft.trace(model, batch=batch, seq=seq), scheme, nm or None)


def machine_of(arch: str, values: Mapping[str, Any]) -> AcceleratorSpec:
    """``arch`` with ``values`` by path."""
    given = {name: int(value) for name, value in values.items() if not pd.isna(value)}
    return Machines({arch: weft.machine(arch)}, tuple(given)).at(arch, given)


def measured(step: Workload, spec: AcceleratorSpec, device: Any) -> dict[str, Any]:
    """A machine by its own schedule: cycles, seconds, joules, what it takes of a device."""
    schedule = weft.schedule(step, spec, "cycles")
    result = weft.simulate(schedule)
    area = area_of_shape(spec, device)
    taken = {name: sum(item.count * getattr(item, name) for item in area.items) for name in COUNTS}
    system = simulate_system(schedule).cycles
    return {
        "cycles": result.cycles.total,
        "system_cycles": system,
        "dram_bytes": result.counts.dram_bytes,
        "seconds": result.cycles.total / spec.clock_hz,
        "system_seconds": system / spec.clock_hz,
        "joules": energy(result).joules,
        **taken,
    }


def rows(study: Study, found: Explored) -> Iterator[dict[str, Any]]:
    """The preset; with as much as it has of what is not counted, the smallest that is no slower, and the fastest; and
    the fastest of all."""
    space, points = found.space, found.frame()
    device = space.constraints.device
    assert device is not None, "every space of the study has one"
    names = [*found.summary["axes"], *found.summary["tied"]]
    fits = points[points["status"] == "runs"].sort_values(["seconds", "lut", "buffer_bytes", "point"])
    preset = weft.machine(space.arch)
    board = np.logical_and.reduce([fits[name] == _field(preset, name) for name in BOARD])
    nm = "" if space.scheme == "bitnet" else space.nm
    model = "examples/spaces/bitnet-2b.json" if space.model.endswith("bitnet-2b.json") else space.model
    given = {"model": model, "batch": space.batch, "seq": space.seq, "scheme": space.scheme, "nm": nm}
    step = work(str(ROOT / model) if "/" in model else model, space.batch, space.seq, space.scheme, nm)
    own = measured(step, preset, device)
    small = fits[board & (fits["seconds"] <= own["seconds"])].sort_values(["lut", "seconds", "buffer_bytes", "point"])
    chosen = {"preset": None, "smaller": small.iloc[0], "same board": fits[board].iloc[0], "any": fits.iloc[0]}
    for what, row in chosen.items():
        values = {name: _field(preset, name) if row is None else row[name] for name in names}
        made = own if row is None else measured(step, machine_of(space.arch, values), device)
        assert row is None or made["cycles"] == row["cycles"], "a point is what its own schedule is"
        yield {"study": study.folder, "what": what, "device": device, "arch": space.arch, **given, **values, **made}


def _field(spec: AcceleratorSpec, path: str) -> Any:
    found: Any = spec
    for name in path.split("."):
        found = getattr(found, name)
    return found


def table(frame: pd.DataFrame, device: str) -> str:
    """Markdown of a device's machines."""
    has, names = DEVICES[device].has, {study.folder: study for study in STUDIES}
    kind = "uram" if has.uram else "bram"
    head = " | ".join((*HEAD, kind.upper()))
    said = [f"| {DEVICES[device].name} | machine | {head} |", "|---" * 16 + "|"]
    for study, group in frame[frame["device"] == device].groupby("study", sort=False):
        preset = group[group["what"] == "preset"].iloc[0]
        for _, row in group.iterrows():
            spec = machine_of(row["arch"], {n: row[n] for n in frame if "." in n})
            xnor = "-" if spec.xnor is None else f"{spec.xnor.rows} x {spec.xnor.cols} of {spec.xnor.word_bits}"
            sizes = (spec.buffers.w2e_bytes, spec.buffers.n2s_bytes, spec.buffers.output_bytes)
            of = names[str(study)]
            engine = {None: "", True: ", with XNOR", False: ", without"}[of.engine]
            what = f"`{row['arch']}`" if row["what"] == "preset" else WORDS[row["what"]]
            cells = (
                f"{of.model}{engine}" if row["what"] == "preset" else "",
                what,
                f"{spec.array.rows} x {spec.array.cols}",
                spec.pe.accumulators,
                xnor,
                f"{spec.sore.lanes}, {spec.wuve.lanes}, {spec.vector.lanes}",
                " + ".join(f"{size // 1024:,}" for size in sizes),
                spec.dram.bytes_per_second // CHANNEL[device],
                f"{row['seconds']:,.4g}" if row["seconds"] < 1000 else f"{row['seconds']:,.0f}",
                f"{preset['seconds'] / row['seconds']:.2f}x",
                f"{row['batch'] / row['seconds']:.3g}",
                f"{row['system_seconds']:,.4g}" if row["system_seconds"] < 1000 else f"{row['system_seconds']:,.0f}",
                f"{row['joules']:,.3g}",
                f"{row['lut_sites']:,.0f}, {100 * row['lut_sites'] / has.lut:.0f} %",
                f"{100 * row['dsp'] / has.dsp:.0f} %",
                f"{100 * row[kind] / getattr(has, kind):.0f} %",
            )
            said.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(said)


def spaces(explored: Mapping[Study, Explored]) -> str:
    """Markdown: what became of the points of each space, and what moved the time."""
    said = [f"| {' | '.join(SPACE_HEAD)} |", "|---" * 9 + "|"]
    for study, found in explored.items():
        s, front = found.summary, found.front()
        points = found.frame(["status", "reason"])
        kinds = points[points["status"] == "refused"].groupby("reason", observed=True).size()
        by: dict[str, int] = {}
        for reason, count in kinds.items():
            for name in {one.constraint for one in broken("refused", str(reason))}:
                by[name] = by.get(name, 0) + int(count)
        gaps = front["system_gap"]
        shares = ", ".join(
            f"{one['axis']} {100 * one['share']:.0f}"
            for one in s["importances"].get("seconds", [])[:6]
            if one["share"] >= 0.005
        )
        memory = by.get("bram", 0) + by.get("uram", 0)
        other = s["points"] - s["statuses"].get("runs", 0) - s["statuses"].get("refused", 0)
        percent = partial(_percent, of=s["points"])
        cells = (
            f"`{study.folder}`",
            f"{s['points']:,}",
            percent(s["statuses"].get("runs", 0)),
            " / ".join(percent(n) for n in (by.get("lut", 0), by.get("ff", 0), by.get("dsp", 0), memory)),
            percent(by.get("area", 0)),
            percent(other),
            s["front"],
            f"{100 * gaps.min():+.1f} to {100 * gaps.max():+.1f} %",
            shares,
        )
        said.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(said)


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %" if count else "0"


def fronts_figure(explored: Mapping[Study, Explored], frame: pd.DataFrame, theme: str) -> Figure:
    """Times a step is as fast as on the preset against the share of the LUTs, a line a front."""
    look = theme_of(theme)
    with mpl.rc_context(look.rc):
        figure = Figure(figsize=(9.2, 4.4), layout="constrained")
        for ax, device in zip(figure.subplots(1, 2, sharey=True), PRESETS, strict=True):
            has = DEVICES[device].has.lut
            own = [study for study in explored if frame[frame["study"] == study.folder]["device"].iloc[0] == device]
            for colour, study in zip(COLOURS, own, strict=False):
                group = frame[(frame["study"] == study.folder) & (frame["what"] == "preset")].iloc[0]
                base = _base_seconds(frame, study, device)
                front = explored[study].front().sort_values("lut")
                label = study.model + {None: "", True: ", XNOR engine", False: ", no engine"}[study.engine]
                ax.step(100 * front["lut"] / has, base / front["seconds"], where="post", color=colour, label=label)
                ax.scatter(
                    100 * group["lut_sites"] / has,
                    base / group["seconds"],
                    marker="D",
                    s=26,
                    color=colour,
                    edgecolors=look.text,
                    linewidths=0.8,
                    zorder=4,
                )
            ax.set_title(f"{DEVICES[device].name}: times as fast as {PRESETS[device]}", loc="left", fontsize=10)
            ax.set_xlabel("% of the LUT sites, by Yosys' count")
            ax.set_yscale("log", base=2)
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
            ax.grid(alpha=0.3)
            ax.legend(fontsize=8, frameon=False, title="diamonds: as it ships", title_fontsize=8)
        return figure


def _base_seconds(frame: pd.DataFrame, study: Study, device: str) -> float:
    """Of the preset without an engine, of the same model."""
    same = [other.folder for other in STUDIES if other.model == study.model]
    of = frame[frame["study"].isin(same) & (frame["arch"] == PRESETS[device]) & (frame["what"] == "preset")]
    return float(of["seconds"].iloc[0])


def knobs_figure(explored: Mapping[Study, Explored], frame: pd.DataFrame, theme: str) -> Figure:
    """What each value of a knob costs at least: the best step with it, all other knobs free, over the best of all."""
    look = theme_of(theme)
    knobs = {
        "array.rows": "rows of the array",
        "array.cols": "columns of the array",
        "pe.accumulators": "sums a PE",
        "dram.bytes_per_second": "DRAM channels",
        "vector.lanes": "vector lanes",
        "wuve.lanes": "WUVE lanes",
        "sore.lanes": "SORE lanes",
        "buffers.w2e_bytes": "W2E and N2S buffers",
    }
    with mpl.rc_context(look.rc):
        figure = Figure(figsize=(9.2, 4.8), layout="constrained")
        axes = figure.subplots(2, 4, sharey=True).ravel()
        for ax, (name, words) in zip(axes, knobs.items(), strict=True):
            own = [study for study in explored if study.engine is None]
            for colour, study in zip(COLOURS, own, strict=False):
                preset = frame[(frame["study"] == study.folder) & (frame["what"] == "preset")].iloc[0]
                points = explored[study].frame(["status", "seconds", name])
                points = points[points["status"] == "runs"]
                least = points.groupby(name, observed=True)["seconds"].min()
                device = DEVICES[preset["device"]].name
                ax.plot(
                    least.index / preset[name],
                    least / least.min(),
                    marker="o",
                    markersize=3.5,
                    color=colour,
                    label=f"{study.model}, {device}",
                )
            ax.axvline(1, color=look.muted, linewidth=0.8, linestyle=":")
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}x" if value >= 1 else f"1/{1 / value:g}")
            ax.set_yscale("log", base=2)
            ax.set_yticks([1, 1.25, 1.5, 2])
            ax.minorticks_off()
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
            ax.set_title(words, loc="left", fontsize=9)
            ax.tick_params(labelsize=8)
            ax.grid(alpha=0.3)
        figure.supylabel("best step with it, over the best of all", fontsize=9)
        figure.supxlabel("value, against the preset's", fontsize=9)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, fontsize=8, frameon=False)
        return figure


def main(out: Path) -> None:
    explored = {study: read_explored(out / study.folder) for study in STUDIES if (out / study.folder).is_dir()}
    frame = pd.DataFrame([row for study, found in explored.items() for row in rows(study, found)])
    write_atomically(ROWS, frame.to_csv(index=False).encode())
    frame = pd.read_csv(ROWS)
    tables = "\n\n".join(
        [*(table(frame, device) for device in PRESETS if (frame["device"] == device).any()), spaces(explored)]
    )
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    write_atomically(PAGE, f"{before}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}".encode())
    for stem, draw in (("which-machine", fronts_figure), ("which-machine-knobs", knobs_figure)):
        for name, data in pictures(stem, partial(draw, explored, frame), ("light", "dark")).items():
            write_atomically(ROOT / "docs" / "images" / name, data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
