"""What `weft run` shows of a simulated step: the verdict first, then where the time and the energy go."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from .console import get_console, heading, make_table, name_of, percent, rate, si

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..analysis.energy import EnergyReport
    from ..analysis.level import AnyResult
    from ..simulator.result import SimResult
    from ..simulator.system_result import SystemResult
    from ..workloads.step import Workload

__all__ = ["show_run", "show_system"]

_SLOWEST = 10
_NAMED = 3
_GAP = 3
"""Characters between two columns of a table."""
_LEAST_NAME = 24
"""Characters that a layer may take, however narrow the terminal."""
_FUSED = 5

_WAITS = {
    "busy": "busy",
    "fill_drain": "fill, drain",
    "dram": "DRAM",
    "sore": "SORE",
    "dependency": "earlier op",
    "idle": "idle",
}


def show_run(result: SimResult, digest: str) -> None:
    """The verdict first, then where the time goes."""
    from ..analysis.energy import energy

    console, report = get_console(), energy(result)
    _show_verdict(console, result, report, digest)
    console.print(_passes(result, report))
    console.print(_causes(result))
    console.print(_slowest(result))
    _show_fused(console, result)
    _show_resident(console, result)
    _show_layer_patterns(console, result.workload)
    _show_constrained(console, result)
    _show_masks(console, result)
    _show_dense_layers(console, result)
    _show_assumed(console, result.workload)
    _show_measured(console, result)
    _show_cheaper(console, result)
    _show_energy(console, report)


def _show_fused(console: Console, result: SimResult) -> None:
    """What joined vector work reads and writes no more, by the op that it is joined to, the most first."""
    from ..analysis.fused import savings

    found = savings(result)
    if not found:
        return
    read, write = sum(s.read for s in found), sum(s.write for s in found)
    console.print(
        f"Fused ({result.workload.fusion}): {si(write, 'B')} not written, {si(read, 'B')} not read, "
        f"in {len(found)} groups"
    )
    for one in found[:_FUSED]:
        what = ", ".join(one.what)
        saved = f"{si(one.write, 'B')} not written, {si(one.read, 'B')} not read"
        console.print(f"  fused into {name_of(one.into)} ({one.pass_}): {saved}: {name_of(what)}")
    if len(found) > _FUSED:
        console.print(f"  and {len(found) - _FUSED} more, in the ops of workload.json (-o)")


def _show_resident(console: Console, result: SimResult) -> None:
    """What stays on chip, and what DRAM then moves no more, the most first."""
    from ..analysis.resident import resident_words

    found, said = result.residency, resident_words(result)
    if found is None or said is None:
        return
    console.print(said)
    for one in found.kept[:_FUSED]:
        saved = f"{si(one.write, 'B')} not written, {si(one.read, 'B')} not read"
        console.print(f"  {one.kind} of {name_of(one.name)}, {si(one.size, 'B')}: {saved}")
    if len(found.kept) > _FUSED:
        console.print(f"  and {len(found.kept) - _FUSED} more, in --json")


def _show_cheaper(console: Console, result: SimResult) -> None:
    from ..analysis.cheaper import cheaper
    from ..analysis.words import joules

    found = None if any(op.constrained for op in result.ops) else cheaper(result)
    if found is not None:
        time = f"{100 * found.slower:.1f} % more time" if found.slower > 0 else "no more time"
        saved = f"{joules(found.joules)}, {100 * found.saved:.0f} % less energy"
        console.print(f"--objective {found.objective} takes {saved}, for {time}.")


def show_system(result: SystemResult, digest: str, timeline: Path | None) -> None:
    """The verdict with ops overlapped, what that saves, and what every engine did or waited for."""
    from ..analysis.energy import energy
    from ..analysis.system import use_shares
    from ..analysis.words import percents

    console, step, report = get_console(), result.step, energy(result)
    _show_verdict(console, result, report, digest)
    saved = 1 - result.cycles / step.cycles.total
    console.print(
        f"{result.cycles:,} cycles with ops overlapped, {100 * saved:.1f} % fewer than the {step.cycles.total:,} that "
        "they take one after the other"
    )
    rows = [
        (name, *(f"{share} %" if part else "" for part, share in zip(parts, percents(parts), strict=True)))
        for name, parts in ((name, list(use_shares(use).values())) for name, use in result.engines.items())
    ]
    console.print(make_table("Engines: busy, or waiting for", ("engine", *_WAITS.values()), rows))
    dram = step.spec.dram
    reached, peak = 100 * result.dram_share_of_peak, si(dram.bytes_per_second, "B/s")
    console.print(
        f"Busy DRAM moves {reached:.1f} % of its peak of {peak}: what {dram.kind} gives the shapes of transfers\n"
    )
    need, capacity = result.memory, dram.capacity_bytes
    parts = [(kind, si(size, "B")) for kind, size in need.parts.items()]
    console.print(make_table(need.words, ("kind", "bytes"), [*parts, ("all", si(need.total, "B"))]))
    if capacity is not None:
        console.print(f"{percent(need.total, capacity)} of the {si(capacity, 'B')} there are.")
    _show_fused(console, step)
    _show_resident(console, step)
    _show_layer_patterns(console, step.workload)
    _show_constrained(console, step)
    _show_masks(console, step)
    _show_dense_layers(console, step)
    _show_energy(console, report)
    if timeline is not None:
        console.print(f"Timeline: {timeline} (open it at https://ui.perfetto.dev)")


def _show_verdict(console: Console, result: AnyResult, report: EnergyReport, digest: str) -> None:
    from ..analysis.bands import band_words
    from ..analysis.level import level_words, step_of
    from ..analysis.throughput import throughput

    speed, step = throughput(result), step_of(result)
    console.print(
        f"{rate(speed.samples_per_s)} samples/s   {si(speed.seconds, 's')} a step   "
        f"utilisation {100 * speed.utilization:.1f} %   {band_words(report.band)} a step",
        style="bold",
    )
    console.print(heading(step.workload))
    console.print(f"on {name_of(step.spec.name)} ({digest}), scheduled for {step.objective.aim}, {level_words(result)}")
    console.print(
        f"{si(1e9 * speed.effective_gops, 'OP/s')} effective, "
        f"{si(1e9 * speed.dense_equivalent_gops, 'OP/s')} dense-equivalent, of "
        f"{si(1e9 * speed.peak_gops, 'OP/s')} peak; {si(step.counts.dram_bytes, 'B')} of DRAM traffic\n"
    )


def _passes(result: SimResult, report: EnergyReport) -> Table:
    from ..analysis.records import pass_records
    from ..analysis.words import percents_of

    total, records = result.cycles.total, pass_records(result, report)
    shares = percents_of({p: r["cycles"] for p, r in records.items()})
    rows = [
        (
            str(p),
            f"{r['cycles']:,}",
            f"{shares[p]} %",
            f"{r['macs']:,}",
            percent(float(result.ideal_cycles(result.select(p))), r["cycles"]),
            si(r["energy_j"], "J"),
        )
        for p, r in records.items()
    ]
    rows.append(
        (
            "step",
            f"{total:,}",
            "",
            f"{result.counts.macs:,}",
            percent(float(result.ideal_cycles(result.ops)), total),
            si(report.joules, "J"),
        )
    )
    return make_table("By pass", ("pass", "cycles", "share", "MACs", "utilisation", "energy"), rows)


def _causes(result: SimResult) -> Table:
    from ..analysis.words import percents_of
    from ..dataflow.account import declared_causes, items

    found, declared = items(result.cycles), declared_causes(type(result.cycles))
    shares = percents_of(found)
    rows = [
        (cause.replace("_", " "), declared[cause].means, f"{n:,}", f"{shares[cause]} %")
        for cause, n in found.items()
        if n
    ]
    return make_table("By cause", ("cause", "", "cycles", "share"), rows, left=2)


def _slowest(result: SimResult) -> Table:
    from ..analysis.layer_groups import bar_labels, equal_layers
    from ..analysis.records import layer_of
    from ..analysis.words import apportion, percents_of
    from ..dataflow.account import items

    group_of = equal_layers(result)
    spent: dict[str, dict[str, int]] = {name: defaultdict(int) for name in group_of.values()}
    causes = items(result.cycles)
    for op in result.ops:
        layers = spent[group_of[layer_of(op)]]
        layers[str(op.op.pass_)] += op.cycles.total
        layers["all"] += op.cycles.total
        for cause, n in items(op.cycles).items():
            layers[cause] += n
    many = Counter(group_of.values())
    shares = percents_of({name: of["all"] for name, of in spent.items()})
    numbers = {}
    for name, of in sorted(spent.items(), key=lambda item: -item[1]["all"])[:_SLOWEST]:
        worst = max(causes, key=lambda cause: of[cause])
        by_pass = [of[p] for p in ("FF", "BP", "WU", "OPT")]
        passes = (str(share) if n else "" for n, share in zip(by_pass, apportion(100, by_pass), strict=True))
        numbers[name] = (worst.replace("_", " "), f"{of['all']:,}", shares[name], *passes)
    columns = ("mostly", "cycles", "%", "FF", "BP", "WU", "OPT")
    taken = sum(_GAP + max(map(len, column)) for column in zip(columns, *numbers.values(), strict=True))
    room = max(_LEAST_NAME, get_console().width - taken - _GAP)
    labels = dict(zip(spent, bar_labels({name: many[name] for name in spent}, room), strict=True))
    rows = [(labels[name], *cells) for name, cells in numbers.items()]
    title = f"Slowest layers ({len(rows)} of {len(spent)}; {len(group_of)} where those of equal shape are not one)"
    return make_table(title, ("layer", *columns), rows, left=2)


def _show_layer_patterns(console: Console, workload: Workload) -> None:
    from ..workloads.schemes.annotate import layers_by_rule

    found = layers_by_rule(workload)
    if not found:
        return
    console.print(f"By layer, {workload.pattern} elsewhere", style="bold")
    for rule, layers in found.items():
        more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
        named = f"{', '.join(map(name_of, layers[:_NAMED]))}{more}" if layers else "no layer, later rules hold for all"
        console.print(f"  {name_of(str(rule))}: {named}")
    console.print()


def _show_constrained(console: Console, result: SimResult) -> None:
    from ..analysis.records import constrained_sums

    if result.mapping is None:
        return
    n = constrained_sums(result)
    console.print(f"Mappings as {name_of(result.mapping.source)} asks", style="bold")
    for what, unit in (("cycles", "cycles"), ("dram_bytes", "bytes of DRAM traffic")):
        taken, free = n[what], n[f"free_{what}"]
        more = (
            f"{100 * abs(taken / free - 1):.1f} % {'more' if taken > free else 'fewer'}"
            if taken != free
            else "the same"
        )
        console.print(f"  {n['ops']} ops: {taken:,} {unit}; searched freely {free:,}: {more}")
    console.print()


def _show_masks(console: Console, result: SimResult) -> None:
    """What is known of masks without a pattern, and how far to trust it."""
    from ..workloads.operand import Gathered
    from ..workloads.step import MatrixOp

    forms = Counter(
        str(r.op.sparse) for r in result.ops if isinstance(r.op, MatrixOp) and isinstance(r.op.sparse, Gathered)
    )
    rows = Counter(str(r.op.rows) for r in result.ops if isinstance(r.op, MatrixOp) and r.op.rows is not None)
    for title, what, found in (("Zeros without a pattern", "gather", forms), ("Rows left out", "read rows:", rows)):
        if found:
            console.print(title, style="bold")
            for form, count in found.most_common(_NAMED):
                console.print(f"  {count} products {what} {form}")
            console.print()


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
        console.print(f"  {reason}: {', '.join(map(name_of, layers[:_NAMED]))}{more}")
    console.print()


def _show_assumed(console: Console, workload: Workload) -> None:
    if not workload.assumed:
        return
    console.print("Assumed", style="bold")
    for answer in workload.assumed:
        # In full: it is a sentence, whose end says what the answer is.
        console.print(f"  {answer}")
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
    """Shares, and one line of how far to trust them; `weft explain energy` has the rest."""
    from ..analysis.energy_table import Mark
    from ..analysis.words import percents_of

    if not report.zeptojoules:
        return
    parts = {part: j for part, j in sorted(report.by_component.items(), key=lambda item: -item[1]) if j}
    shares = ", ".join(f"{part} {share} %" for part, share in percents_of(parts).items() if share != "0.0")
    guessed = sum(report.by_mark[mark] for mark in (Mark.INFERRED, Mark.ASSUMED))
    console.print(f"Energy: {shares}")
    said = f"{percent(guessed, report.joules)} inferred or assumed; weft explain energy"
    console.print(f"Table {name_of(report.table.name)}: {said}")
