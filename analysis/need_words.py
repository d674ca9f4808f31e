"""What a step needs, in words, for terminals, pictures and notebooks."""

from __future__ import annotations

from typing import assert_never

from ..workloads.words import named
from .grown import Point
from .need import Line, Need
from .resources import Resource, own_scale
from .words import run_name, seconds

__all__ = ["fields_of", "marks", "needs_words", "setting_words", "share_words", "step_on"]


def step_on(found: Need) -> str:
    """Which step on which machine."""
    work = found.workload
    return f"{named(work.model)}, batch {work.batch}, {run_name(work)} on {found.spec.name}"


def share_words(share: float) -> str:
    """0.01 as 1 %."""
    return f"{100 * share:.3g} %"


def fields_of(resource: Resource, point: Point) -> dict[str, str]:
    """The fields of a point beside its size, by what they are called."""
    match resource:
        case Resource.DRAM:
            return {}
        case Resource.BUFFERS:
            return dict(zip(("W2E", "N2S", "output"), map(resource.amount, point.setting), strict=True))
        case Resource.ARRAY:
            rows, cols = point.setting
            return {"rows x columns": f"{rows:,} x {cols:,}"}
        case _:
            assert_never(resource)


def setting_words(resource: Resource, point: Point) -> str:
    """The same on a line."""
    fields = fields_of(resource, point)
    if resource is Resource.ARRAY:
        return " ".join(fields.values())
    return ", ".join(f"{name} {amount}" for name, amount in fields.items())


def marks(found: Need, line: Line) -> dict[Point, str]:
    """What is to be said of single points of a line."""
    said = {line.least: f"least within {share_words(found.within)}"}
    own = found.own if line is found.lines[0] or found.own in line.points else None
    for point, words in ((line.knee, "knee"), (own, "the machine")):
        if point is not None:
            said[point] = f"{said[point]}, {words}" if point in said else words
    return said


def needs_words(found: Need) -> tuple[str, ...]:
    """The answer, a sentence each."""
    return tuple(filter(None, (_answer(found), _beside(found), _own(found), _knee(found), _how(found))))


def _took(found: Need, point: Point) -> str:
    length = found.seconds(point)
    return "does not run" if length is None else seconds(length)


def _with(found: Need, point: Point) -> str:
    """A size and its fields."""
    fields = setting_words(found.resource, point)
    return found.resource.amount(point.size) + (f" ({fields})" if fields else "")


def _longer(slower: float) -> str:
    return f"{1 + slower:.3g} times as long" if slower >= 1 else f"{share_words(slower)} longer"


def _answer(found: Need) -> str:
    share, asymptote = share_words(found.within), found.asymptote
    took = f"{_took(found, asymptote)} a step"
    needs = f"{step_on(found)} needs {found.resource.amount(found.least.size)}"
    fields = setting_words(found.resource, found.least)
    match found.resource:
        case Resource.DRAM:
            return f"{needs} of DRAM to be within {share} of what {_most(found)} DRAM gives, {took}."
        case Resource.BUFFERS:
            return (
                f"{needs} of buffers in its own proportions ({fields}) to be within {share} of what {_most(found)} "
                f"buffers give, {took}."
            )
        case Resource.ARRAY:
            fastest = setting_words(found.resource, asymptote)
            return f"{needs} ({fields}) to be within {share} of the fastest array tried, {fastest} with {took}."
        case _:
            assert_never(found.resource)


def _most(found: Need) -> str:
    """The asymptote's amount: unlimited, unless that cannot be timed or a grid has its best elsewhere."""
    scale = own_scale(found.resource, found.spec)
    whole = found.asymptote.setting == scale.at(scale.most)
    return "unlimited" if whole else found.resource.amount(found.asymptote.size) + " of"


def _beside(found: Need) -> str:
    if len(found.lines) == 1:
        return ""
    line = found.lines[1]
    if found.resource is Resource.BUFFERS:
        return f"Split in the best way {_with(found, line.least)} is enough."
    fastest = f"the fastest square, {setting_words(found.resource, line.asymptote)} with {_took(found, line.asymptote)}"
    return (
        f"Of squares {_with(found, line.least)} is the first within {share_words(found.within)} of {fastest}"
        f"{_after(found, line)}."
    )


def _after(found: Need, line: Line) -> str:
    """What of those larger than the least, where that may be slower again."""
    if line.stays == line.least:
        return ", and every larger one that runs is"
    if line.stays is not None:
        return f", and from {_short(found, line.stays)} on every larger one that runs is"
    last = line.points[-1]
    return f"; larger ones do not stay there: the largest that runs, {_short(found, last)}, takes {_took(found, last)}"


def _short(found: Need, point: Point) -> str:
    is_array = found.resource is Resource.ARRAY
    return setting_words(found.resource, point) if is_array else found.resource.amount(point.size)


def _own(found: Need) -> str:
    has, slower = _with(found, found.own), found.slower(found.own)
    if slower is None:
        return f"The machine has {has}, on which the step does not run."
    enough = found.own.cycles is not None and found.own.cycles <= found.bound
    return f"The machine has {has}: {_took(found, found.own)}, {_longer(slower)}" + (
        "." if enough else ", which is not enough."
    )


def _knee(found: Need) -> str:
    if found.knee is None:
        return "The curve has no knee."
    return f"Knee at {_with(found, found.knee)}: {_took(found, found.knee)}."


def _how(found: Need) -> str:
    if found.exact:
        return ""
    if found.resource is Resource.ARRAY:
        return "Tried: all squares, and all arrays with powers of two for rows and columns."
    line = found.lines[0]
    return (
        f"Under {found.objective} time may rise with the resource, so a grid was tried that doubles every eighth "
        f"point: {_short(found, line.least)} is its first within {share_words(found.within)}{_after(found, line)}."
    )
