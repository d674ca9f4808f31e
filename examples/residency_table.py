"""BDWP 2:8 against dense training with 16 MiB on chip for whole tensors and without: time, DRAM bytes, joules.

Vector work is fused in full. Prints the tables of docs/fusion.md; of the models that are named, if any are.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from statistics import mean

import weft
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.residency import Residency

WORKLOADS = (("resnet9", 512), ("vit_s", 512), ("vgg19@32", 512), ("resnet18@64", 256), ("resnet50", 512))
SMALL = 8
"""A batch of which activations fit."""
SIZES = (0, 2**24)
CHANNEL = 19_200_000_000
"""Bytes a second of one channel of DDR4-2400."""


def machine(channels: int, size: int) -> AcceleratorSpec:
    """The reference machine with so many DRAM channels, and so many bytes for whole tensors."""
    usual = weft.machine("sat-vcu1525")
    dram = replace(usual.dram, bytes_per_second=channels * CHANNEL)
    return replace(usual, dram=dram, buffers=replace(usual.buffers, resident_bytes=size))


def stays(found: Residency | None) -> str:
    """Megabytes that are moved no more, by kind of tensor, the most first."""
    saved = Counter[str]()
    for one in () if found is None else found.kept:
        saved[one.kind] += one.saved
    return ", ".join(f"{kind} {size / 1e6:,.0f}" for kind, size in saved.most_common() if size >= 5e5) or "-"


def table(channels: int) -> None:
    """Markdown: a row a workload, batch and size, dense and under BDWP, and the means of what BDWP saves."""
    print("| workload, batch | on chip | time, ms | speed-up | DRAM, GB | joules | energy saved | MB saved, BDWP |")
    print("|---" * 8 + "|")
    gains: dict[tuple[bool, int], list[tuple[float, float]]] = {}
    asked = [(name, batch) for name, batch in WORKLOADS if name in sys.argv[1:] or len(sys.argv) == 1]
    for name, batch in [(name, n) for name, usual in asked for n in (usual, SMALL)]:
        step = weft.fuse(weft.trace(name, batch=batch))
        for size in SIZES:
            spec = machine(channels, size)
            runs = [
                weft.simulate(weft.schedule(weft.sparsify(step, scheme, nm), spec))
                for scheme, nm in (("dense", None), ("bdwp", "2:8"))
            ]
            ms = [1e3 * run.cycles.total / spec.clock_hz for run in runs]
            moved = [run.counts.dram_bytes / 1e9 for run in runs]
            joules = [energy(run, load_table("asic-16nm")).joules for run in runs]
            gains.setdefault((batch == SMALL, size), []).append((ms[0] / ms[1], 1 - joules[1] / joules[0]))
            cells = (
                f"{ms[0]:,.1f} / {ms[1]:,.1f} | **{ms[0] / ms[1]:.3f}x** | {moved[0]:.3f} / {moved[1]:.3f} | "
                f"{joules[0]:.4f} / {joules[1]:.4f} | {1 - joules[1] / joules[0]:.1%} | {stays(runs[1].residency)}"
            )
            print(f"| {name}, {batch} | {f'{size >> 20} MiB' if size else 'none'} | {cells} |", flush=True)
    for (small, size), found in gains.items():
        which = f"batch {SMALL}" if small else "batches of the paper"
        speed, saved = mean(g for g, _ in found), mean(e for _, e in found)
        print(f"\n{which}, {size >> 20} MiB: mean speed-up {speed:.3f}x, energy saved {saved:.1%}")


if __name__ == "__main__":
    for channels in (4, 1):
        print(f"\n## {channels} DRAM channel{'s' if channels > 1 else ''}\n")
        table(channels)
