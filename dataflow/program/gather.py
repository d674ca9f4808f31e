"""What windows give back to the image that they were taken of, added tap by tap on the vector unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product as every
from typing import NamedTuple

from ...workloads.im2col import Window
from ..integers import ceil_div
from ..operand import FP32
from .boxes import Block, blocks_of
from .isa import Unit
from .spaces import VECTOR_DEPTH, Form, Space, place
from .vector_operations import VectorOpcode
from .windows import Met, met
from .work import Images, Level, Work

__all__ = ["Box", "boxes_of", "gather", "given", "is_ragged", "places", "store_box"]


class Box(NamedTuple):
    """Positions of images that are worked on at once: ``n``, ``h``, ``w`` of them from ``first`` on, and channels."""

    first: tuple[int, int, int]
    n: int
    h: int
    w: int
    channel: int
    words: int

    @property
    def rows(self) -> int:
        """Positions."""
        return self.n * self.h * self.w

    def lines(self, strides: Sequence[int]) -> list[Level]:
        """Its positions in a tensor of these strides."""
        return list(zip((self.n, self.h, self.w), strides, strict=True))


def boxes_of(work: Work, sides: tuple[int, int, int], channels: int, terms: int = 1) -> Iterator[Box]:
    """Boxes of images [n, h, w, channels] that the vector unit holds, ``terms`` words a place of the result."""
    widest = work.lanes * (VECTOR_DEPTH // terms)
    dims = [(n, tuple(int(i == axis) for i in range(3))) for axis, n in enumerate(sides)]
    for channel in range(0, channels, widest):
        words = min(channels - channel, widest)
        for block in blocks_of((0, 0, 0), words, dims, VECTOR_DEPTH // (terms * ceil_div(words, work.lanes))):
            yield _box(block, channel)


def _box(block: Block, channel: int) -> Box:
    n, h, w = (1,) * (3 - len(block.counts)) + block.counts
    first = block.at[0], block.at[1], block.at[2]
    return Box(first, n, h, w, channel, block.words)


def given(box: Box, window: Window, tap: tuple[int, ...]) -> tuple[Met, Met]:
    """What of a box of positions a tap meets, along h and w."""
    (_, h, w), (down, across) = box.first, tap
    return met(window, 0, down, h, h + box.h), met(window, 1, across, w, w + box.w)


def is_ragged(box: Box, window: Window) -> bool:
    """Whether there is a position and a tap that meet nowhere."""
    taps = every(*map(range, window.kernel))
    return any((h.met, w.met) != (box.h, box.w) for h, w in (given(box, window, tap) for tap in taps))


def places(box: Box, h: Met, w: Met, window: Window, each: int) -> tuple[int, list[Level]]:
    """Address on chip of the first position that is met, and the steps to the others, ``each`` words a position."""
    (_, top, left), (down, across) = box.first, window.stride
    first = ((h.first - top) * box.w + w.first - left) * each
    return first, [(box.n, box.h * box.w * each), (h.met, down * box.w * each), (w.met, across * each)]


def gather(work: Work, scratch: int, made: Images, window: Window, first: int, channels: int) -> None:
    """The sum, in order of taps, of what windows give each position of ``made``, from FP32 ``scratch`` [n, *positions,
    taps, channels]; ``first``: channel of ``made`` to begin at."""
    work.emitter.begin_stretch()
    taps, row = list(every(*map(range, window.kernel))), window.taps * channels
    across = window.positions[1] * row
    strides = (window.positions[0] * across, across, row)
    for box in boxes_of(work, (made.n, made.h, made.w), channels, len(taps)):
        operands, results, beats = work.half(Space.OPERANDS), work.half(Space.RESULTS), ceil_div(box.words, work.lanes)
        if is_ragged(box, window):
            work.blank(operands, 0, box.rows * len(taps) * beats)
        for number, tap in enumerate(taps):
            h, w = given(box, window, tap)
            if not h.met or not w.met:
                continue
            at, outer = places(box, h, w, window, len(taps) * beats)
            element = box.first[0] * strides[0] + h.window * strides[1] + w.window * strides[2]
            work.move(
                Unit.LOAD,
                Space.OPERANDS,
                operands,
                form=Form.FP32,
                address=scratch + FP32.bytes * (element + number * channels + box.channel),
                words=box.words,
                lines=[
                    (count, FP32.bytes * stride) for count, stride in zip((box.n, h.met, w.met), strides, strict=True)
                ],
                at=place(0, at + number * beats),
                inner=work.beats,
                outer=outer,
            )
        work.vector(
            VectorOpcode.GATHER, beats, rows=box.rows, terms=len(taps), operands_half=operands, results_half=results
        )
        store_box(work, results, made, box._replace(channel=first + box.channel))


def store_box(work: Work, half: int, made: Images, box: Box) -> None:
    """RESULTS to a box of positions."""
    work.rows(
        Unit.STORE,
        Space.RESULTS,
        half,
        made.tensor,
        element=made.element(*box.first, box.channel),
        words=box.words,
        lines=box.lines(made.strides),
    )
