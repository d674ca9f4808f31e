"""Decoding as a stream of steps, one a token: what every step does, told by the first and by what a token adds.

A step is traced behind the first context and the last. Every number of every op is the same in both, or a token adds a
whole number to it, or it is the bytes of a mask of a bit an element; two more traces, one token on and halfway, must
agree, and a model of which that is not so is refused. So no other step is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, get_args

from .errors import InputError, require_int
from .step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from .tensors import StepTensor

__all__ = ["BITS", "Growth", "Rates", "growth", "moved"]

BITS: Final = "bits"
"""Of a number that is the whole bytes of a bit an element of its op."""
Rates = Mapping[tuple[str, ...], int | Literal["bits"]]
"""Numbers of an op by their place in it (``("gemm", "n")``), and what a token adds to each, or `BITS`."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """``steps`` steps of decoding: the first, and by op that grows how its numbers do; ``tensors`` of the last."""

    first: Workload
    steps: int
    rates: dict[int, Rates]
    tensors: tuple[StepTensor, ...] = ()

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
        """A whole step; with tensors the first and the last, as nothing asks for those of others."""
        require_int("step of decoding", step, 0, self.steps - 1)
        phase, tokens = self.first.phase, self.first.phase.context + self.first.phase.tokens
        grown = tuple(replace(c, elements=c.elements // tokens * (tokens + step)) for c in phase.cached)
        return replace(
            self.first,
            ops=tuple(self.op(i, step) for i in range(len(self.first.ops))),
            phase=replace(phase, context=phase.context + step, cached=grown),
            tensors=self.first.tensors if not step else self.tensors if step == self.steps - 1 else (),
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
    for other in sorted({context + 1, (context + end) // 2} - {context, end}):
        found = trace(other)
        for i, op in enumerate(found.ops):
            if len(found.ops) != len(first.ops) or moved(first.ops[i], rates.get(i, {}), other - context) != op:
                raise _refusal(first, f"{_name(op)} grows unevenly between {context}, {other} and {end} tokens")
    return Growth(first=first, steps=steps, rates=rates, tensors=last.tensors)


def _rates(first: Workload, last: Workload, tokens: int) -> dict[int, Rates]:
    """How the numbers of the ops of ``first`` grow, so that they become those of ``last``."""
    if len(first.ops) != len(last.ops):
        raise _refusal(first, f"it has {len(first.ops)} ops, and {len(last.ops)} {tokens} tokens later")
    rates: dict[int, Rates] = {}
    for i, (a, b) in enumerate(zip(first.ops, last.ops, strict=True)):
        if a != b:
            found: dict[tuple[str, ...], int | Literal["bits"]] = {}
            masks = _masks(a, b)
            _compare(first, _with_masks(a, masks, 0), _with_masks(b, masks, 0), (), tokens, found)
            rates[i] = found | dict.fromkeys(((f"wide_{side}",) for side in masks), BITS)
    return rates


_Side = Literal["read", "write"]
_SIDES: Final[tuple[_Side, ...]] = get_args(_Side)


def _masks(a: Op, b: Op) -> tuple[_Side, ...]:
    """Which of what vector work reads and writes wide is a bit an element in both; nothing of what does not grow."""
    if not (isinstance(a, VectorOp) and isinstance(b, VectorOp)) or a.elements == b.elements:
        return ()
    return tuple(s for s in _SIDES if all(getattr(x, f"wide_{s}") == _bit_bytes(x.elements) for x in (a, b)))


def _with_masks(op: Op, sides: tuple[_Side, ...], size: int) -> Op:
    """``op`` with masks of ``size`` bytes instead of its own; joined work saves so much less or more."""
    for side in sides:
        assert isinstance(op, VectorOp), "only vector work has masks"
        changes: dict[str, Any] = {f"wide_{side}": size}
        if op.joined is not None:
            saved: dict[str, Any] = {side: getattr(op.joined, side) - size + getattr(op, f"wide_{side}")}
            changes["joined"] = replace(op.joined, **saved)
        op = replace(op, **changes)
    return op


def _bit_bytes(elements: int) -> int:
    return -(-elements // 8)


def _compare(
    workload: Workload,
    a: Any,
    b: Any,
    at: tuple[str, ...],
    tokens: int,
    found: dict[tuple[str, ...], int | Literal["bits"]],
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


def moved(op: Op, rates: Rates, tokens: int) -> Op:
    """``op`` so many tokens later."""
    masks = tuple(side for side in _SIDES if rates.get((f"wide_{side}",)) == BITS)
    added = {place: rate * tokens for place, rate in rates.items() if rate != BITS}
    grown: Op = _moved(_with_masks(op, masks, 0), (), added)
    return _with_masks(grown, masks, _bit_bytes(grown.elements)) if isinstance(grown, VectorOp) and masks else grown


def _moved(thing: Any, at: tuple[str, ...], added: Mapping[tuple[str, ...], int]) -> Any:
    changes = {}
    for place, more in added.items():
        if place[: len(at)] != at:
            continue
        name = place[len(at)]
        value = getattr(thing, name)
        changes[name] = value + more if place == (*at, name) else _moved(value, (*at, name), added)
    return replace(thing, **changes) if changes else thing


def _name(op: MatrixOp | VectorOp | UpdateOp) -> str:
    return f"{op.name}, {op.kind if isinstance(op, UpdateOp) else op.op},"


def _refusal(workload: Workload, why: str) -> InputError:
    return InputError(
        f"model {workload.model!r} cannot be decoded as one stream: {why}; ask for single steps, with --for "
        "decode and a --context each"
    )
