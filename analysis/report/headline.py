"""The four figures at the top of a page: how fast, how long, how much energy, how much of the peak."""

from __future__ import annotations

from ..bands import band_words
from ..compare import losses
from ..level import level_words
from ..promise import loss_noun
from ..savings import range_words, share_words
from ..words import joules, percent, run_name, seconds
from .folder import Run
from .groups import Group
from .markup import Html, element

__all__ = ["headline"]


def headline(group: Group) -> Html:
    """Of the fastest run of a group, beside the run that it is compared with."""
    run = group.fastest
    figures = [_speed(group, run), _time(run), _energy(group, run), _used(run)]
    return element("dl", *(_tile(*one) for one in figures), class_="headline")


def _tile(value: str, what: str, beside: str) -> Html:
    return element("div", element("dt", what), element("dd", value, class_="value"), element("dd", beside))


def _speed(group: Group, run: Run) -> tuple[str, str, str]:
    speedup, found = group.speedup(run), group.promise(run)
    if run is group.baseline or speedup is None:
        return f"{run.result.workload.batch / run.seconds:,.4g}", "samples a second", run_name(run.result.workload)
    promised = f"; promised {float(found.ideal_speedup):.2f}×" if found is not None else ""
    return f"{speedup:.2f}×", f"as fast as {group.baseline.name}", f"{run.name}{promised}"


def _time(run: Run) -> tuple[str, str, str]:
    return seconds(run.seconds), "a step", f"{level_words(run.timed)}; {run.cycles:,} cycles"


def _energy(group: Group, run: Run) -> tuple[str, str, str]:
    saved, report = group.saving(run), run.energy
    reach = band_words(report.band).partition(", ")[2]
    if saved is None:
        return joules(report.joules), "a step", f"band {reach}; table {report.table.name}"
    less = f"{share_words(saved)} than {group.baseline.name}"
    return joules(report.joules), "a step", f"band {reach}; {less} ({range_words(saved)} %)"


def _used(run: Run) -> tuple[str, str, str]:
    result = run.result
    share = float(result.ideal_cycles(result.ops)) / run.cycles if run.cycles else 0.0
    lost = losses(result)
    worst = max(lost, key=lambda item: lost[item])
    beside = f"most is lost to {loss_noun(worst)}" if lost[worst] else "nothing is lost to waits"
    return percent(share), "of the peak in use", beside
