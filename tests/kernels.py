"""Compiles the kernels that take longest: every worker of a first run would otherwise compile them for itself."""

from __future__ import annotations

import numpy as np

from weft.dataflow.batch.evaluate import evaluate
from weft.dataflow.batch.front import front
from weft.dataflow.config_io import load_spec
from weft.workloads.models import zoo
from weft.workloads.trace import trace_step

if __name__ == "__main__":
    step, machines = trace_step(zoo.source("tfc"), batch=8), [load_spec("tiny")]
    evaluate(step, machines, "cycles")
    front(step, machines, np.zeros((1, 1)))
