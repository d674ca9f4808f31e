"""Areas of a million machines at random on an UltraScale+, by CPU time; a sample equals what each is alone."""

from __future__ import annotations

import time

import numpy as np
import pytest

from weft.analysis.area_by_shape import area_of_shape, areas
from weft.analysis.area_model import COUNTS
from weft.analysis.variants import changed
from weft.dataflow.config_io import load_spec

MACHINES = 1_000_000
SLOWEST = 30.0
"""CPU seconds for all of them."""


def test_areas_of_a_million_machines() -> None:
    draw = np.random.default_rng(1)
    choices: dict[str, tuple[int | str, ...]] = {
        "array.rows": tuple(range(1, 65)),
        "array.cols": tuple(range(1, 65)),
        "array.w2e_words": (1, 2, 4, 8),
        "pe.accumulators": tuple(range(1, 33)),
        "pe.dense_words": (16, 24, 32, 64, 128),
        "pe.weight_pairs": tuple(range(1, 17)),
        "pe.format": ("fp16", "bf16"),
        "sore.lanes": tuple(range(1, 129)),
        "wuve.lanes": tuple(range(1, 129)),
        "buffers.w2e_bytes": tuple(2**bits for bits in range(14, 24)),
    }
    columns = {path: np.array(values)[draw.integers(len(values), size=MACHINES)] for path, values in choices.items()}
    spec = load_spec("sat-vcu1525")
    areas(spec, {path: column[:10] for path, column in columns.items()}, "xcup")
    begun = time.process_time()
    found = areas(spec, columns, "xcup")
    took = time.process_time() - begun
    if took >= SLOWEST:
        pytest.fail(f"{MACHINES:,} machines took {took:.1f} CPU s")
    assert not np.isnan(found.lut).any()
    for i in draw.integers(MACHINES, size=40).tolist():
        one = changed(spec, {path: column[i].item() for path, column in columns.items()})
        total = area_of_shape(one, "xcup").total
        assert [getattr(found, name)[i] for name in ("lut", *COUNTS[1:])] == [total[name] for name in COUNTS]
