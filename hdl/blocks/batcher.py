"""Batcher's odd-even merge sort, a registered stage a cycle."""

from __future__ import annotations

from amaranth import C, Module, Mux, Signal, Value

__all__ = ["batcher_stages", "sort_words"]


def batcher_stages(inputs: int) -> list[list[tuple[int, int]]]:
    """Comparators of each stage of an odd-even merge sort of ``inputs`` wires, rounded up to a power of two."""
    width = 1 << (inputs - 1).bit_length()
    return [
        [
            (i, i + distance)
            for i in range(distance % run, width - distance)
            if (i - distance % run) % (2 * distance) < distance and i // (2 * run) == (i + distance) // (2 * run)
        ]
        for run in _powers_below(width)
        for distance in reversed(_powers_below(2 * run))
    ]


def _powers_below(limit: int) -> list[int]:
    return [1 << e for e in range((limit - 1).bit_length())]


def sort_words(m: Module, name: str, words: list[Value], key: int) -> list[Value]:
    """Send words through one registered stage after another; the largest in the bits from ``key`` up comes first."""
    wires = words + [C(0, len(words[0]))] * ((1 << (len(words) - 1).bit_length()) - len(words))
    for stage, comparators in enumerate(batcher_stages(len(words))):
        registers = [Signal(len(words[0]), name=f"{name}_{stage}_{i}") for i in range(len(wires))]
        crossed = list(wires)
        for i, j in comparators:
            swap = Signal(name=f"{name}_{stage}_{i}_{j}_swap")
            m.d.comb += swap.eq(wires[j][key:] > wires[i][key:])
            crossed[i], crossed[j] = Mux(swap, wires[j], wires[i]), Mux(swap, wires[i], wires[j])
        m.d.sync += [register.eq(word) for register, word in zip(registers, crossed, strict=True)]
        wires = registers
    return wires
