"""Windows of the images that a node works on: where taps fall, and which of them meet."""

from __future__ import annotations

from typing import NamedTuple

from ...workloads.errors import InputError
from ...workloads.graph import Node
from ...workloads.im2col import Window

__all__ = ["Met", "Stretch", "image_window", "inside", "is_plain", "met", "overlaps", "stands_apart"]


def image_window(node: Node, image: tuple[int, ...], kernel: tuple[int, ...] | None = None) -> Window:
    """The window of a convolution, whose ``kernel`` is [out, in, *sides], or of a pool; ``image``: [n, c, *sides]."""
    sides = node.settings["kernel_size"] if kernel is None else kernel[2:]
    given = {name: node.settings[name] for name in ("stride", "padding", "dilation")}
    if len(image) != 4:
        raise InputError(f"{node.op} of {node.module!r} is over {len(image) - 2} dimensions; images of 2 are compiled")
    return Window(image=image[2:], kernel=sides, **given)  # type: ignore[arg-type]  # settings are as the graph has them


def is_plain(window: Window) -> bool:
    """Whether each position of the image is the one tap of one window."""
    return window.taps == 1 and set(window.stride) == {1} and not any(window.padding)


def overlaps(window: Window) -> bool:
    """Whether a position may be in two windows."""
    sides = zip(window.kernel, window.stride, window.dilation, strict=True)
    return any(kernel > 1 and (kernel > stride or dilation > 1) for kernel, stride, dilation in sides)


def stands_apart(window: Window) -> bool:
    """Whether each position of a window is inside of the image, and of no other window."""
    return not overlaps(window) and not any(window.padding)


class Met(NamedTuple):
    """Along one side: ``met`` positions of an image from ``first`` on, a stride apart, that a tap meets from window
    ``window`` on, one by one."""

    first: int
    window: int
    met: int


def met(window: Window, side: int, tap: int, begin: int, end: int) -> Met:
    """What of the positions from ``begin`` to ``end`` tap ``tap`` of that side meets."""
    stride, back = window.stride[side], window.padding[side] - tap * window.dilation[side]
    # window q has its tap at position q * stride - back
    low = max(0, -(-(begin + back) // stride))
    high = min(window.positions[side], (end - 1 + back) // stride + 1)
    return Met(low * stride - back, low, max(0, high - low))


class Stretch(NamedTuple):
    """Along one side: windows ``begin`` to ``end``, of which taps ``low`` to ``high`` are inside of the image."""

    begin: int
    end: int
    low: int
    high: int


def inside(window: Window, side: int) -> list[Stretch]:
    """All windows of that side in order, in stretches that are as long as can be."""
    length, kernel, stride = window.image[side], window.kernel[side], window.stride[side]
    found: list[Stretch] = []
    for q in range(window.positions[side]):
        taps = [t for t in range(kernel) if 0 <= q * stride + t * window.dilation[side] - window.padding[side] < length]
        low, high = (taps[0], taps[-1] + 1) if taps else (0, 0)
        if found and (found[-1].low, found[-1].high) == (low, high):
            found[-1] = found[-1]._replace(end=q + 1)
        else:
            found.append(Stretch(q, q + 1, low, high))
    return found
