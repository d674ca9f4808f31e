"""A component inside another one, elaborated in place or emitted once and instantiated by name."""

from __future__ import annotations

from typing import Any

from amaranth import ClockSignal, Instance, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["place"]


def place(m: Module, name: str, component: Any, *arguments: object, module: str | None = None) -> Any:
    """Put ``component(*arguments)`` into ``m`` and return its interface; ``component.ports`` tells its members.

    Given ``module``, what is put there is an instance of the module of that name, which the caller emits once: Amaranth
    emits a component as often as it is instantiated.
    """
    if module is None:
        m.submodules[name] = placed = component(*arguments)
        return placed
    signature = wiring.Signature(component.ports(*arguments))
    ports = signature.create(path=(name,))
    pins = {
        f"{'i' if member.flow == In else 'o'}_{'__'.join(map(str, path))}": value
        for path, member, value in signature.flatten(ports)
    }
    m.submodules[name] = Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(allow_reset_less=True), **pins)
    return ports
