"""Updates of the parameters as commands of WUVE."""

from __future__ import annotations

from math import prod

from ...workloads.errors import InputError
from ...workloads.graph import PortKind
from ..integers import ceil_div
from ..operand import FP32
from .isa import Unit
from .layout import merged, stored_order
from .placement import Parameter
from .spaces import VECTOR_DEPTH, WIDE, Element, Form, Space, place
from .vector_operations import VectorOpcode
from .work import BANK, Work

__all__ = ["carry", "load_constants", "update"]


def carry(work: Work) -> None:
    """Raise the flag `nonfinite` again in a program behind one that has raised it, by what the host has written."""
    region = work.placement.carried
    assert region is not None, "a pass of several programs"
    operands, results = work.half(Space.OPERANDS), work.half(Space.RESULTS)
    ends = {"form": Form.FP32, "address": region.address, "words": 1, "inner": work.beats}
    work.move(Unit.LOAD, Space.OPERANDS, operands, **ends)  # type: ignore[arg-type]
    work.vector(VectorOpcode.COPY, 1, operands_half=operands, results_half=results)
    work.move(Unit.STORE, Space.RESULTS, results, watch=1, **ends)  # type: ignore[arg-type]


def load_constants(work: Work) -> None:
    """What WUVE's rule takes of the host."""
    constants = work.placement.constants
    (words,) = constants.shape
    work.move(Unit.LOAD, Space.CONSTANTS, 0, form=Form.FP32, address=constants.address, words=words, inner=[(0, 1)])


def update(work: Work, parameter: Parameter) -> None:
    """WUVE over a parameter that is trained, block by block."""
    lanes, of = work.spec.wuve.lanes, work.placement
    (gradient,) = (p.tensor for p in work.graph.leaving(PortKind.GRADIENT) if p.name == parameter.name)
    assert parameter.master is not None, "what is trained has a master"
    held = [region.address for region in (parameter.master, *parameter.state)]
    elements = prod(parameter.master.shape)
    axes = of.views[gradient].axes
    if len(merged([[atom for axis in stored_order(len(axes)) for atom in axes[axis]]])) != 1:
        raise InputError(f"the gradient of {parameter.name!r} does not lie in the order of the parameter")

    def move(unit: Unit, space: Space, half: int, stream: int, element: Element, address: int, words: int) -> None:
        inner = [(0, 1), (lanes, BANK)]
        # operands and numbers in FP32 go on by steps of their own
        work.move(
            unit,
            space,
            half,
            form=element,
            address=address,
            which=int(element != WIDE),
            words=words,
            at=place(stream * lanes),
            inner=inner,
        )

    for begin in range(0, elements, lanes * VECTOR_DEPTH):
        words = min(elements - begin, lanes * VECTOR_DEPTH)
        weights, updated = work.half(Space.WEIGHTS), work.half(Space.UPDATED)
        move(Unit.LOAD, Space.WEIGHTS, weights, 0, of.element(gradient), of.address(gradient, begin), words)
        for stream, at in enumerate(held, 1):
            move(Unit.LOAD, Space.WEIGHTS, weights, stream, WIDE, at + FP32.bytes * begin, words)
        beats = ceil_div(words, lanes)
        work.emitter.command(Unit.UPDATE, beats=beats, weights_half=weights, updated_half=updated)
        for stream, at in enumerate(held):
            move(Unit.STORE, Space.UPDATED, updated, stream, WIDE, at + FP32.bytes * begin, words)
        if parameter.weight is not None:
            element = parameter.weight.element
            address = parameter.weight.address + element.bytes * begin
            move(Unit.STORE, Space.UPDATED, updated, 0, element, address, words)
