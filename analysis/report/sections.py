"""The sections of the page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from ...simulator.system import MOST_LOGGED
from ...workloads.gemm import Pass
from ..bands import band_words
from ..promise import promise_words, stages
from ..published import on_chip_words
from ..resident import resident_words
from ..study_files import SavedStudy, study_provenance
from ..study_rows import StudyRow, by_table, row_name
from ..tensor_energy import part_words, sums_of_parts
from ..theme import part_key
from ..words import percents, percents_of, seconds, step_name
from .charts import WAIT_COLOURS, cause_legend
from .data import RunData
from .folder import Run
from .groups import Group
from .headline import headline
from .levers import levers
from .markup import Html, element, joined
from .parts import chart, legend, sortable
from .tables import (
    OPS_WORDS,
    causes_table,
    cycles_table,
    energy_table,
    engines_table,
    ledger_table,
    levers_table,
    memory_need_table,
    moved_table,
    ops_table,
    passes_table,
    runs_table,
    study_table,
    wait_name,
)
from .verdict import study_verdict, verdict

__all__ = ["accuracy_section", "comparison_section", "runs_section", "time_section", "verdict_section"]

_ROW, _EDGES = 30, 90
"""Pixels of a row of a bar chart, and of its axis and title."""
_SHAPES = {Pass.FF: "forward, circle", Pass.BP: "input gradient, square", Pass.WU: "weight gradient, triangle"}


def verdict_section(groups: Sequence[Group], datas: dict[int, RunData], study: SavedStudy | None) -> Html:
    """Every group in words, with what would help as a table."""
    parts: list[Html] = []
    for group in groups:
        run = group.fastest
        changes = levers(run)
        parts += [headline(group), verdict(group, datas[id(run)], changes)]
        parts.append(element("details", element("summary", "As a table: what would help"), levers_table(run, changes)))
    return joined([*parts, study_verdict(study.rows) if study is not None else None])


def time_section(groups: Sequence[Group], datas: dict[int, RunData]) -> Html:
    """Time by cause of every run, and what schemes lose on their way."""
    parts: list[Html | None] = []
    numbers = count()
    for n, group in enumerate(groups):
        mine = [datas[id(run)] for run in group.runs]
        title = f"{step_name(group.runs[0].result.workload)}: time of a step by cause, ops one after the other"
        alt = "; ".join(_time_words(group, run, datas[id(run)]) for run in group.runs)
        marks = (
            [("ink", "if every layer kept the promise of the scheme")]
            if any(group.promised_seconds(run) is not None for run in group.runs)
            else []
        )
        marks += [("muted", "with ops overlapped")] if any(run.system is not None for run in group.runs) else []
        lines = (
            element(
                "ul",
                *(element("li", element("span", class_=f"tick c-{c}"), text) for c, text in marks),
                class_="legend",
            )
            if marks
            else None
        )
        parts.append(
            chart(
                "overview",
                n,
                title,
                alt,
                height=_EDGES + 2 * _ROW * len(mine),
                twin=causes_table(mine),
                above=joined([cause_legend([d.causes for d in mine], mine[0].names), lines]),
            )
        )
        for run in group.runs:
            parts.append(_promise(next(numbers), group, run) if group.promise(run) else _ledger(group, run))
    return joined(parts)


def _promise(number: int, group: Group, run: Run) -> Html:
    """The waterfall of a run, with every item of its ledger as a table."""
    found, ledger = group.promise(run), group.ledger(run)
    assert found is not None and ledger is not None
    words = promise_words(found)
    said = f"{words[0].upper()}{words[1:]}."
    return chart(
        "promise",
        number,
        f"{run.name}: from the promise to what it takes",
        said,
        height=_EDGES + 24 * len(stages(found)),
        twin=ledger_table(run.name, ledger),
        above=element("p", said),
    )


def _ledger(group: Group, run: Run) -> Html | None:
    ledger = group.ledger(run)
    if ledger is None:
        return None
    summary = element("summary", f"As a table: what {run.name} loses on its way")
    return element("details", summary, ledger_table(run.name, ledger))


def _time_words(group: Group, run: Run, data: RunData) -> str:
    every, share = sum(data.causes.values()), percents_of(data.causes)
    largest = sorted((c for c in data.names if data.causes[c]), key=lambda c: -data.causes[c])[:3]
    shares = ", ".join(f"{data.names[c]} {share[c]} %" for c in largest)
    alone = f"{seconds(every / run.result.spec.clock_hz)} op after op"
    took = alone if run.system is None else f"{seconds(run.seconds)} with ops overlapped, {alone}"
    return f"{run.name} {took}: {shares}"


def runs_section(runs: Sequence[Run], datas: dict[int, RunData]) -> Html:
    """Every run by itself; with a script one at a time."""
    fastest = min(range(len(runs)), key=lambda n: runs[n].seconds)
    chooser = None
    if len(runs) > 1:
        options = [element("option", run.label, value=str(n), selected=n == fastest) for n, run in enumerate(runs)]
        chooser = element("p", element("label", "Run ", element("select", *options, id="run")), class_="script-only")
    articles = [_run(n, run, datas[id(run)]) for n, run in enumerate(runs)]
    return joined([chooser, *articles])


def _run(n: int, run: Run, data: RunData) -> Html:
    about = element("p", element("code", run.command), class_="command") if run.command else None
    return element(
        "article",
        element("h3", run.label, id=f"run-{n}"),
        about,
        _passes(n, data),
        _layers(n, data),
        _roofline(n, data),
        _energy(n, data),
        _dram(n, run, data),
        _overlap(n, run, data),
        _schedule(n, data),
        class_="run",
        aria_labelledby=f"run-{n}",
        data_run=str(n),
    )


def _passes(n: int, data: RunData) -> Html:
    share = percents_of({p: sum(causes.values()) for p, causes in data.passes.items()})
    shown = [p for p, causes in data.passes.items() if any(causes.values())]
    alt = ", ".join(f"{p} {share[p]} %" for p in shown)
    return chart(
        "passes",
        n,
        "Time by pass and cause",
        alt,
        height=_EDGES + _ROW * len(shown),
        twin=passes_table(data),
        above=cause_legend([data.causes], data.names),
    )


def _layers(n: int, data: RunData) -> Html:
    share = percents(sum(bar.cycles.values()) for bar in data.bars)
    largest = sorted(zip(data.bars, share, strict=True), key=lambda found: -sum(found[0].cycles.values()))[:3]
    alt = "Largest: " + ", ".join(f"{bar.label} {text} %" for bar, text in largest)
    options = [element("option", "all layers", value="")]
    options += [element("option", bar.label, value=str(i)) for i, bar in enumerate(data.bars)]
    opener = element(
        "p",
        element("label", "Open ", element("select", *options, class_="open-layer", data_number=str(n))),
        class_="script-only",
    )
    twin = cycles_table("Cycles by layer and cause", data.names, [(bar.label, bar.cycles) for bar in data.bars])
    return chart(
        "layers", n, "Time by layer and cause", alt, height=_EDGES + 24 * len(data.bars), twin=twin, above=opener
    )


def _roofline(n: int, data: RunData) -> Html | None:
    points = data.roofline.points
    if not points:
        return None
    bound = sum(p.memory_bound for p in points)
    alt = f"{len(points)} matrix ops, {bound} bound by DRAM; the figures of each are in the schedule below."
    above = legend(
        [(f"{p} {text}", str(p).lower()) for p, text in _SHAPES.items() if any(q.pass_ == p for q in points)]
    )
    shapes = element(
        "p",
        "Ops that are alike, in layers of equal shape, are one point, as large as their time; dense "
        "multiply-accumulates, so a sparse op may pass the dense peak.",
        class_="muted",
    )
    return chart("roofline", n, "Roofline of the matrix ops", alt, height=440, above=joined([above, shapes]))


def _energy(n: int, data: RunData) -> Html | None:
    report = data.run.energy
    if not report.zeptojoules:
        return None
    sums = sums_of_parts(data.energy.values())
    share = percents_of(sums)
    alt = ", ".join(f"{part_words(part)} {share[part]} %" for part in sorted(sums, key=lambda part: -sums[part]))
    above = legend(
        [
            (f"{part_words(part)} {share[part]} %", part_key(part))
            for part, spent in sums.items()
            if spent >= 0.0005 * report.zeptojoules
        ]
    )
    figure = chart(
        "energy",
        n,
        f"Energy of a step, {band_words(report.band)}, by pass, tensor and part of the machine",
        alt,
        height=_EDGES + _ROW * sum(map(bool, data.energy.values())),
        twin=energy_table(data),
        above=above,
    )
    beside = on_chip_words(report)
    return joined([figure, None if beside is None else element("p", beside, class_="muted")])


def _dram(n: int, run: Run, data: RunData) -> Html:
    dram = data.dram
    if dram is None:
        return _too_many()
    sums = {p: sum(bins) for p, bins in dram.moved.items()}
    peak, moved, share = run.result.spec.dram.bytes_per_second / 1e9, sum(sums.values()), percents_of(sums)
    rate = moved / run.seconds / 1e9 if moved else 0.0
    held = resident_words(run.result)
    level = "ops overlapped" if run.system is not None else "op after op, the bytes of each spread over its time"
    figure = chart(
        "bandwidth",
        n,
        f"DRAM bandwidth over time, {level}",
        f"{moved / 1e9:.3g} GB in {seconds(run.seconds)}, {rate:.3g} of {peak:.3g} GB/s on average.",
        height=320,
        twin=moved_table(dram),
        above=legend([(f"{p} {share[p]} %", str(p).lower()) for p in sums]),
    )
    return joined([figure, None if held is None else element("p", held, class_="muted")])


def _too_many() -> Html:
    said = f"DRAM and buffers over time are kept of steps of up to {MOST_LOGGED:,} phases."
    return element("p", said, class_="muted")


def _overlap(n: int, run: Run, data: RunData) -> Html:
    if run.system is None or data.system is None:
        return element(
            "p",
            "What engines did and buffers held over time is of runs of ",
            element("code", "weft run --level system"),
            ".",
            class_="muted",
        )
    system = data.system
    engines = chart(
        "engines",
        n,
        "What every engine did",
        "Shares of the step by engine; see the table.",
        height=_EDGES + _ROW * len(run.system.engines),
        twin=engines_table(run),
        above=legend([(wait_name(wait), colour) for wait, colour in WAIT_COLOURS.items()]),
    )
    if not system.occupancy:
        return joined([engines, _too_many(), memory_need_table(run)])
    held = ", ".join(
        f"{name} {sum(levels) / system.length / len(levels):.2f}" for name, levels in system.occupancy.items()
    )
    buffers = chart(
        "buffers",
        n,
        "Buffers over time: halves in use",
        f"Mean halves in use of 2: {held}.",
        height=120 * len(system.occupancy),
    )
    return joined([engines, buffers, memory_need_table(run)])


def _schedule(n: int, data: RunData) -> Html:
    return sortable(
        f"ops-{n}",
        element("h4", "Schedule: what loses most cycles first"),
        ops_table(data),
        noun="kinds of ops",
        words=OPS_WORDS,
        hint="layer, op, pass, pattern",
    )


def comparison_section(groups: Sequence[Group]) -> Html:
    """A table a group."""
    parts = []
    for group in groups:
        rows = [(run, group.speedup(run), group.promised(run), group.saving(run)) for run in group.runs]
        level = "with ops overlapped" if group.overlapped else "op after op"
        named = step_name(group.runs[0].result.workload)
        over = f"; speed-up {level}, over {group.baseline.name}" if len(group.runs) > 1 else ""
        parts.append(runs_table(rows, named + over))
    return joined(parts)


def accuracy_section(study: SavedStudy) -> Html:
    """What a study found, and on what."""
    parts: list[Html] = [element("p", f"{study_provenance(study)}.")]
    for n, (model, rows) in enumerate(by_table(study.rows).items()):
        best = max((r for r in rows if r.validation is not None), key=lambda r: r.validation or 0.0, default=None)
        alt = f"{len(rows)} schemes." + (f" Most accurate in validation: {row_name(best)}." if best else "")
        parts.append(
            chart(
                "accuracy",
                n,
                f"{model}: validation accuracy over the speed-up of a step",
                alt,
                height=420,
                above=legend([("came to the target in every training", "compute"), ("did not", "dram_stall")]),
            )
        )
        parts.append(study_table(model, rows))
        notes = [element("li", text) for text in _not_shown(rows)]
        parts.append(element("ul", *notes) if notes else Html())
    return joined(parts)


def _not_shown(rows: Sequence[StudyRow]) -> list[str]:
    """What was not trained or not placed, and why."""
    found = [f"{row_name(row)}, seed {seed}: not trained: {why}" for row in rows for seed, why in row.failed.items()]
    return found + [f"{row_name(row)}: not on this machine: {row.unplaced}" for row in rows if row.unplaced]
