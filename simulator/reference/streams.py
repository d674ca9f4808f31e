"""A block between streams, clock by clock: a pipeline that stands still behind a word that is not taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["streams_reference"]

Flow = tuple[int, tuple[int, ...]]
"""Of every so many beats, a beat leaves so many cycles after the last."""


def streams_reference(
    flows: Sequence[Flow],
    fill: int,
    pause: int,
    beats: int,
    offered: Callable[[int], bool],
    ready: Callable[[int, int], bool],
) -> tuple[list[list[bool]], list[list[bool]], list[int], list[list[int]]]:
    """By clock cycle whether the input is ``ready``, and each output ``valid``; when beats enter, and when those of
    each output are taken.

    ``offered`` says of a cycle whether a beat is, ``ready`` of a cycle and an output whether one would be taken.
    """
    line: list[set[int]] = [set() for _ in flows]  # cycles of the block from now on in which a beat leaves
    waiting = [False for _ in flows]
    moves, closed, t = True, 0, 0
    accepts: list[list[bool]] = []
    valids: list[list[bool]] = []
    entered: list[int] = []
    taken: list[list[int]] = [[] for _ in flows]
    while len(entered) < beats or any(line) or any(waiting):
        accepts.append([moves and closed == 0])
        if moves:
            enters = closed == 0 and len(entered) < beats and offered(t)
            closed = max(closed - 1, 0)
            if enters:
                entered.append(t)
                for ahead, (every, after) in zip(line, flows, strict=True):
                    if len(entered) % every == 0:
                        ahead |= set(after)
                if len(entered) % fill == 0:
                    closed = pause
            waiting = [0 in ahead for ahead in line]
            line = [{cycle - 1 for cycle in ahead if cycle > 0} for ahead in line]
        valids.append(list(waiting))
        for output, waits in enumerate(waiting):
            if waits and ready(t, output):
                taken[output].append(t)
                waiting[output] = False
        moves = not any(waiting)
        t += 1
    return accepts, valids, entered, taken
