"""Speed of the tracer: a training step of many small ops, written as a loop of cells and as recurrent layers.

Warm are imports and torch's operators; what a recorder remembers of calls is worked out anew in every step. A loop of
cells takes 2.1 to 2.5 times less an op than before what shapes tell was kept, on one loaded machine in turns.

And what a trace on disk spares a new process: `weft run` of a model that was never traced, and of one that was.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import weft
from weft.workloads.gemm import Pass
from weft.workloads.models import zoo
from weft.workloads.models.source import ModelSource, StepInputs
from weft.workloads.trace import trace_step

STEPS, BATCH, WIDTH = 200, 8, 64


class Cells(nn.Module):
    """One cell, called step after step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(WIDTH, WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = memory = x.new_zeros(x.shape[1], WIDTH)
        for part in x:
            hidden, memory = self.cell(part, (hidden, memory))
        return self.head(hidden)


class RowsAndColumns(nn.Module):
    """Layers over the rows and over the columns of an image, both ways, as Sequencer2D (Tatsunami & Taki 2022) has."""

    def __init__(self, blocks: int = 4, width: int = 48, hidden: int = 12) -> None:
        super().__init__()
        self.down, self.across = (
            nn.ModuleList(nn.LSTM(width, hidden, bidirectional=True, batch_first=True) for _ in range(blocks))
            for _ in range(2)
        )
        self.mix = nn.ModuleList(nn.Linear(4 * hidden, width) for _ in range(blocks))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        batch, rows, columns, _ = x.shape
        for down, across, mix in zip(self.down, self.across, self.mix, strict=True):
            one = down(x.transpose(1, 2).flatten(0, 1))[0].unflatten(0, (batch, columns)).transpose(1, 2)
            other = across(x.flatten(0, 1))[0].unflatten(0, (batch, rows))
            x = x + mix(torch.cat([one, other], -1))
        return self.head(x.mean((1, 2)))


def source(name: str, build: type[nn.Module], *shape: int) -> ModelSource:
    return ModelSource(
        name=name,
        title=name,
        build=build,
        loss=lambda output, _: output.sum(),
        inputs=lambda _batch, _seq: StepInputs(args=(torch.empty(*shape, device="meta"),), batch=BATCH, shape=""),
    )


MODELS = {
    "a loop of cells": (lambda: source("cells", Cells, STEPS, BATCH, WIDTH), 2 * STEPS + 1),
    "rows and columns": (lambda: source("image", RowsAndColumns, BATCH, 16, 16, 48), 4 * 4 * 17 + 5),
    "gpt2": (lambda: zoo.source("gpt2"), 73),
    "resnet50": (lambda: zoo.source("resnet50"), 54),
}
"""With the products of a forward pass."""


@pytest.mark.parametrize("name", MODELS)
def test_trace(benchmark, name):
    """Forward and backward of one step; the model is built in it too."""
    make, products = MODELS[name]

    step = benchmark(lambda: trace_step(make()))

    benchmark.extra_info["microseconds_per_op"] = round(benchmark.stats["min"] * 1e6 / len(step.ops))
    assert sum(op.pass_ is Pass.FF for op in step.matrix_ops) == products


def cpu_of_children() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.benchmark(timer=cpu_of_children)
@pytest.mark.parametrize("traced", ["first", "again"])
def test_run_in_a_new_process(benchmark, traced, tmp_path):
    """CPU time with the interpreter and all imports; kernels are on disk, and nothing else of ours is."""
    command = ["run", "resnet50", "--batch", "64", "--scheme", "bdwp", "--nm", "2:8", "--json"]

    def run() -> bytes:
        place = {**os.environ, "WEFT_CACHE": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-m", "weft", *command], env=place, check=True, capture_output=True
        ).stdout

    def forget() -> None:
        if traced == "first":
            shutil.rmtree(tmp_path / "traces")

    expected = run()

    found = benchmark.pedantic(run, setup=forget, rounds=5)

    step = weft.sparsify(weft.trace("resnet50", batch=64), "bdwp", "2:8")
    assert found == expected
    assert json.loads(found)["cycles"] == weft.simulate(weft.schedule(step, "sat-vcu1525")).cycles.total
