"""Buses under the port names that integrators and tools know: ``m_axi_arvalid``, ``s_axi_wdata``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import Module, Value
from amaranth.hdl import Shape
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Ports"]

_CONSTANT = {"id": (1, 0), "lock": (1, 0), "cache": (4, 0b0011), "prot": (3, 0), "qos": (4, 0)}
"""Bits and value of what an address of AXI4 says besides: one identifier, normal access, not cached but buffered and
modifiable, so that an interconnect may cut and widen bursts (A4.4), unprivileged secure data (A4.7), no priority."""
_CONSTANT_LITE = {"prot": _CONSTANT["prot"]}
_CHANNELS = ("ar", "r", "aw", "w", "b")


class Ports(wiring.Component):
    """The component with each field of its buses a port of its own: prefix, channel, field.

    ``buses`` gives a prefix to each bus by its member's name; "" stands for channels that are members themselves. What
    a bus has besides is constant where it goes out and not looked at where it comes in; one identifier, 0, answers.
    Other members keep their names.
    """

    def __init__(self, component: Any, buses: Mapping[str, str]) -> None:
        self.component, self.buses = component, dict(buses)
        self._wires: list[tuple[str, Any, Any]] = []
        """Port, its member, and the component's side of it or a constant."""
        full = set()
        """Buses of AXI4: their bursts have lengths."""
        for path, member, value in component.signature.flatten(component):
            prefix = self._prefix(path)
            if prefix is None:
                continue
            if isinstance(member.shape, data.StructLayout):
                for field in member.shape.members:
                    self._add(f"{prefix}{field}", member.flow, value[field])
                if "len" in member.shape.members:
                    full.add(prefix[: prefix.rindex("_")])
            else:
                self._add(f"{prefix}{path[-1]}", member.flow, value)
        for name, flow in [(w[0], w[1].flow) for w in self._wires if w[0].endswith("valid")]:
            self._besides(name.removesuffix("valid"), flow, name[: name.rindex("_")] in full)
        members: dict[str, Any] = {name: member for name, member, _ in self._wires}
        kept = {n: m for n, m in component.signature.members.items() if n not in self.buses and not self._bare(n)}
        super().__init__({**members, **kept})

    def _bare(self, name: str) -> bool:
        return "" in self.buses and name in _CHANNELS

    def _prefix(self, path: tuple[Any, ...]) -> str | None:
        """What a port of a bus begins with; None: it is of no bus."""
        *bus, channel, _ = ("", *path) if len(path) == 2 else (path if len(path) == 3 else ("", "", ""))
        return f"{self.buses[bus[0]]}_{channel}" if channel in _CHANNELS and bus[0] in self.buses else None

    def _add(self, name: str, flow: wiring.Flow, value: Any) -> None:
        shape = Shape.cast(Value.cast(value).shape())
        self._wires.append((name, wiring.Member(flow, shape), value))

    def _besides(self, start: str, flow: wiring.Flow, full: bool) -> None:
        """What the specification has on a channel, and the component has not."""
        channel = start[start.rindex("_") + 1 :]
        if channel in ("ar", "aw"):
            own = _CONSTANT if full else _CONSTANT_LITE
        elif channel in ("r", "b") and full:
            own = {"id": _CONSTANT["id"]}
        else:
            own = {}
        for field, (bits, value) in own.items():
            self._wires.append((f"{start}{field}", wiring.Member(flow, bits), value))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.unit = unit = self.component
        for name, member, inner in self._wires:
            port = getattr(self, name)
            if member.flow is Out:
                m.d.comb += port.eq(inner)
            elif not isinstance(inner, int):
                m.d.comb += Value.cast(inner).eq(port)
        for name, member in self.component.signature.members.items():
            if name in self.buses or self._bare(name):
                continue
            inner, port = getattr(unit, name), getattr(self, name)
            if member.is_signature:
                # not by wiring.connect, which finds no array of interfaces in a flipped one
                for (_, each, ours), (_, _, its) in zip(
                    member.signature.flatten(port), member.signature.flatten(inner), strict=True
                ):
                    m.d.comb += ours.eq(its) if each.flow is Out else its.eq(ours)
            elif member.flow is In:
                m.d.comb += _each(inner, port)
            else:
                m.d.comb += _each(port, inner)
        return m


def _each(to: Any, of: Any) -> list[Any]:
    """Assignments of a port, or of an array of them."""
    if isinstance(to, list | tuple):
        return [x for pair in zip(to, of, strict=True) for x in _each(*pair)]
    return [to.eq(of)]
