"""Weights without a pattern on a gather engine beside 2:8 on the array, at equal density: products of ResNet-50 in use.

Prints the tables of docs/gather.md: every shape of product, dense and 2:8 on the STCE and gathered, then what balance
and banks do to masks. ``--shapes N``: only the first N.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import weft
from weft.dataflow.engines import place
from weft.dataflow.gather.spec import GatherSpec
from weft.dataflow.gather.time import slots_of_lines
from weft.dataflow.objective import Objective
from weft.simulator.gather import step_mask
from weft.workloads.step import MatrixOp, Workload

MACHINE = weft.machine(Path(__file__).with_name("tiny-gather.toml"))


def shapes(step: Workload) -> dict[tuple[int, int, int], tuple[MatrixOp, int]]:
    """A product of each shape (m, k, n) that has a sparse operand, and how many there are."""
    ops = [op for op in step.matrix_ops if op.sparse is not None]
    count = Counter((op.gemm.m, op.gemm.k, op.gemm.n) for op in ops)
    first = {(op.gemm.m, op.gemm.k, op.gemm.n): op for op in reversed(ops)}
    return {key: (first[key], count[key]) for key in count}


def products(most: int | None) -> None:
    """Markdown: cycles of each shape of product."""
    step = weft.trace("resnet50", use="infer", batch=1)
    free, grouped = (shapes(weft.sparsify(step, scheme, "2:8")) for scheme in ("erk", "bdwp"))
    print("| m x k x n | times | dense | 2:8 | gathered | gathered / 2:8 | weights 2:8, B | gathered, B |")
    print("|---" * 8 + "|")
    sums = np.zeros(5, np.int64)
    for key, (op, times) in list(free.items())[:most]:
        dense, nm, gathered = (
            place(one, MACHINE, Objective.CYCLES) for one in (replace(op, sparse=None), grouped[key][0], op)
        )
        cycles = [one.cycles.total for one in (dense, nm, gathered)]
        assert (dense.engine, nm.engine, gathered.engine) == ("STCE", "STCE", "gather")
        copy = grouped[key][0].copy
        assert copy is not None and op.sparse is not None
        stored = -(-copy.kept * 19 // 8), op.sparse.bytes(op.gemm, 16)
        sums += times * np.array([*cycles, *stored])
        shown = " | ".join(f"{n:,}" for n in cycles)
        row = f"{shown} | {cycles[2] / cycles[1]:.3f} | {stored[0]:,} | {stored[1]:,} |"
        print(f"| {' x '.join(map(str, key))} | {times} | {row}")
    dense_all, nm_all, gathered_all, *stored_all = sums.tolist()
    all_ = f"{dense_all:,} | {nm_all:,} | {gathered_all:,} | {gathered_all / nm_all:.3f}"
    print(f"| all | | {all_} | {stored_all[0]:,} | {stored_all[1]:,} |")


def masks() -> Iterator[tuple[str, np.ndarray]]:
    """Masks [k, n] of a quarter of 1,152 x 128 elements, spread in several ways."""
    random = np.random.default_rng(1).random((1152, 128))
    yield "each element by itself", random < 0.25
    yield "a quarter of what is kept in one bank of 16", random < np.where(np.arange(1152)[:, None] % 16, 0.2, 1)
    yield "line j keeps (j + 1) / 256", random < np.arange(1, 129)[None] / 256
    yield "every fourth line full", np.repeat(np.arange(128)[None] % 4 == 0, 1152, axis=0)


def balances() -> None:
    """Markdown: slots of each mask by balance and banks, and what no machine with so many lanes can beat."""
    print("\n| mask | kept / lanes | static | sorted | stealing | sorted, 16 banks | sorted, 4 banks |")
    print("|---" * 7 + "|")
    for name, mask in masks():
        found = [
            step_mask(GatherSpec(lanes=4, width=4, balance=balance, banks=banks), mask)[0].slots
            for balance, banks in (("static", 0), ("sorted", 0), ("stealing", 0), ("sorted", 16), ("sorted", 4))
        ]
        kept = np.count_nonzero(mask, axis=0).astype(np.int64)
        assert slots_of_lines(GatherSpec(lanes=4, width=4), kept).least == found[1]
        print(f"| {name} | {-(-kept.sum() // 4):,} | {' | '.join(f'{n:,}' for n in found)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int)
    products(parser.parse_args().shapes)
    balances()
