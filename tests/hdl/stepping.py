"""Small components stepped by Amaranth's own simulator."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from amaranth.sim import Simulator


def step(component: wiring.Component, inputs: dict[str, list[int]], cycles: int) -> dict[str, list[int]]:
    """Outputs in each cycle, sampled as in `weft.hdl.flow.cosim`; an input that has ended is 0."""
    flat = component.signature.flatten(component)
    ports = {"__".join(map(str, path)): (member, Value.cast(port)) for path, member, port in flat}
    outputs = {name: port for name, (member, port) in ports.items() if member.flow == Out}
    seen: dict[str, list[int]] = {name: [] for name in outputs}

    async def bench(ctx: Any) -> None:
        for t in range(cycles):
            for name, values in inputs.items():
                ctx.set(ports[name][1], values[t] if t < len(values) else 0)
            for name, port in outputs.items():
                seen[name].append(ctx.get(port))
            await ctx.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen
