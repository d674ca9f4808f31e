"""A space made ready to be evaluated: machines read, names checked, chunks cut. Plain data, for other processes too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.config_io import load_spec
from ...dataflow.engines import ours_alone
from ...workloads.errors import InputError, nearest
from ..synthesised import AREA_TARGETS
from .axes import Axes, axes_of
from .measures import Known, Measure, measure
from .space import Space
from .trained import Trained, inherited_by, trained_by
from .work import model_digest

__all__ = ["Plan", "plan_of"]

_CHUNK, _SMALL_CHUNK = 4096, 256
"""Points of a part: some seconds of one core, in bulk and one by one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``bases``: machines by name or file. ``objectives`` and ``asked``: measures of the objectives, and of all that
    constraints name too. ``trained``: accuracies of a study, if the space names one. ``models``: digests of those that
    are files, "" of others, by name. ``chunk``: points of a part."""

    space: Space
    axes: Axes
    bases: dict[str, AcceleratorSpec]
    objectives: tuple[Measure, ...]
    asked: tuple[Measure, ...]
    trained: Trained | None
    models: dict[str, str]
    chunk: int

    @property
    def size(self) -> int:
        """Points of the space."""
        return self.axes.size

    @property
    def chunks(self) -> int:
        """Parts that the points come in."""
        return -(-self.size // self.chunk)

    def needs(self, known: Known) -> bool:
        """Whether a measure that is asked for takes that."""
        return any(m.known is known for m in self.asked)

    def timed(self) -> Measure | None:
        """The one objective that follows the cycles, where all the others are known without a schedule."""
        timed = [m for m in self.objectives if m.timed]
        rest = [m for m in self.objectives if not m.timed]
        return timed[0] if len(timed) == 1 and all(m.early for m in rest) else None


def plan_of(space: Space) -> Plan:
    """A plan of a space; refuses names that are none before anything is traced."""
    axes = axes_of(space)
    bases = {name: load_spec(name) for name in _named(space, axes, "arch")}
    if not space.model and "model" not in axes.names:
        raise InputError("the space names no model; give model = 'resnet50', or an axis of models")
    objectives = tuple(measure(name, "objectives") for name in space.objectives)
    twice = next((m.name for m in objectives if objectives.count(m) > 1), None)
    if twice is not None:
        raise InputError(f"objectives names {twice!r} twice")
    limits = space.constraints
    asked = [*objectives]
    asked += [measure(name, f"constraints.{side}") for side in ("most", "least") for name in getattr(limits, side)]
    for table in {name.partition(".")[0] for name in axes.names if "." in name}:
        if all(getattr(base, table) is None for base in bases.values()):
            raise InputError(f"axes: none of the machines {', '.join(bases)} has a table [{table}]")
    if limits.device is not None and limits.device not in AREA_TARGETS:
        raise InputError(
            f"constraints.device: there is no area for {limits.device!r}; {nearest(limits.device, AREA_TARGETS)}"
        )
    area = next((m.name for m in asked if m.known is Known.AREA or m.per == "lut"), None)
    if limits.device is None and (area is not None or limits.clock):
        what = "constraints.clock" if limits.clock else f"measure {area!r}"
        raise InputError(f"{what} is of a device: give constraints.device, one of {', '.join(AREA_TARGETS)}")
    study = next((m.name for m in asked if m.known is Known.STUDY), None)
    if study is not None and space.study is None and space.supernet is None:
        raise InputError(f"measure {study!r} comes from trainings: give study = the folder of a `weft study`")
    digests = {model: model_digest(model) for model in _named(space, axes, "model")}
    trained = None if space.study is None else trained_by(Path(space.study))
    if space.supernet is not None:
        trained = inherited_by(Path(space.supernet), digests)
    plan = Plan(space, axes, bases, objectives, tuple(dict.fromkeys(asked)), trained, digests, _chunk(space, bases))
    if space.prune and space.sampler == "search":
        raise InputError("prune = true is for points that are known beforehand, not for sampler 'search'")
    if space.prune and plan.timed() is None:
        raise InputError(
            "prune = true leaves out what a bound of the cycles rules out: it takes one objective of cycles, seconds "
            "and samples_per_second, and others that are known without a schedule, such as pes, buffer_bytes or lut"
        )
    late = [m.name for m in asked if m not in objectives and not m.early]
    if space.prune and late:
        raise InputError(
            f"prune = true leaves out points that one of the front is better than, and {late[0]!r}, which a constraint "
            "limits, is only known once that one is scheduled; leave prune out"
        )
    return plan


def _chunk(space: Space, bases: dict[str, AcceleratorSpec]) -> int:
    """Points of a part; one that is scheduled by itself takes as long as hundreds in bulk."""
    if space.sampler == "search":
        return space.search.batch
    return _CHUNK if all(ours_alone(base) for base in bases.values()) else _SMALL_CHUNK


def _named(space: Space, axes: Axes, what: str) -> list[str]:
    """All that points have of the work: values of its axis, or what the space says."""
    return [
        str(value) for value in next((axis.values for axis in axes.axes if axis.name == what), (getattr(space, what),))
    ]
