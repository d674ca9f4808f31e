"""What the bench of the unit that sets up runs is fed, and what it answers in each cycle, by the page alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...dataflow.accelerator import AcceleratorSpec
from ...hdl.blocks.banks import run_choices, run_registers
from ...hdl.blocks.frame import frame_of
from ...hdl.blocks.run_setup import chosen_layout
from ...hdl.flow.bench import StreamVectors
from ...workloads.sparsity import NMPattern
from .array_vectors import benched_products

__all__ = ["setup_vectors"]

_HELD = 0.2
"""Share of the cycles in which the array is busy without a run, an assumption: it is held."""
_LONGEST = 60
"""Cycles that a run keeps the array busy; enough for the next two to be put and set up meanwhile."""
_SIGNALS = ("put__ready", "start", "done")


def setup_vectors(spec: AcceleratorSpec, pattern: NMPattern, seed: int) -> list[StreamVectors]:
    """The products of the bench of the array: put at once, and at random beside an array that is held at random."""
    frame, layout = frame_of(spec), chosen_layout(spec)
    products = benched_products(spec, pattern)
    choices = [run_choices(frame, mapping, gemm) for mapping, gemm in products]
    payloads = [sum(value << layout[name].offset for name, value in chosen.items()) for chosen in choices]
    registers = [run_registers(spec, mapping, gemm) for mapping, gemm in products]
    rows, pace = frame.rows.bit_length(), max(frame.accumulators, frame.add_latency).bit_length()
    random, found = np.random.default_rng([seed, len(products)]), []
    for name, share, held in (("at_once", 1.0, 0.0), ("waiting", 0.05, _HELD)):
        unit = _Unit(rows + pace + 2)
        lines = [unit.cycle(registers, random.random() < share, random.random() < held, random) for _ in range(3)]
        while unit.ended < len(products):
            lines.append(unit.cycle(registers, random.random() < share, random.random() < held, random))
        found.append(_vectors(name, lines, payloads, registers))
    return found


class _Unit:
    """The unit and an array that it starts, by runs in their order; ``steps``: of a set-up."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.taken = self.set_up = self.current = self.ended = 0
        """Runs taken from ``put``, taken to be set up, whose registers stand, and over."""
        self.steps_left = 0
        self.pending = self.running = False
        self.busy_left = 0

    def cycle(
        self, runs: Sequence[Mapping[str, int]], offers: bool, held: bool, random: np.random.Generator
    ) -> dict[str, int]:
        """Signals of a cycle; ``put`` and ``run``, the run that is offered or stands, -1 for none."""
        offers &= self.taken < len(runs)
        busy = self.busy_left > 0 or held
        ready = self.taken == self.set_up
        start, done = self.pending and not busy, self.running and not busy
        seen = {"valid": offers, "put": self.taken if offers else -1, "busy": busy, "run": self.current - 1}
        seen |= dict(zip(_SIGNALS, (ready, start, done), strict=True))
        leaves = self.steps_left == 1 and not self.pending and (done or not self.running)
        takes = not ready and (self.steps_left == 0 or leaves)
        self.current += leaves
        self.ended += done
        self.steps_left = self.steps if takes else 0 if leaves else max(self.steps_left - 1, min(self.steps_left, 1))
        self.set_up += takes
        self.taken += ready and offers
        self.pending = leaves or (self.pending and busy)
        self.running = start or (self.running and busy)
        self.busy_left = int(random.integers(1, _LONGEST)) if start else max(self.busy_left - 1, 0)
        return {name: int(value) for name, value in seen.items()}


def _vectors(
    name: str, lines: list[dict[str, int]], payloads: list[int], registers: list[dict[str, int]]
) -> StreamVectors:
    def column(of: str) -> list[int]:
        return [line[of] for line in lines]

    always = np.ones(len(lines), np.bool_)
    stands = np.array(column("run")) >= 0
    outputs: dict[str, Any] = {signal: np.array(column(signal)) for signal in _SIGNALS}
    outputs |= {
        f"run__{field}": np.array([registers[max(run, 0)][field] for run in column("run")]) for field in registers[0]
    }
    return StreamVectors(
        name=name,
        inputs={
            "put__payload": np.array([payloads[run] if run >= 0 else 0 for run in column("put")], object),
            "put__valid": np.array(column("valid")),
            "busy": np.array(column("busy")),
        },
        outputs=outputs,
        meant={port: always if port in _SIGNALS else stands for port in outputs},
    )
