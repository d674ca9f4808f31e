"""A space of machines and of work for them, as a user writes it: a TOML file, a Python file, or a mapping."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ...workloads.errors import InputError, require_int
from ...workloads.joined import Fusion
from ...workloads.strict import dump_json, read_json, read_text, read_toml
from ...workloads.user_code import is_user, user_object

__all__ = ["Constraints", "Search", "Space", "Span", "Value", "read_space", "space_json"]

Value = bool | int | float | str
"""Of an axis, at a point."""
_STRICT = {"extra": "forbid"}
MOST_POINTS = 2**40
"""More than anybody waits for, and far from where point numbers leave 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Numbers from ``first``, by the factor ``times`` or by ``step``, up to ``last`` at most."""

    __pydantic_config__ = _STRICT
    first: int | float
    last: int | float
    times: int | float | None = None
    step: int | float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What a point must hold; one that does not is a row with the reason.

    ``device``: the machine fits its LUTs, registers, DSPs and memories. ``clock``: its blocks were routed at its clock
    there. ``dram``: the step fits ``dram.capacity_bytes``. ``most`` and ``least``: limits of measures, by name.
    """

    __pydantic_config__ = _STRICT
    device: str | None = None
    clock: bool = False
    dram: bool = False
    most: dict[str, int | float] = field(default_factory=dict)
    least: dict[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """By which of Optuna's samplers ``points`` points are chosen, ``batch`` of them at a time.

    ``warm``: a folder of an earlier exploration of the same axes, whose points the search knows from the start.
    """

    __pydantic_config__ = _STRICT
    by: Literal["tpe", "nsga2", "random"] = "tpe"
    batch: int = 16
    warm: str | None = None

    def __post_init__(self) -> None:
        require_int("search.batch", self.batch, 1, 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Machines and work to explore. Pure data: point number i is the same wherever it is looked at.

    ``axes``: by name, a list of values, a `Span`, or the name of another axis whose value it has. A name is a field of
    the machine (``array.rows``, see `weft archs --fields`), or ``arch``, ``model``, ``scheme``, ``nm``, ``batch``,
    ``seq``, ``objective``, whose own fields here are for where there is no such axis.
    ``fusion``: of the vector work of every step (docs/fusion.md).
    ``sampler``: ``grid``, every combination; ``latin``, a Latin hypercube of ``points`` by ``seed``; ``list``, the rows
    of ``listed``; ``search``, ``points`` that an optimiser asks for.
    ``objectives``: measures, the first one first. ``prune``: schedule only machines that a bound does not rule out for
    the front. ``study``: a folder of `weft study`, which has accuracies and steps to a target; ``supernet``: one of a
    super-network trained by `weft train`, which has those that its sub-networks inherit.
    """

    __pydantic_config__ = _STRICT
    model: str = ""
    arch: str = "sat-vcu1525"
    scheme: str = "bdwp"
    nm: str = "2:8"
    batch: int | None = None
    seq: int | None = None
    objective: str = "cycles"
    fusion: Annotated[Fusion, Field(exclude_if=lambda fusion: fusion == "none")] = "none"
    axes: dict[str, tuple[Value, ...] | Span | str] = field(default_factory=dict)
    listed: tuple[dict[str, Value], ...] = ()
    sampler: Literal["grid", "latin", "list", "search"] = "grid"
    points: int | None = None
    seed: int = 0
    search: Search = field(default_factory=Search)
    objectives: tuple[str, ...] = ("seconds",)
    constraints: Constraints = field(default_factory=Constraints)
    prune: bool = False
    study: str | None = None
    supernet: str | None = None

    def __post_init__(self) -> None:
        require_int("seed", self.seed, 0, 2**32 - 1)
        sampled = self.sampler in ("latin", "search")
        if sampled and self.points is None:
            raise InputError(f"sampler {self.sampler!r} needs a number of points, for example points = 1000")
        if not sampled and self.points is not None:
            raise InputError(f"points = {self.points} is for the samplers latin and search, not for {self.sampler!r}")
        if self.points is not None:
            require_int("points", self.points, 1, MOST_POINTS)
        if (self.sampler == "list") != bool(self.listed):
            raise InputError(
                "sampler 'list' takes its points from [[listed]] tables, and there are none"
                if self.sampler == "list"
                else f"[[listed]] points are for sampler 'list', not for {self.sampler!r}"
            )
        if self.sampler != "list" and not self.axes:
            raise InputError("a space needs an axis at least, for example axes = {'array.rows': [16, 32]}")
        if self.study is not None and self.supernet is not None:
            raise InputError("accuracies come from study or from supernet; give one of them")
        if not self.objectives:
            raise InputError("a space needs an objective at least, for example objectives = ['seconds']")


def read_space(given: Space | Mapping[str, Any] | str | Path) -> Space:
    """A space of what a user gives: one itself, its fields, a ``.toml`` file, or ``file.py:name``, whose function
    gives one."""
    if isinstance(given, Space):
        return given
    if isinstance(given, Mapping):
        try:
            text = json.dumps(given)
        except (TypeError, ValueError) as error:
            raise InputError(f"the space holds what no file could: {error}") from None
        return read_json(Space, text, "the space")
    text = str(given)
    if is_user(text):
        _, name, make = user_object(text if ".py:" in text else f"{text}:space", "space")
        made = make()
        if not isinstance(made, Space | Mapping):
            raise InputError(f"{text}: {name}() gives a {type(made).__name__}; a space is a weft.Space or its fields")
        return read_space(made)
    path = Path(text)
    if path.suffix != ".toml":
        raise InputError(f"{text}: a space is a .toml file or file.py:function")
    return read_toml(Space, read_text(path), text)


def space_json(space: Space) -> str:
    """Canonical text of a space, which `read_space` reads as its fields."""
    return dump_json(Space, space).decode()
