"""One GEMM on three levels: closed form, cycle by cycle on real values, and inside a scheduled op."""

from __future__ import annotations

import numpy as np

import weft
from weft.dataflow.stce.mapping import ArrayMapping, Dataflow
from weft.dataflow.stce.time import array_cycles
from weft.simulator.array import run_array
from weft.simulator.compact import compress
from weft.simulator.reference import gemm_reference
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

machine = weft.machine("sat-vcu1525")
gemm = Gemm(m=256, k=512, n=256)
pattern = NMPattern.parse("2:8")
mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=pattern, interleave=8)

closed = array_cycles(machine, gemm, mapping)
print(f"closed form    {closed.total:>7} cycles, {closed.compute} of them issue multiplies")

rng = np.random.default_rng(1)
a = rng.standard_normal((gemm.m, gemm.k)).astype(np.float16)
b = compress(rng.standard_normal((gemm.k, gemm.n)).astype(np.float16), pattern)
run = run_array(machine, mapping, a, b)
print(f"cycle by cycle {run.cycles.total:>7} cycles")

same = run.result.tobytes() == gemm_reference(a, b).tobytes()
print(f"results {'equal' if same else 'differ from'} the k-order FP32 reference bit for bit")
