"""BDWP 2:8 against dense training with vector work fused and not, five workloads: time, DRAM bytes, joules.

Prints the tables of docs/fusion.md; of the models that are named, if any are.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from statistics import mean

import weft
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.fusion.fuse import FUSIONS
from weft.simulator.memory import memory_need

WORKLOADS = (("resnet9", 512), ("vit_s", 512), ("vgg19@32", 512), ("resnet18@64", 256), ("resnet50", 512))
CHANNEL = 19_200_000_000
"""Bytes a second of one channel of DDR4-2400."""


def machines() -> dict[str, AcceleratorSpec]:
    """The reference machine, with one DRAM channel of four, and with four times the vector lanes."""
    usual = weft.machine("sat-vcu1525")
    return {
        "four channels, 64 lanes": usual,
        "one channel, 64 lanes": replace(usual, dram=replace(usual.dram, bytes_per_second=CHANNEL)),
        "four channels, 256 lanes": replace(usual, vector=replace(usual.vector, lanes=256)),
        "one channel, 256 lanes": replace(
            usual, dram=replace(usual.dram, bytes_per_second=CHANNEL), vector=replace(usual.vector, lanes=256)
        ),
    }


def table(spec: AcceleratorSpec) -> None:
    """Markdown: a row a workload and fusion, dense and under BDWP, and the means of what BDWP saves."""
    print("| workload | fusion | time, ms | speed-up | DRAM, GB | joules | energy saved | kept in DRAM, GB |")
    print("|---" * 8 + "|")
    gains: dict[str, list[tuple[float, float]]] = {fusion: [] for fusion in FUSIONS}
    for name, batch in ((name, batch) for name, batch in WORKLOADS if name in sys.argv[1:] or len(sys.argv) == 1):
        step = weft.trace(name, batch=batch)
        for fusion in FUSIONS:
            fused = weft.fuse(step, fusion)
            runs = [
                weft.simulate(weft.schedule(weft.sparsify(fused, scheme, nm), spec))
                for scheme, nm in (("dense", None), ("bdwp", "2:8"))
            ]
            ms = [1e3 * run.cycles.total / spec.clock_hz for run in runs]
            moved = [run.counts.dram_bytes / 1e9 for run in runs]
            joules = [energy(run, load_table("asic-16nm")).joules for run in runs]
            kept = memory_need(fused, spec).total / 1e9
            gains[fusion].append((ms[0] / ms[1], 1 - joules[1] / joules[0]))
            cells = (
                f"{ms[0]:,.0f} / {ms[1]:,.0f} | **{ms[0] / ms[1]:.3f}x** | {moved[0]:.2f} / {moved[1]:.2f} | "
                f"{joules[0]:.3f} / {joules[1]:.3f} | {1 - joules[1] / joules[0]:.1%} | {kept:.2f}"
            )
            print(f"| {name} | {fusion} | {cells} |", flush=True)
    for fusion, found in gains.items():
        print(
            f"\n{fusion}: mean speed-up {mean(g for g, _ in found):.3f}x, energy saved {mean(e for _, e in found):.1%}"
        )


if __name__ == "__main__":
    for title, spec in machines().items():
        print(f"\n## {title}\n")
        table(spec)
