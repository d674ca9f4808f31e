"""Two managers before one memory: each reads what it wrote, whoever else asks; no channel takes back what it said."""

from __future__ import annotations

import random

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from weft.hdl.top.axi import Axi4
from weft.hdl.top.axi_memory import AxiMemory
from weft.hdl.top.axi_share import AxiShare

BEAT, BEATS, LATENCY = 4, 128, 4
HALF = BEATS // 2
HOLDS = ("ar", "r", "aw", "w", "b")


class Shared(wiring.Component):
    def __init__(self) -> None:
        self.share, self.memory = AxiShare(BEAT), AxiMemory(BEAT, BEATS, latency=LATENCY)
        holds = {f"hold_{name}": In(1) for name in HOLDS}
        super().__init__({"first": In(Axi4(BEAT)), "second": In(Axi4(BEAT)), **holds})

    def elaborate(self, platform):
        m = Module()
        m.submodules.share, m.submodules.memory = share, memory = self.share, self.memory
        for name in ("first", "second"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(share, name))
        wiring.connect(m, share.memory, memory.bus)
        m.d.comb += [getattr(memory, f"hold_{name}").eq(getattr(self, f"hold_{name}")) for name in HOLDS]
        return m


async def fires(ctx, channel, valid) -> None:
    """Hold ``valid`` or ``ready`` up until the transfer, for a cycle of it."""
    other = channel.ready if valid is channel.valid else channel.valid
    ctx.set(valid, 1)
    await ctx.tick().until(other)
    ctx.set(valid, 0)


async def pause(ctx, rng) -> None:
    for _ in range(rng.choice((0, 0, 1, 5))):
        await ctx.tick()


def manager(bus, start: int, seed: int, bursts: int, seen: list[str]):
    """Bursts of writes and reads in beats ``start`` to ``start`` + HALF - 1, three outstanding at most."""
    rng, held = random.Random(seed), [0] * HALF

    def ask(ctx, channel, at: int, length: int) -> None:
        for name, value in (("addr", BEAT * (start + at)), ("len", length - 1), ("size", 2), ("burst", 1)):
            ctx.set(channel.payload[name], value)

    async def bench(ctx) -> None:
        for _ in range(bursts):
            at = rng.randrange(HALF)
            length = rng.randrange(1, min(6, HALF - at + 1))
            if rng.random() < 0.5:
                ask(ctx, bus.aw, at, length)
                await fires(ctx, bus.aw, bus.aw.valid)
                for i in range(length):
                    held[at + i] = rng.randrange(1 << 32)
                    ctx.set(bus.w.payload.data, held[at + i])
                    ctx.set(bus.w.payload.strb, 15)
                    ctx.set(bus.w.payload.last, i == length - 1)
                    await pause(ctx, rng)
                    await fires(ctx, bus.w, bus.w.valid)
                await pause(ctx, rng)
                ctx.set(bus.b.ready, 1)
                (resp,) = await ctx.tick().sample(bus.b.payload.resp).until(bus.b.valid)
                ctx.set(bus.b.ready, 0)
                assert resp == 0
                seen.append("write")
            else:
                ask(ctx, bus.ar, at, length)
                await fires(ctx, bus.ar, bus.ar.valid)
                for i in range(length):
                    await pause(ctx, rng)
                    ctx.set(bus.r.ready, 1)
                    (data, last) = await ctx.tick().sample(bus.r.payload.data, bus.r.payload.last).until(bus.r.valid)
                    ctx.set(bus.r.ready, 0)
                    assert (data, last) == (held[at + i], i == length - 1)
                seen.append("read")
            await pause(ctx, rng)

    return bench


def watched(bus, rules: list[int]):
    """No channel takes back what it has said before it was taken (A3.2.1)."""

    channels = [getattr(bus, name) for name in HOLDS]
    wires = [wire for c in channels for wire in (c.valid, c.ready, c.payload.as_value())]

    async def process(ctx) -> None:
        before = {}
        async for _, _, *values in ctx.tick().sample(*wires):
            for i, name in enumerate(HOLDS):
                valid, ready, said = values[3 * i : 3 * i + 3]
                if name in before:
                    assert valid and said == before[name], name
                    rules[0] += 1
                before.pop(name, None)
                if valid and not ready:
                    before[name] = said

    return process


@pytest.mark.parametrize("seed", [1, *(pytest.param(s, marks=pytest.mark.slow) for s in range(2, 12))])
def test_each_reads_what_it_wrote(seed: int) -> None:
    dut, rng = Shared(), random.Random(seed)
    seen: dict[str, list[str]] = {"first": [], "second": []}
    rules = [0]

    async def holds(ctx) -> None:
        while True:
            for name in HOLDS:
                ctx.set(getattr(dut, f"hold_{name}"), rng.random() < 0.3)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_process(watched(dut.share.memory, rules))
    simulator.add_testbench(holds, background=True)
    for start, name in ((0, "first"), (HALF, "second")):
        simulator.add_testbench(manager(getattr(dut, name), start, 10 * seed + start, 12, seen[name]))
    simulator.run()

    assert all({"read", "write"} == set(kinds) and len(kinds) == 12 for kinds in seen.values())
    assert rules[0] > 10


def test_the_first_is_not_later_than_alone_while_the_second_is_quiet() -> None:
    """A read is answered in the cycle in which the memory itself would: programs take the cycles that are predicted."""

    def cycles(dut, bus) -> list[int]:
        came: list[int] = []

        async def bench(ctx) -> None:
            for t in range(40):
                ctx.set(bus.ar.valid, t in (0, 1, 2, 20))
                ctx.set(bus.ar.payload.len, 1)
                ctx.set(bus.ar.payload.size, 2)
                ctx.set(bus.ar.payload.burst, 1)
                ctx.set(bus.r.ready, 1)
                if ctx.get(bus.r.valid):
                    came.append(t)
                await ctx.tick()

        simulator = Simulator(dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()
        return came

    shared, alone = Shared(), AxiMemory(BEAT, BEATS, latency=LATENCY)
    found = cycles(shared, shared.first)
    assert found == cycles(alone, alone.bus)
    assert len(found) == 8
