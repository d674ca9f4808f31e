"""The products of a step as views of its tensors: a window is taps and channels along the contraction, a position of
the image a row."""

from __future__ import annotations

from dataclasses import replace

from ...workloads.graph import Node
from ...workloads.im2col import Window
from .gather import gather
from .layout import Atom, View
from .matrix import Matrix, distances
from .multiply import multiply
from .spaces import VECTOR_DEPTH, WIDE
from .windows import image_window, is_plain
from .work import Images, Work, refuse

__all__ = ["convolution", "convolution_backward", "product"]


def product(work: Work, node: Node) -> None:
    """A matrix product, with its bias where it has one; of batches one after the other."""
    a, b, made = (work.placement.region(tensor) for tensor in (*node.operands, node.makes[0]))
    bias = node.reads[0] if node.op == "aten.addmm" else None
    batches = [distances(region.axes[0] if node.op == "aten.bmm" else ()) for region in (a, b, made)]
    for at_a, at_b, at_made in zip(*batches, strict=True):
        left = Matrix(a.address + a.element.bytes * at_a, a.element, lines=a.axes[-2], slots=a.axes[-1])
        right = Matrix(b.address + b.element.bytes * at_b, b.element, lines=b.axes[-1], slots=b.axes[-2])
        out = Matrix(made.address, made.element, made.axes[-2], made.axes[-1])
        multiply(work, node, left, right, replace(out, address=out.address + out.each * at_made), bias)


def convolution(work: Work, node: Node) -> None:
    """FF: windows times kernels, group by group."""
    image, kernel = (Images(work, node, tensor) for tensor in node.reads[:2])
    made = Images(work, node, node.makes[0])
    window = image_window(node, _shape(work, node.reads[0]), _shape(work, node.reads[1]))
    _require_whole(work, node, node.reads[0], window)
    _require_whole(work, node, node.reads[1])
    bias = node.reads[2] if node.reads[2:] else None
    groups = _groups(node)
    outputs, channels = kernel.n // groups, kernel.channels
    of = work.placement
    for group in range(groups):
        left = _windows(work, image, window, channels, group * channels)
        right = Matrix(
            of.address(kernel.tensor, group * outputs * kernel.step_n),
            of.element(kernel.tensor),
            lines=[Atom(outputs, kernel.step_n)],
            slots=[Atom(window.taps * channels, 1)],
        )
        out = Matrix(
            of.address(made.tensor, group * outputs), of.element(made.tensor), _positions(made), [Atom(outputs, 1)]
        )
        multiply(work, node, left, right, out, bias, bias_first=group * outputs)


def convolution_backward(work: Work, node: Node) -> None:
    """BP of the input, or WU."""
    if node.settings["of"] == "input":
        _of_input(work, node)
    else:
        _of_weight(work, node)


def _of_input(work: Work, node: Node) -> None:
    """dY W for every position and tap into scratch, then the taps that meet at a position."""
    gradient, kernel = (Images(work, node, tensor) for tensor in node.reads[:2])
    made = Images(work, node, node.makes[0])
    _require_whole(work, node, node.reads[1])
    window = image_window(node, _shape(work, node.makes[0]), _shape(work, node.reads[1]))
    groups, of = _groups(node), work.placement
    outputs, channels = kernel.n // groups, kernel.channels
    columns = [Atom(window.taps * channels, 1)]
    plain = is_plain(window)
    if window.taps > VECTOR_DEPTH:
        refuse(node, f"has {window.taps} taps, above the {VECTOR_DEPTH} words of a bank")
    for group in range(groups):
        left = Matrix(
            of.address(gradient.tensor, group * outputs),
            of.element(gradient.tensor),
            lines=_positions(gradient),
            slots=[Atom(outputs, 1)],
        )
        right = Matrix(
            of.address(kernel.tensor, group * outputs * kernel.step_n),
            of.element(kernel.tensor),
            lines=columns,
            slots=[Atom(outputs, kernel.step_n)],
        )
        if plain:
            address, element = of.address(made.tensor, group * channels), of.element(made.tensor)
            multiply(work, node, left, right, Matrix(address, element, _positions(made), columns), None)
            continue
        rows = [Atom(gradient.n * gradient.h * gradient.w, columns[0].length)]
        multiply(work, node, left, right, Matrix(of.scratch(node), WIDE, rows, columns), None)
        gather(work, of.scratch(node), made, window, group * channels, channels)


def _of_weight(work: Work, node: Node) -> None:
    """The gradient, transposed, times the windows."""
    gradient, image = (Images(work, node, tensor) for tensor in node.reads[:2])
    kernel = Images(work, node, node.makes[0])
    window = image_window(node, _shape(work, node.reads[1]), _shape(work, node.makes[0]))
    _require_whole(work, node, node.reads[1], window)
    groups, of = _groups(node), work.placement
    outputs, channels = kernel.n // groups, kernel.channels
    for group in range(groups):
        left = Matrix(
            of.address(gradient.tensor, group * outputs),
            of.element(gradient.tensor),
            lines=[Atom(outputs, 1)],
            slots=_positions(gradient),
        )
        windows = _windows(work, image, window, channels, group * channels)
        out = Matrix(
            of.address(kernel.tensor, group * outputs * kernel.step_n),
            of.element(kernel.tensor),
            [Atom(outputs, kernel.step_n)],
            [Atom(window.taps * channels, 1)],
        )
        multiply(work, node, left, replace(windows, lines=windows.slots, slots=windows.lines), out, None)


def _windows(work: Work, image: Images, window: Window, channels: int, first: int) -> Matrix:
    """Positions of a window, and along a row its taps and their channels from ``first`` on, padding at their edges."""
    corner = image.element(0, -window.padding[0], -window.padding[1], first)
    steps = image.strides[1:]
    taps = zip(window.kernel, steps, window.dilation, strict=True)
    places = zip(window.positions, steps, window.stride, strict=True)
    return Matrix(
        work.placement.address(image.tensor, corner),
        work.placement.element(image.tensor),
        lines=[Atom(image.n, image.step_n), *(Atom(n, step * stride) for n, step, stride in places)],
        slots=[*(Atom(n, step * dilation) for n, step, dilation in taps), Atom(channels, 1)],
    )


def _positions(images: Images) -> list[Atom]:
    return [Atom(images.n, images.step_n), Atom(images.h, images.step_h), Atom(images.w, images.step_w)]


def _shape(work: Work, tensor: int) -> tuple[int, ...]:
    return work.graph.tensors[tensor].shape


def _groups(node: Node) -> int:
    groups = node.settings["groups"]
    assert isinstance(groups, int)
    return groups


def _require_whole(work: Work, node: Node, tensor: int, window: Window | None = None) -> None:
    """Kernels, and images that are read with padding, must lie as they were stored."""
    if window is not None and not any(window.padding):
        return
    view = work.placement.views[tensor]
    if view != View.whole(view.root, _shape(work, tensor), work.placement.halos.get(view.root, (0, 0))):
        refuse(node, "reads a part or a permutation of another tensor")
