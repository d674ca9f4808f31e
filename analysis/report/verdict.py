"""The page in a few sentences: how fast, how much energy, what bounds it, what would help."""

from __future__ import annotations

from collections.abc import Sequence

from ...simulator.channels import engine_names
from ..compare import losses
from ..energy_table import Mark
from ..level import level_words
from ..promise import loss_noun, promise_words
from ..savings import saving, saving_words
from ..study_rows import StudyRow, by_table, row_name
from ..system import use_shares
from ..words import joules, one_step, percent, percents_of, run_name, seconds, step_name
from .data import RunData
from .folder import Run
from .groups import Group
from .levers import Levers
from .markup import Html, element, joined

__all__ = ["findings", "study_verdict", "verdict"]

_WORTH = 1.005
"""Times as fast that a change of the machine must bring to be named."""
_NAMED = 0.002
"""Share of the cycles that a cause needs to be named."""
_FEW = 3


def verdict(group: Group, data: RunData, levers: Levers) -> Html:
    """Paragraphs about the fastest run of a group, whose figures are ``data``."""
    return joined([findings(group, data), element("p", element("strong", "What would help. "), *_help(levers))])


def findings(group: Group, data: RunData) -> Html:
    """The paragraphs that need no other machine to be simulated."""
    run = group.fastest
    bound = element("p", element("strong", "What bounds it. "), *_bound(run, data))
    return joined([element("p", *_speed(group, run), class_="lead"), bound])


def _speed(group: Group, run: Run) -> list[str]:
    work, base = run.result.workload, group.baseline
    step = f"{one_step(work)} of {step_name(work)} on {run.result.spec.name}, {level_words(run.timed)}"
    energy = run.energy.joules
    if run is base:
        beside = "" if len(group.runs) == 1 else "; nothing beside it is faster"
        return [
            element("strong", f"{run_name(work)} takes {seconds(run.seconds)} and {joules(energy)}"),
            f" for {step}{beside}.",
        ]
    speedup = group.speedup(run) or 1.0
    before = base.energy.joules
    found = group.promise(run)
    kept = f" It {promise_words(found)}." if found is not None else ""
    against = run_name(base.result.workload)
    if base.result.spec != run.result.spec:
        against = f"{against} on {base.result.spec.name}"
    elif against == run_name(work):
        against = base.name
    return [
        element("strong", f"{run_name(work)} is {speedup:.2f} times as fast as {against}"),
        f", {seconds(run.seconds)} instead of {seconds(base.seconds)} for {step}, and takes ",
        element("strong", saving_words(saving(run.timed, base.timed))),
        f": {joules(energy)} instead of {joules(before)}.{kept}",
    ]


def _bound(run: Run, data: RunData) -> list[str]:
    every = sum(data.causes.values())
    lost = losses(run.result)
    share = percents_of({"compute": every - sum(lost.values()), **lost})
    largest = sorted(lost, key=lambda item: -lost[item])[:_FEW]
    named = ", ".join(f"{loss_noun(item)} {share[item]} %" for item in largest if lost[item] >= _NAMED * every)
    text = [f"Op after op, the array computes in {share['compute']} % of the cycles"]
    text.append(f"; most of the rest is {named}. " if named else ". ")
    points = data.roofline.points
    if points:
        bound = [p for p in points if p.memory_bound]
        slow = sum(p.cycles for p in bound) / sum(p.cycles for p in points)
        text.append(
            f"DRAM bounds {len(bound)} of {len(points)} matrix ops, {percent(slow)} of their time. "
            if bound
            else "No matrix op is bound by DRAM. "
        )
    if run.system is not None:
        busy = {name: percent(use_shares(use)["busy"]) for name, use in run.system.engines.items()}
        products = engine_names(run.system.step.spec).products
        works = [f"{'the array' if len(products) == 1 else name} works {busy[name]} of it" for name in products]
        alone = run.result.cycles.total / run.result.spec.clock_hz
        text.append(
            f"With ops overlapped the step takes {seconds(run.seconds)} instead of {seconds(alone)}: "
            f"{', '.join(works)}, DRAM {busy['DRAM']}. "
        )
    marks = run.energy.by_mark
    guessed = sum(marks[m] for m in (Mark.INFERRED, Mark.ASSUMED)) / run.energy.joules if run.energy.joules else 0.0
    top = max(run.energy.by_component.items(), key=lambda item: item[1])
    text.append(f"{percent(top[1] / run.energy.joules)} of the energy is {_part(str(top[0]))}" if top[1] else "")
    text.append(f"; {percent(guessed)} of it rests on inferred or assumed constants." if guessed else ".")
    return text


def _part(component: str) -> str:
    return component if component.isupper() else f"the {component}"


def _help(levers: Levers) -> list[str]:
    worth = [lever for lever in levers.changes if levers.gain(lever) >= _WORTH]
    if not worth:
        return ["No change that was tried, alone or with what binds beside it, brings half a percent."]
    (first, *others), untold = worth[: _FEW + 1], len(levers.changes) - len(worth)
    text = [f"Changes of the machine, simulated: {first.change}, {levers.gain(first):.2f} times as fast"]
    text += [f"; {lever.change}, {levers.gain(lever):.2f}" for lever in others]
    return [*text, f". Each of the {untold} others tried brings less than half a percent." if untold else "."]


def study_verdict(rows: Sequence[StudyRow]) -> Html:
    """One sentence a model: the fastest scheme that came to the target, and what it costs in accuracy."""
    return joined(element("p", *_of_model(model, rows)) for model, rows in by_table(rows).items())


def _of_model(model: str, rows: Sequence[StudyRow]) -> list[str]:
    reached = [row for row in rows if row.time_speedup is not None and not row.reference]
    if not reached:
        return [f"{model}: no scheme came to the target in all its trainings."]
    best = max(reached, key=lambda row: row.time_speedup or 0.0)
    text = [
        f"{model}: ",
        element("strong", f"{row_name(best)} reaches the target {best.time_speedup:.2f} times as fast as dense"),
    ]
    if best.accuracy is not None and best.loss is not None and best.speedup is not None:
        way = "below" if best.loss >= 0 else "above"
        text.append(
            f" (a step {best.speedup:.2f} times as fast), and ends at {100 * best.accuracy:.2f} % of the test images, "
            f"{100 * abs(best.loss):.2f} points {way} dense."
        )
    return text
