"""Speed of fusion: the step of ResNet-50, warm, in 50 ms at most, that of Llama-2-70B in a second."""

from __future__ import annotations

import pytest

from weft.dataflow.fusion.fuse import fuse
from weft.workloads.models import zoo
from weft.workloads.step import VectorOp, Workload
from weft.workloads.trace import trace_step


def vector_bytes(step: Workload) -> int:
    return sum(op.moved for op in step.ops if isinstance(op, VectorOp))


@pytest.mark.parametrize(
    ("model", "ops", "share", "most"), [("resnet50", 622, 0.59, 0.05), ("llama2_70b", 11_666, 0.34, 1.0)]
)
def test_fusing_a_step(benchmark, model, ops, share, most):
    """Everything joined: the ops of the step, and what is left of the bytes of its vector work, to two digits."""
    step = trace_step(zoo.source(model))

    fused = benchmark(fuse, step, "full")

    assert len(fused.ops) == ops
    assert round(vector_bytes(fused) / vector_bytes(step), 2) == share
    assert benchmark.stats["min"] <= most
