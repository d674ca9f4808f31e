"""Decoding as a stream of steps, one a token: what every step does, told by the first and by what a token adds.

A step is traced behind three contexts. Every number of every op is the same in all, or grows by as much a token between
the first two as up to the third; a model of which that is not so is refused. So no step between is traced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from .errors import InputError, require_int
from .step import MatrixOp, Op, UpdateOp, VectorOp, Workload

__all__ = ["Growth", "growth", "lengths"]


@dataclass(frozen=True, kw_only=True)
class Growth:
    """``steps`` steps of decoding: the first, and the numbers that a token adds to each of its ops.

    ``rates``: by op that grows, its numbers by their place in it (``("gemm", "n")``), and what a token adds to each.
    """

    first: Workload
    steps: int
    rates: dict[int, dict[tuple[str, ...], int]]

    @property
    def contexts(self) -> range:
        """Tokens before each step."""
        return range(self.first.phase.context, self.first.phase.context + self.steps)

    @cached_property
    def last(self) -> Workload:
        """The last step: the largest cache."""
        return self.at(self.steps - 1)

    def op(self, i: int, step: int) -> Op:
        """Op ``i`` of a step, from 0."""
        op = self.first.ops[i]
        return _moved(op, (), self.rates[i], step) if step and i in self.rates else op

    def at(self, step: int) -> Workload:
        """A whole step; without tensors, whose sizes nothing asks for."""
        require_int("step of decoding", step, 0, self.steps - 1)
        phase, tokens = self.first.phase, self.first.phase.context + self.first.phase.tokens
        grown = tuple(replace(c, elements=c.elements // tokens * (tokens + step)) for c in phase.cached)
        return replace(
            self.first,
            ops=tuple(self.op(i, step) for i in range(len(self.first.ops))),
            phase=replace(phase, context=phase.context + step, cached=grown),
            tensors=self.first.tensors if not step else (),
        )


def lengths(context: int, steps: int) -> tuple[int, int, int]:
    """The contexts to trace: the first, a later one, and one by which both are checked.

    They are an odd and an even number of tokens apart, so that no size that is rounded to pairs passes for one that
    grows.
    """
    return context, context + max(steps - 1, 1), context + 2 * max(steps - 1, 1) + 1


def growth(context: int, steps: int, trace: Callable[[int], Workload], longest: int | None = None) -> Growth:
    """``steps`` steps of decoding behind ``context`` tokens, from traces; ``longest``: no context beyond can be
    traced, so the third is then below the first."""
    require_int("new tokens", steps, 1, 2**24)
    one, two, three = lengths(context, steps)
    if longest is not None and three > longest:
        three = context // 2
    if longest is not None and two > longest:
        raise InputError(
            f"{steps} new tokens behind {context} need positions up to {two + 1}, but the model ends at {longest + 1}: "
            f"at most {longest + 1 - context} new tokens fit"
        )
    first, later, other = trace(one), trace(two), trace(max(three, 1))
    if not len(first.ops) == len(later.ops) == len(other.ops):
        raise _refusal(first, f"has {len(first.ops)} ops behind {one} tokens, {len(later.ops)} behind {two}")
    rates = {}
    for i, (a, b, c) in enumerate(zip(first.ops, later.ops, other.ops, strict=True)):
        if a == b == c:
            continue
        found: dict[tuple[str, ...], int] = {}
        _compare(first, a, b, (), two - one, found)
        if _moved(a, (), found, max(three, 1) - one) != c:
            raise _refusal(first, f"{_name(a)} grows unevenly: {a} becomes {b} behind {two} tokens, {c} behind {three}")
        rates[i] = found
    return Growth(first=first, steps=steps, rates=rates)


def _compare(
    workload: Workload, a: Any, b: Any, at: tuple[str, ...], tokens: int, found: dict[tuple[str, ...], int]
) -> None:
    """Note in ``found`` what a token adds to every number of ``a`` that is another in ``b``."""
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        place = (*at, field.name)
        if x == y:
            continue
        if is_dataclass(x) and type(x) is type(y):
            _compare(workload, x, y, place, tokens, found)
        elif type(x) is type(y) is int and not (y - x) % tokens:
            found[place] = (y - x) // tokens
        else:
            raise _refusal(workload, f"{'.'.join(place)} of an op is {x}, and {y} {tokens} tokens later")


def _moved(thing: Any, at: tuple[str, ...], rates: dict[tuple[str, ...], int], tokens: int) -> Any:
    """``thing`` so many tokens later."""
    changes = {}
    for place, rate in rates.items():
        if place[: len(at)] != at:
            continue
        name = place[len(at)]
        value = getattr(thing, name)
        changes[name] = value + rate * tokens if place == (*at, name) else _moved(value, (*at, name), rates, tokens)
    return replace(thing, **changes) if changes else thing


def _name(op: MatrixOp | VectorOp | UpdateOp) -> str:
    return f"{op.name}, {op.kind if isinstance(op, UpdateOp) else op.op},"


def _refusal(workload: Workload, why: str) -> InputError:
    return InputError(
        f"model {workload.model!r} cannot be decoded as one stream: {why}. Ask for single steps, with --for decode at "
        "each context"
    )
