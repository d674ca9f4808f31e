"""BDWP and BDWP-X 2:8 against dense training on the same machine, five workloads: the speed-up, and what eats the rest.

Prints the tables of docs/results/bdwp.md.
"""

from __future__ import annotations

from statistics import mean

import weft
from weft.analysis.compare import LossLedger, loss_ledger

WORKLOADS = (("resnet9", 512), ("vit_s", 512), ("vgg19@32", 512), ("resnet18@64", 256), ("resnet50", 512))
COLUMNS = ("kept dense", "ragged", "interleave", "ports", "both", "fill", "DRAM", "SORE", "WUVE", "vector")


def column(item: str) -> str:
    """Column of a ledger item."""
    names = {
        "kept": "kept dense",
        "short": "kept dense",
        "ragged": "ragged",
        "accumulator": "interleave",
        "array": "ports",
        "bound": "both",
        "fill": "fill",
        "DRAM": "DRAM",
        "compression": "SORE",
        "weight": "WUVE",
        "vector": "vector",
    }
    return names[item.replace(":", "").split()[0]]


def losses(ledger: LossLedger) -> dict[str, float]:
    """Share of the sparse step that each loss takes."""
    total = sum(row.cycles for row in ledger.rows)
    found = dict.fromkeys(COLUMNS, 0.0)
    for row in ledger.rows:
        if row.item != "ideal":
            found[column(row.item)] += float(row.cycles / total)
    return found


def table(scheme: str) -> None:
    """Markdown: a row a workload, and the mean of the speed-ups."""
    machine, speedups = weft.machine("sat-vcu1525"), []
    print(f"| workload | batch | dense ms | {scheme} 2:8 ms | speed-up | ideal share | " + " | ".join(COLUMNS) + " |")
    print("|---" * (6 + len(COLUMNS)) + "|")
    for name, batch in WORKLOADS:
        step = weft.trace(name, batch=batch)
        dense, sparse = weft.compare(step, machine, ("dense", scheme), "2:8").results
        ledger = loss_ledger(sparse, dense)
        speedups.append(ledger.speedup)
        lost = losses(ledger)
        ms = [1e3 * r.cycles.total / machine.clock_hz for r in (dense, sparse)]
        cells = [f"{ms[0]:,.0f}", f"{ms[1]:,.0f}", f"**{ledger.speedup:.2f}x**", f"{1 - sum(lost.values()):.1%}"]
        print(f"| {name} | {batch} | " + " | ".join([*cells, *(f"{lost[c]:.1%}" for c in COLUMNS)]) + " |")
    print(f"\nMean speed-up {mean(speedups):.2f}x.\n")


if __name__ == "__main__":
    for scheme in ("bdwp", "bdwp-x"):
        table(scheme)
