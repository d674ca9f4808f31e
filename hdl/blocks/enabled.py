"""A component that holds still, as a module of its own."""

from __future__ import annotations

from typing import Any

from amaranth import EnableInserter
from amaranth.hdl import Fragment
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["enable_port", "enabled"]


def enable_port(stalls: bool) -> dict[str, Any]:
    """The port ``en`` of what can hold still; none of what cannot."""
    return {"en": In(1)} if stalls else {}


class _Enabled(wiring.Component):
    def __init__(self, component: Any) -> None:
        self._component = component
        members = component.signature.members
        super().__init__({**members, **enable_port(True)})
        for name in members:
            setattr(self, name, getattr(component, name))

    def elaborate(self, platform: Any) -> Any:
        fragment = Fragment.get(self._component, platform)
        if fragment.subfragments:
            raise TypeError(f"{type(self).__name__} has components of its own, which would be emitted without en")
        return EnableInserter(self.en)(fragment)


def enabled(component: Any) -> Any:
    """``component`` with one more input, ``en``: in a cycle without it everything holds.

    Inserted around a whole hierarchy an enable is no port of the components within, so that a module that is emitted
    for one of them would run on.
    """
    kind = type(component)
    named = type(kind.__name__, (_Enabled,), {"__doc__": kind.__doc__, "__module__": kind.__module__})
    return named(component)
