"""Calls of a trace that follow from constants, kept to be made on the CPU if somebody asks for what they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

from .choices import Choice
from .provenance import tensors_in
from .traffic import access_of

__all__ = ["Blank", "Choose", "Content", "Made", "Read", "Run", "Scores", "force", "is_unforeseen"]

_MOST = 2**27
"""Elements of a tensor whose values are worked out: a gigabyte of int64."""


@dataclass(slots=True, eq=False)
class Content:
    """All elements of one storage: ``flat`` once they are worked out (None: they cannot be), until then by ``run``."""

    dtype: torch.dtype
    flat: Tensor | None = None
    run: Run | None = None
    routed: bool = False


class Read(NamedTuple):
    """A tensor among the arguments of a call: what its storage held then, and how it looks at it."""

    content: Content
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Blank(NamedTuple):
    """A tensor of which a call uses the shape only."""

    size: torch.Size
    dtype: torch.dtype


class Scores(NamedTuple):
    """Scores that depend on data, and the call that masked them by what was chosen before, if any."""

    size: torch.Size
    dtype: torch.dtype
    masked: Run | None


class Made(NamedTuple):
    """A new storage that a call made: its elements, and the result of the call that lies in it."""

    content: Content
    place: int
    elements: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass(slots=True, eq=False)
class Run:
    """A call to be made on the CPU if somebody asks for what it makes or changes."""

    work: Callable[..., Any]
    args: Any
    kwargs: Any
    changed: list[tuple[Content, Content]] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)

    def inputs(self) -> Iterator[Content]:
        yield from (read.content for read in _reads((self.args, self.kwargs)))

    def outputs(self) -> Iterator[Content]:
        yield from (new for _, new in self.changed)
        yield from (made.content for made in self.made)

    def execute(self) -> None:
        """Fill in what the call makes; where it cannot be made here, that stays unknown."""
        flats = {content: content.flat for content in self.inputs()}
        try:
            if all(flat is not None for flat in flats.values()) and all(m.elements <= _MOST for m in self.made):
                self._work(flats)
        except (RuntimeError, NotImplementedError, IndexError, TypeError, ValueError):
            for content in self.outputs():
                content.flat = None
        for content in self.outputs():
            content.run = None

    def _work(self, flats: dict[Content, Any]) -> None:
        for old, _ in self.changed:
            flats[old] = flats[old].clone()
        args, kwargs = _filled((self.args, self.kwargs), flats)
        results = tensors_in(self.work(*args, **kwargs))
        for old, new in self.changed:
            new.flat = flats[old]
        for made in self.made:
            made.content.flat = _laid_out(made, results[made.place])


@dataclass(slots=True, eq=False)
class Choose(Run):
    """A choice among scores: ``work`` is the operator, its first argument the scores."""

    choice: Choice = field(kw_only=True)
    chosen: torch.Size = field(kw_only=True)

    def _work(self, flats: dict[Content, Any]) -> None:
        scores, *rest = self.args
        (made,) = self.made

        def choose(liked: Tensor) -> Any:
            return self.work(_filled(scores, flats, liked.to(scores.dtype)), *rest, **self.kwargs)

        again = choose if scores.masked is not None and not is_unforeseen(self.work) else None
        found = self.choice.spread(scores.size, self.args, self.kwargs, self.chosen, again)
        made.content.flat = _laid_out(made, found)


def _laid_out(made: Made, result: Tensor) -> Tensor:
    """The elements of a storage in which a result lies as it does on meta."""
    flat = torch.zeros(made.elements, dtype=made.content.dtype)
    flat.as_strided(made.size, made.stride, made.offset).copy_(result)
    return flat


def _reads(nest: Any) -> Iterator[Read]:
    if isinstance(nest, Read):
        yield nest
    elif isinstance(nest, Scores):
        if nest.masked is not None:
            yield from _reads((nest.masked.args, nest.masked.kwargs))
    elif type(nest) in (list, tuple):
        for item in nest:
            yield from _reads(item)
    elif isinstance(nest, dict):
        yield from _reads(list(nest.values()))


def _filled(nest: Any, flats: dict[Content, Tensor], scores: Tensor | None = None) -> Any:
    """The arguments of a call as tensors on the CPU, with ``scores`` for those that depend on data."""
    if isinstance(nest, Read):
        return flats[nest.content].as_strided(nest.size, nest.stride, nest.offset)
    if isinstance(nest, Blank):
        return torch.zeros((), dtype=nest.dtype).expand(nest.size)
    if isinstance(nest, Scores):
        return scores if nest.masked is None else _masked(nest.masked, flats, scores)
    if isinstance(nest, dict):
        return {key: _filled(value, flats, scores) for key, value in nest.items()}
    if type(nest) in (list, tuple):
        return type(nest)(_filled(item, flats, scores) for item in nest)
    return torch.device("cpu") if isinstance(nest, torch.device) else nest


def _masked(run: Run, flats: dict[Content, Tensor], scores: Tensor | None) -> Any:
    args, kwargs = _filled((run.args, run.kwargs), flats, scores)
    return run.work(*args, **kwargs)


def force(content: Content) -> None:
    """Work ``content`` out, what it is made of first."""
    waiting = [content]
    while waiting:
        run = waiting[-1].run
        if run is None:
            waiting.pop()
            continue
        before = [other for other in run.inputs() if other.run is not None]
        if before:
            waiting.extend(before)
        else:
            run.execute()


@cache
def is_unforeseen(func: OpOverload) -> bool:
    """Whether a call draws numbers, or leaves memory as it finds it."""
    return torch.Tag.nondeterministic_seeded in func.tags or access_of(func).moves_nothing
