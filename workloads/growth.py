"""Decoding as a stream of steps, one a token: what every step does, told by the first and by what a token adds.

A step is traced behind the first context and the last. Every number of every op is the same in both, or a token adds a
whole number to it; two more traces, one token on and at half the context, must agree, and a model of which that is not
so is refused. So no step between is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from .errors import InputError, require_int
from .step import MatrixOp, Op, UpdateOp, VectorOp, Workload

__all__ = ["Growth", "growth", "moved"]


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
        return moved(op, self.rates[i], step) if step and i in self.rates else op

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


def growth(context: int, steps: int, trace: Callable[[int], Workload]) -> Growth:
    """``steps`` steps of decoding behind ``context`` tokens; ``trace`` makes the step behind so many."""
    require_int("context", context, 1, 2**31)
    require_int("new tokens", steps, 1, 2**24)
    first, end = trace(context), context + max(steps - 1, 1)
    try:
        last = trace(end)
    except InputError as error:
        raise InputError(f"{steps} new tokens behind {context} need more positions than there are: {error}") from None
    rates = _rates(first, last, end - context)
    for other in sorted({context + 1, max(context // 2, 1)} - {context, end}):
        found = trace(other)
        for i, op in enumerate(found.ops):
            if len(found.ops) != len(first.ops) or moved(first.ops[i], rates.get(i, {}), other - context) != op:
                raise _refusal(first, f"{_name(op)} grows unevenly between {context}, {other} and {end} tokens")
    return Growth(first=first, steps=steps, rates=rates)


def _rates(first: Workload, last: Workload, tokens: int) -> dict[int, dict[tuple[str, ...], int]]:
    """What a token adds to the numbers of the ops of ``first``, so that they become those of ``last``."""
    if len(first.ops) != len(last.ops):
        raise _refusal(first, f"it has {len(first.ops)} ops, and {len(last.ops)} {tokens} tokens later")
    rates: dict[int, dict[tuple[str, ...], int]] = {}
    for i, (a, b) in enumerate(zip(first.ops, last.ops, strict=True)):
        if a != b:
            rates[i] = {}
            _compare(first, a, b, (), tokens, rates[i])
    return rates


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


def moved(op: Op, rates: Mapping[tuple[str, ...], int], tokens: int) -> Op:
    """``op`` so many tokens later, by what a token adds to its numbers."""
    return _moved(op, (), rates, tokens)  # type: ignore[no-any-return]


def _moved(thing: Any, at: tuple[str, ...], rates: Mapping[tuple[str, ...], int], tokens: int) -> Any:
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
        f"model {workload.model!r} cannot be decoded as one stream: {why}; ask for single steps, with --for "
        "decode and a --context each"
    )
