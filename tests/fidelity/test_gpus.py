"""Models in use and 2:4 training on GPUs, measured by others, against machines of their peaks; docs/results/gpus.md
explains them.

Nothing is fitted. The ratios are pinned, so that a change of the machine or of the tracer shows here.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import weft

GPUS = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "gpus.py"), run_name="gpus")
RATIOS = {
    ("a100", "llama2_7b", 1, "dense"): 1.10,
    ("a100", "bert", 1, "dense"): 1.84,
    ("a100", "bert", 8, "dense"): 1.02,
    ("a100", "bert", 32, "dense"): 0.89,
    ("t4", "bert", 32, "dense"): 1.32,
    ("v100", "resnet50", 256, "dense"): 1.36,
    ("t4", "resnet50", 256, "dense"): 1.46,
    ("a100", "mlp", 44160, "dense"): 1.50,
    ("a100", "mlp", 44160, "transposable"): 1.75,
}
"""Measured over ours."""
QUICK = ("mlp", "bert", "resnet50")


def _key(row):
    return row.gpu, row.model, row.batch, row.scheme


def _rows(*, quick: bool):
    return [row for row in GPUS["rows"]() if (row.model in QUICK) is quick]


def test_every_measurement_has_a_ratio():
    assert [_key(row) for row in GPUS["rows"]()] == list(RATIOS)


@pytest.mark.parametrize("name", GPUS["GPUS"])
def test_a_machine_has_its_gpus_peaks(name):
    gpu, spec = GPUS["GPUS"][name], GPUS["machine"](name)

    assert 2 * spec.macs_per_cycle * spec.clock_hz == pytest.approx(gpu.tflops * 1e12, rel=0.004)
    assert float(spec.dram_bytes_per_cycle) * spec.clock_hz == pytest.approx(0.83 * gpu.bytes_per_second)


def _held(row):
    spec, step = GPUS["machine"](row.gpu), weft.fuse(GPUS["workload"](row), "full")
    seconds = GPUS["ours"](step, spec)

    assert row.seconds / seconds == pytest.approx(RATIOS[_key(row)], abs=0.005)
    assert GPUS["by_hand"](step, spec) <= seconds


@pytest.mark.parametrize("row", _rows(quick=True), ids=str)
def test_what_was_measured_over_ours(row):
    _held(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", _rows(quick=False), ids=str)
def test_what_was_measured_of_large_models_over_ours(row):
    _held(row)
