"""Payloads of streams: the ports of a block as fields, by the same names."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from amaranth import Value
from amaranth.lib import data
from amaranth.lib.wiring import Member

__all__ = ["Place", "described", "payload_of", "payload_wires", "payloads", "places_of"]

Place = tuple[int, int]
"""First bit and width of a field."""


def payload_of(members: Mapping[str, Member]) -> data.StructLayout:
    """A field a member, of an array an array, of an interface a struct; the first in the lowest bits."""

    def shape(member: Member) -> Any:
        made = member.shape if member.is_port else payload_of(member.signature.members)
        for dimension in reversed(member.dimensions):
            made = data.ArrayLayout(made, dimension)
        return made

    return data.StructLayout({name: shape(member) for name, member in members.items()})


def payload_wires(payload: Any, members: Mapping[str, Member], ports: Any) -> list[tuple[Value, Value]]:
    """Every field of ``payload``, of `payload_of` the ``members``, beside the port of ``ports`` that it is of."""

    def pairs(field: Any, member: Member, port: Any, dimensions: tuple[int, ...]) -> list[tuple[Value, Value]]:
        if dimensions:
            inner = (pairs(field[i], member, port[i], dimensions[1:]) for i in range(dimensions[0]))
            return [pair for found in inner for pair in found]
        if member.is_port:
            return [(Value.cast(field), Value.cast(port))]
        return payload_wires(field, member.signature.members, port)

    return [
        pair
        for name, member in members.items()
        for pair in pairs(payload[name], member, getattr(ports, name), member.dimensions)
    ]


def places_of(layout: data.Layout) -> dict[str, Place]:
    """Where the single fields are, by the names that ports of them would have: ``pair__0__1__value``."""
    found: dict[str, Place] = {}
    for name, field in layout:
        if isinstance(field.shape, data.Layout):
            for inner, (first, width) in places_of(field.shape).items():
                found[f"{name}__{inner}"] = field.offset + first, width
        else:
            found[str(name)] = field.offset, field.width
    return found


def payloads(component: Any) -> dict[str, data.StructLayout]:
    """Of the streams of a component, by name; it has no other interfaces."""
    members = component.signature.members.items()
    return {name: member.signature.members["payload"].shape for name, member in members if member.is_signature}


def described(layout: data.StructLayout) -> list[str]:
    """What the Verilog says of a payload: of each field, an array lane by lane, its first bit and its width."""
    lines = []
    for name, field in layout:
        shape, sizes = field.shape, []
        while isinstance(shape, data.ArrayLayout):
            sizes.append(shape.length)
            shape = shape.elem_shape
        count = " x ".join(map(str, [*sizes, field.width // prod(sizes)]))
        inside = ", ".join(f"{inner} {of.width}" for inner, of in shape) if isinstance(shape, data.Layout) else ""
        lines.append(f"  from bit {field.offset}: {name}, {count} bits" + (f" ({inside})" if inside else ""))
    return lines
