"""Speed of fusing a step and choosing what of it stays on chip: ResNet-50, warm, in 50 ms at most, Llama-2-70B in a
second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.fusion.fuse import fuse
from weft.dataflow.residency import resident
from weft.dataflow.schedule import schedule
from weft.workloads.models import zoo
from weft.workloads.trace import trace_step

SAT = load_spec("sat-vcu1525")
ROOMY = replace(SAT, buffers=replace(SAT.buffers, output_bytes=2**22))
"""With room for the rows of the large model."""
HOLDING = replace(ROOMY, buffers=replace(ROOMY.buffers, resident_bytes=2**24))


@pytest.mark.parametrize(
    ("model", "candidates", "kept", "most"), [("resnet50", 594, 274, 0.05), ("llama2_70b", 1544, 741, 1.0)]
)
def test_fusing_and_allocating_a_step(benchmark, model, candidates, kept, most):
    """How many tensors could stay in 16 MiB by themselves, and how many do together."""
    step = trace_step(zoo.source(model))
    plan = schedule(fuse(step, "full"), ROOMY)

    _, _, found = benchmark(lambda: resident(fuse(step, "full"), plan.placements, HOLDING))

    assert (len(found.candidates), len(found.kept)) == (candidates, kept)
    assert benchmark.stats["min"] <= most
