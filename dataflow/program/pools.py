"""Max-pools: the largest of a window and its tap, and a gradient back to where it stood."""

from __future__ import annotations

from functools import partial
from itertools import product as every

from ...workloads.graph import Node
from ...workloads.im2col import Window
from ..integers import ceil_div
from .gather import Box, boxes_of, given, is_ragged, places, store_box
from .isa import Unit
from .ones import ones
from .spaces import COLUMN_BEATS, VECTOR_DEPTH, Form, Space, place
from .vector_operations import VectorOpcode
from .windows import Stretch, image_window, inside, stands_apart
from .work import Images, Work, fp32_bits, refuse

__all__ = ["max_pool", "max_pool_backward"]


def max_pool(work: Work, node: Node) -> None:
    """The largest of each window, and which tap it is, a number that is stored as an operand."""
    image, (made, tap) = Images(work, node, node.reads[0]), (Images(work, node, tensor) for tensor in node.makes)
    window = image_window(node, work.graph.tensors[node.reads[0]].shape)
    if window.taps > VECTOR_DEPTH:
        refuse(node, f"looks at {window.taps} taps, above the {VECTOR_DEPTH} words of a bank")
    counted = 1 + (2 << work.spec.pe.operand.fraction)
    if window.taps > counted:
        refuse(node, f"has {window.taps} taps, but {work.spec.pe.format!r} tells no more than {counted} apart")
    down, across = (inside(window, side) for side in range(2))
    if any(stretch.low >= stretch.high for stretch in (*down, *across)):
        refuse(node, "has windows outside of its image")
    for h, w in every(down, across):
        skipped = h.low * window.kernel[1] + w.low
        terms = window.taps - skipped
        # what is added to a position is as many words as there are ones
        room = max(terms, 1 + skipped, VECTOR_DEPTH // COLUMN_BEATS) if skipped else terms
        for part in boxes_of(work, (made.n, h.end - h.begin, w.end - w.begin), image.channels, room):
            box = part._replace(first=(part.first[0], part.first[1] + h.begin, part.first[2] + w.begin))
            operands, beats = work.half(Space.OPERANDS), ceil_div(box.words, work.lanes)
            _load_taps(work, image, operands, box, window, (h, w))
            for operation, out in ((VectorOpcode.MAXIMUM, made), (VectorOpcode.POSITION, tap)):
                results = work.half(Space.RESULTS)
                work.vector(operation, beats, rows=box.rows, terms=terms, operands_half=operands, results_half=results)
                store_box(work, results, out, box)
            if skipped:
                _count_from(work, tap, box, skipped)


def _load_taps(work: Work, image: Images, half: int, box: Box, window: Window, sides: tuple[Stretch, Stretch]) -> None:
    """Of each position the taps from the first one inside of the image on; it stands for those outside as well, of
    which none is then larger than all before."""
    (h, w), wide = sides, window.kernel[1]
    first = h.low * wide + w.low
    terms, beats = window.taps - first, ceil_div(box.words, work.lanes)
    n, top, left = (x * s - p for x, s, p in zip(box.first, (1, *window.stride), (0, *window.padding), strict=True))
    strides = (image.step_n, window.stride[0] * image.step_h, window.stride[1] * image.step_w)

    def load(row: int, column: int, at: int, count: int, step: int) -> None:
        """``count`` taps from ``at`` on, of which the first one lies in a row and a column of the kernel."""
        element = image.element(n, top + row * window.dilation[0], left + column * window.dilation[1], box.channel)
        work.rows(
            Unit.LOAD,
            Space.OPERANDS,
            half,
            image.tensor,
            element=element,
            words=box.words,
            lines=[*box.lines(strides), (count, step)],
            at=(at - first) * beats,
            outer=[(0, terms * beats), (count, beats)],
        )

    for row in range(h.low, h.high):
        load(row, w.low, row * wide + w.low, w.high - w.low, window.dilation[1] * image.step_w)
        begin, end = row * wide + w.high, (row + 1) * wide + w.low if row < h.high - 1 else window.taps
        if begin < end:
            load(h.low, w.low, begin, end - begin, 0)


def _count_from(work: Work, tap: Images, box: Box, first: int) -> None:
    """Positions that were counted from tap ``first`` on from the first of all: as many ones more."""
    operands, results, beats = work.half(Space.OPERANDS), work.half(Space.RESULTS), ceil_div(box.words, work.lanes)
    terms = 1 + first
    work.rows(
        Unit.LOAD,
        Space.OPERANDS,
        operands,
        tap.tensor,
        element=tap.element(*box.first, box.channel),
        words=box.words,
        lines=box.lines(tap.strides),
        outer=[(0, terms * beats)],
    )
    work.move(
        Unit.LOAD,
        Space.OPERANDS,
        operands,
        form=Form.FP32,
        address=ones(work),
        words=box.words,
        lines=[(box.rows, 0), (first, 0)],
        at=place(0, beats),
        inner=work.beats,
        outer=[(0, terms * beats), (first, beats)],
    )
    work.vector(VectorOpcode.GATHER, beats, rows=box.rows, terms=terms, operands_half=operands, results_half=results)
    store_box(work, results, tap, box)


def max_pool_backward(work: Work, node: Node) -> None:
    """Each gradient to the position where its maximum stood; -0.0 to all others."""
    made, (gradient, tap) = Images(work, node, node.makes[0]), (Images(work, node, tensor) for tensor in node.reads)
    window = image_window(node, work.graph.tensors[node.makes[0]].shape)
    if stands_apart(window):
        _apart(work, made, gradient, tap, window)
    else:
        _added(work, node, made, gradient, tap, window)


def _apart(work: Work, made: Images, gradient: Images, tap: Images, window: Window) -> None:
    """Where windows do not meet, tap by tap to all of them."""
    _blank_rest(work, made, window)
    strides = (made.step_n, window.stride[0] * made.step_h, window.stride[1] * made.step_w)
    for box in boxes_of(work, (gradient.n, gradient.h, gradient.w), gradient.channels):
        operands, beats = work.half(Space.OPERANDS), ceil_div(box.words, work.lanes)
        for number, read in enumerate((gradient, tap)):
            work.rows(
                Unit.LOAD,
                Space.OPERANDS,
                operands,
                read.tensor,
                element=read.element(*box.first, box.channel),
                words=box.words,
                lines=box.lines(read.strides),
                operand=number,
            )
        n, top, left = (x * s for x, s in zip(box.first, (1, *window.stride), strict=True))
        for number, (down, across) in enumerate(every(*map(range, window.kernel))):
            h, w = top + down - window.padding[0], left + across - window.padding[1]
            results = work.half(Space.RESULTS)
            work.vector(
                VectorOpcode.SELECT,
                beats,
                rows=box.rows,
                operands_half=operands,
                results_half=results,
                factor=fp32_bits(number),
            )
            work.rows(
                Unit.STORE,
                Space.RESULTS,
                results,
                made.tensor,
                element=made.element(n, h, w, box.channel),
                words=box.words,
                lines=box.lines(strides),
            )


def _blank_rest(work: Work, made: Images, window: Window) -> None:
    """-0.0 where no window is."""
    met = [
        {q * stride + tap for q in range(count) for tap in range(kernel)}
        for count, stride, kernel in zip(window.positions, window.stride, window.kernel, strict=True)
    ]
    rows, columns = (sorted(set(range(n)) - met[i]) for i, n in enumerate((made.h, made.w)))
    if not rows and not columns:
        return
    operands, results = work.half(Space.OPERANDS), work.half(Space.RESULTS)
    work.blank(operands, 0, 1)
    work.vector(VectorOpcode.COPY, 1, operands_half=operands, results_half=results)
    of = work.placement
    each = of.bytes(made.tensor)
    parts = [(made.element(0, h, 0, 0), (made.w, made.step_w)) for h in rows]
    parts += [(made.element(0, 0, w, 0), (made.h, made.step_h)) for w in columns]
    for element, (count, stride) in parts:
        work.move(
            Unit.STORE,
            Space.RESULTS,
            results,
            form=of.element(made.tensor),
            address=of.address(made.tensor, element),
            words=made.channels,
            lines=[(made.n, each * made.step_n), (count, each * stride)],
            inner=[(0, 0), (work.lanes, work.beats[1][1])],
        )


def _added(work: Work, node: Node, made: Images, gradient: Images, tap: Images, window: Window) -> None:
    """Where windows meet: what each position gets of its windows, in their order, so of the last tap first."""
    scratch = work.placement.scratch(node)
    taps = list(enumerate(every(*map(range, window.kernel))))[::-1]
    for box in boxes_of(work, (made.n, made.h, made.w), made.channels):
        beats, ragged = ceil_div(box.words, work.lanes), is_ragged(box, window)
        whole = box.rows * beats * work.lanes
        for turn, (number, at) in enumerate(taps):
            operands, results = work.half(Space.OPERANDS), work.half(Space.RESULTS)
            for operand, read in enumerate((gradient, tap)):
                if ragged:
                    work.blank(operands, operand, box.rows * beats)
                _load_met(work, read, operands, operand, box, window, at)
            move = partial(work.move, form=Form.FP32, address=scratch, which=1, words=whole, inner=work.beats)
            if turn:
                move(Unit.LOAD, Space.OPERANDS, operands, at=place(2 * work.lanes))
            work.vector(
                VectorOpcode.SELECT,
                beats,
                rows=box.rows,
                first=int(turn == 0),
                operands_half=operands,
                results_half=results,
                factor=fp32_bits(number),
            )
            if turn < len(taps) - 1:
                move(Unit.STORE, Space.RESULTS, results)
            else:
                store_box(work, results, made, box)


def _load_met(
    work: Work, read: Images, half: int, operand: int, box: Box, window: Window, tap: tuple[int, ...]
) -> None:
    """What the windows that a tap belongs to have, to the positions of a box that it meets."""
    h, w = given(box, window, tap)
    if not h.met or not w.met:
        return
    at, outer = places(box, h, w, window, ceil_div(box.words, work.lanes))
    work.rows(
        Unit.LOAD,
        Space.OPERANDS,
        half,
        read.tensor,
        element=read.element(box.first[0], h.window, w.window, box.channel),
        words=box.words,
        lines=list(zip((box.n, h.met, w.met), read.strides, strict=True)),
        operand=operand,
        which=0,
        at=at,
        outer=outer,
    )
