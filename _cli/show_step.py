"""What `weft run` shows of a simulated step: the verdict first, then where the time and the energy go."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .console import CAUSE_WORDS, get_console, heading, make_table, percent, rate, si

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..analysis.energy import EnergyReport
    from ..analysis.throughput import Throughput
    from ..simulator.result import SimResult
    from ..simulator.system import SystemResult

__all__ = ["show_run", "show_system"]

_SLOWEST = 10
_NAMED = 3

_WAITS = {
    "busy": "busy", "fill_drain": "fill, drain", "dram": "DRAM", "sore": "SORE", "dependency": "earlier op",
    "idle": "idle",
}  # fmt: skip


def show_run(result: SimResult, digest: str) -> None:
    """The verdict first, then where the time goes."""
    from ..analysis.energy import energy

    console, report = get_console(), energy(result)
    _show_verdict(console, result, report, digest)
    console.print(_passes(result, report))
    console.print(_causes(result))
    console.print(_slowest(result))
    _show_dense_layers(console, result)
    _show_measured(console, result)
    _show_energy(console, report)


def show_system(result: SystemResult, digest: str, timeline: Path | None) -> None:
    """The verdict with ops overlapped, what that saves, and what every engine did or waited for."""
    from ..analysis.energy import energy
    from ..analysis.system import system_throughput, use_shares

    console, step, report = get_console(), result.step, energy(result.step)
    _show_verdict(console, step, report, digest, system_throughput(result))
    saved = 1 - result.cycles / step.cycles.total
    console.print(
        f"{result.cycles:,} cycles with ops overlapped, {100 * saved:.1f} % fewer than the {step.cycles.total:,} that "
        "they take one after the other"
    )
    rows = [
        (name, *(f"{100 * share:.1f} %" if share else "" for share in use_shares(use).values()))
        for name, use in result.engines.items()
    ]
    console.print(make_table("Engines: busy, or waiting for", ("engine", *_WAITS.values()), rows))
    dram = step.spec.dram
    reached, peak = 100 * result.dram_share_of_peak, si(dram.bytes_per_second, "B/s")
    console.print(
        f"Busy DRAM moves {reached:.1f} % of its peak of {peak}: what {dram.kind} gives the shapes of transfers\n"
    )
    need, capacity = result.memory, dram.capacity_bytes
    parts = [(name.replace("_", " "), si(size, "B")) for name, size in asdict(need).items() if size]
    console.print(
        make_table("DRAM at the peak of the step, at most", ("kind", "bytes"), [*parts, ("all", si(need.total, "B"))])
    )
    if capacity is not None:
        console.print(f"{percent(need.total, capacity)} of the {si(capacity, 'B')} there are.")
    _show_dense_layers(console, step)
    _show_energy(console, report)
    if timeline is not None:
        console.print(f"Timeline: {timeline} (open it at https://ui.perfetto.dev)")


def _show_verdict(
    console: Console, result: SimResult, report: EnergyReport, digest: str, speed: Throughput | None = None
) -> None:
    from ..analysis.throughput import throughput

    speed = speed or throughput(result)
    console.print(
        f"{rate(speed.samples_per_s)} samples/s   {si(speed.seconds, 's')} a step   "
        f"utilisation {100 * speed.utilization:.1f} %   {si(report.joules, 'J')} a step",
        style="bold",
    )
    console.print(heading(result.workload))
    console.print(f"on {result.spec.name} ({digest}), scheduled for {result.objective.aim}")
    console.print(
        f"{si(1e9 * speed.effective_gops, 'OP/s')} effective, "
        f"{si(1e9 * speed.dense_equivalent_gops, 'OP/s')} dense-equivalent, of "
        f"{si(1e9 * speed.peak_gops, 'OP/s')} peak; {si(result.counts.dram_bytes, 'B')} of DRAM traffic\n"
    )


def _passes(result: SimResult, report: EnergyReport) -> Table:
    from ..analysis.records import pass_records

    total, peak = result.cycles.total, result.spec.macs_per_cycle
    rows = [
        (
            str(p), f"{r['cycles']:,}", percent(r["cycles"], total), f"{r['macs']:,}",
            percent(r["macs"], r["cycles"] * peak), si(r["energy_j"], "J"),
        )
        for p, r in pass_records(result, report).items()
    ]  # fmt: skip
    rows.append(
        (
            "step", f"{total:,}", "", f"{result.counts.macs:,}", percent(result.counts.macs, total * peak),
            si(report.joules, "J"),
        )
    )  # fmt: skip
    return make_table("By pass", ("pass", "cycles", "share", "MACs", "utilisation", "energy"), rows)


def _causes(result: SimResult) -> Table:
    cycles = result.cycles
    found = [(cause, getattr(cycles, cause)) for cause in CAUSE_WORDS]
    rows = [
        (cause.replace("_", " "), CAUSE_WORDS[cause], f"{n:,}", percent(n, cycles.total)) for cause, n in found if n
    ]
    return make_table("By cause", ("cause", "", "cycles", "share"), rows, left=2)


def _slowest(result: SimResult) -> Table:
    from ..analysis.layer_groups import short_labels
    from ..analysis.records import CAUSES, layer_of

    spent: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for op in result.ops:
        layer = spent[layer_of(op)]
        layer[str(op.op.pass_)] += op.cycles.total
        layer["all"] += op.cycles.total
        for cause in CAUSES:
            layer[cause] += getattr(op.cycles, cause)
    rows = []
    worst_first = sorted(spent.items(), key=lambda item: -item[1]["all"])[:_SLOWEST]
    labels = dict(zip(spent, short_labels(list(spent), longest=33), strict=True))
    for name, of in worst_first:
        worst = max(CAUSES, key=lambda cause: of[cause])
        passes = (percent(of[p], of["all"]) if of[p] else "" for p in ("FF", "BP", "WU", "OPT"))
        rows.append(
            (labels[name], worst.replace("_", " "), f"{of['all']:,}", percent(of["all"], result.cycles.total), *passes)
        )
    title = f"Slowest layers ({min(_SLOWEST, len(spent))} of {len(spent)})"
    return make_table(title, ("layer", "mostly", "cycles", "share", "FF", "BP", "WU", "OPT"), rows, left=2)


def _show_dense_layers(console: Console, result: SimResult) -> None:
    from ..analysis.records import dense_layers

    names: dict[str, list[str]] = defaultdict(list)
    for layer in dense_layers(result):
        names[layer["reason"]].append(layer["name"])
    if not names:
        return
    console.print("Kept dense", style="bold")
    for reason, layers in names.items():
        more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
        console.print(f"  {reason}: {', '.join(layers[:_NAMED])}{more}")
    console.print()


def _show_measured(console: Console, result: SimResult) -> None:
    from ..analysis.records import measured_means

    means = measured_means(result)
    if not means:
        return
    densities = ", ".join(f"{p} {means[p]:.3g}" for p in ("FF", "BP", "WU") if p in means)
    console.print("Measured in training", style="bold")
    changes = [(means.get("sad"), "since the first step"), (means.get("flip_rate"), "in the last one")]
    said = [f"{100 * share:.3g} % {when}" for share, when in changes if share is not None]
    console.print(f"  density {densities or '-'}; masks changed: {', '.join(said) or '-'}")
    console.print("  A kept element that is zero is issued all the same, so none of this changes the cycles.\n")


def _show_energy(console: Console, report: EnergyReport) -> None:
    parts = sorted(report.by_component.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{part} {percent(joules, report.joules)}" for part, joules in parts if joules)
    console.print("Energy", style="bold")
    console.print(f"  {shares}")
    console.print(f"  table {report.table.name}: {report.table.title}")
    console.print(f"  scaling: {report.table.scaling}")
    for left_out in report.table.not_counted:
        console.print(f"  not counted: {left_out}")
