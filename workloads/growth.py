"""Decoding as a stream of steps, one a token: what every step does, told by few of them and by what a token adds.

Two steps in a row are traced. Every number of every op is the same in both, or a token adds a whole number to it, or it
is the bytes of a mask of a bit an element; the last step, traced, and the one halfway must be as these two foretell.
Where they are not, the stream is in pieces: the last context up to which steps are as foretold is found by halving, and
another piece begins behind it. Fusion makes such: a mask is bits from so many elements on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, cached_property
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, require_int
from .step import Op, VectorOp, Workload
from .tensors import StepTensor

__all__ = ["BITS", "Growth", "Piece", "Rates", "column", "growth", "moved", "rewritten"]

Number = TypeVar("Number", int, NDArray[np.int64])

BITS: Final = "bits"
"""Of a number that is the whole bytes of a bit an element of its op."""
Rates = Mapping[tuple[str, ...], int | Literal["bits"]]
"""Numbers of an op by their place in it (``("gemm", "n")``), and what a token adds to each, or `BITS`."""

_MOST_PIECES = 8
"""Of a stream; a model of which more would be needed does not grow by whole numbers at all."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """``steps`` steps that grow evenly: the first, and by op that grows how its numbers do.

    ``tensors``: of the last step of a stream.
    """

    first: Workload
    steps: int
    rates: dict[int, Rates]
    tensors: tuple[StepTensor, ...] = ()

    @cached_property
    def last(self) -> Workload:
        """The last step: the largest cache."""
        return self.at(self.steps - 1)

    def op(self, i: int, step: int) -> Op:
        """Op ``i`` of a step, from 0."""
        op = self.first.ops[i]
        return moved(op, self.rates[i], step) if step and i in self.rates else op

    def at(self, step: int) -> Workload:
        """A whole step; without tensors, whose sizes nothing asks for, but of the first and the last of all."""
        require_int("step of decoding", step, 0, self.steps - 1)
        phase, tokens = self.first.phase, self.first.phase.context + self.first.phase.tokens
        grown = tuple(
            replace(c, elements=c.elements // tokens * (tokens + step)) if c.grows else c for c in phase.cached
        )
        return replace(
            self.first,
            ops=tuple(self.op(i, step) for i in range(len(self.first.ops))),
            phase=replace(phase, context=phase.context + step, cached=grown),
            tensors=self.first.tensors if not step else self.tensors if step == self.steps - 1 else (),
        )


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Steps of decoding, one behind the other, in pieces that grow evenly."""

    pieces: tuple[Piece, ...]

    @property
    def first(self) -> Workload:
        """The first step."""
        return self.pieces[0].first

    @property
    def last(self) -> Workload:
        """The last step: the largest cache."""
        return self.pieces[-1].last

    @property
    def steps(self) -> int:
        """How many."""
        return sum(piece.steps for piece in self.pieces)

    @property
    def contexts(self) -> range:
        """Tokens before each step."""
        return range(self.first.phase.context, self.first.phase.context + self.steps)

    def at(self, step: int) -> Workload:
        """A whole step, from 0; without tensors where it is neither the first of a piece nor the last of all."""
        require_int("step of decoding", step, 0, self.steps - 1)
        left = step
        for piece in self.pieces:
            if left < piece.steps:
                return piece.at(left)
            left -= piece.steps
        raise AssertionError("steps of pieces add up to those of the stream")


def growth(context: int, steps: int, trace: Callable[[int], Workload]) -> Growth:
    """``steps`` steps of decoding behind ``context`` tokens; ``trace`` makes the step behind so many.

    Refuses a model that does not grow by whole numbers in `_MOST_PIECES` pieces.
    """
    require_int("context", context, 1, 2**31)
    require_int("new tokens", steps, 1, 2**24)
    traced, end = cache(trace), context + steps - 1
    traced(context)
    try:
        traced(end)
    except InputError as error:
        raise InputError(f"{steps} new tokens behind {context} need more positions than there are: {error}") from None
    pieces = list[Piece]()
    while context <= end:
        if len(pieces) == _MOST_PIECES:
            raise _refusal(traced(context), f"it grows otherwise again and again, behind {context} tokens at last")
        pieces.append(_piece(context, end, traced))
        context += pieces[-1].steps
    return Growth(pieces=tuple(pieces))


def _piece(context: int, end: int, traced: Callable[[int], Workload]) -> Piece:
    """The steps from ``context`` on, at most to ``end``, that the first two foretell."""
    first = traced(context)
    if context == end:
        return Piece(first=first, steps=1, rates={})
    rates = _rates(first, traced(context + 1))
    if rates is None:
        return Piece(first=first, steps=1, rates={})

    def foretold(other: int) -> bool:
        return _grown(first, rates, other - context) == traced(other).ops

    last = end
    while last > context + 1:
        bad = next((other for other in (last, (context + last) // 2) if not foretold(other)), None)
        if bad is None:
            break
        good = context + 1
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if foretold(middle) else (good, middle)
        last = good
    tensors = traced(end).tensors if last == end else ()
    return Piece(first=first, steps=last - context + 1, rates=rates, tensors=tensors)


def rewritten(steps: Growth, rewrite: Callable[[Workload], Workload]) -> Growth:
    """``steps``, each as ``rewrite`` makes it.

    Every step is made and looked at, and none foretold: what looks at some of the tokens alone grows and shrinks as it
    fills its blocks. There are as many pieces as that takes.
    """
    pieces = list[Piece]()
    first, rates, many = rewrite(steps.first), dict[int, Rates](), 1
    for number in range(1, steps.steps):
        step = rewrite(steps.at(number))
        found = _rates(first, step) if many == 1 else rates
        if found is not None and _grown(first, found, many) == step.ops:
            rates, many = found, many + 1
            continue
        pieces.append(Piece(first=first, steps=many, rates=rates))
        first, rates, many = step, {}, 1
    return Growth(pieces=(*pieces, Piece(first=first, steps=many, rates=rates)))


def _grown(first: Workload, rates: dict[int, Rates], tokens: int) -> tuple[Op, ...] | None:
    """The ops of ``first`` so many tokens later; None where one would be none, of fewer than no bytes."""
    try:
        return tuple(moved(op, rates[i], tokens) if i in rates else op for i, op in enumerate(first.ops))
    except InputError:
        return None


def _rates(first: Workload, second: Workload) -> dict[int, Rates] | None:
    """How the numbers of the ops of ``first`` grow, so that they become those of ``second``, a token later; None where
    more than numbers becomes other."""
    if len(first.ops) != len(second.ops):
        return None
    rates: dict[int, Rates] = {}
    for i, (a, b) in enumerate(zip(first.ops, second.ops, strict=True)):
        if a != b:
            found: dict[tuple[str, ...], int | Literal["bits"]] = {}
            masks = _masks(a, b)
            if not _compare(_with_masks(a, masks, 0), _with_masks(b, masks, 0), (), found):
                return None
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


def _bit_bytes(elements: Number) -> Number:
    return -(-elements // 8)


def _compare(a: Any, b: Any, at: tuple[str, ...], found: dict[tuple[str, ...], int | Literal["bits"]]) -> bool:
    """Note in ``found`` what is added to every number of ``a`` that is another in ``b``; whether only numbers are."""
    if type(a) is not type(b):
        return False
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        place = (*at, field.name)
        if x == y:
            continue
        if is_dataclass(x) and is_dataclass(y):
            if not _compare(x, y, place, found):
                return False
        elif type(x) is type(y) is int:
            found[place] = y - x
        else:
            return False
    return True


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


def column(op: Op, rates: Rates, place: tuple[str, ...], steps: int) -> NDArray[np.int64]:
    """A number of ``op``, by its place in it, in each of so many steps: that of `moved`, int64 [steps]."""
    rate = rates.get(place, 0)
    if rate == BITS:
        return _bit_bytes(column(op, rates, ("elements",), steps))
    first: int = attrgetter(".".join(place))(op)
    return first + rate * np.arange(steps, dtype=np.int64)


def _refusal(workload: Workload, why: str) -> InputError:
    return InputError(
        f"model {workload.model!r} cannot be decoded as one stream: {why}; ask for single steps, with --for "
        "decode and a --context each"
    )
