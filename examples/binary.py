"""A small binary network on a machine with two engines, and one of its products bit by bit.

Run it on another model or scheme: python examples/binary.py cnv bireal
"""

from __future__ import annotations

import sys

import numpy as np

import weft
from weft.analysis.energy import energy
from weft.dataflow.engines import engines_of
from weft.dataflow.objective import Objective
from weft.simulator.xnor import run_xnor
from weft.simulator.xnor_edge import fold, signs
from weft.workloads.gemm import Pass
from weft.workloads.integer_network import Norm
from weft.workloads.levels import Levels

model, scheme = sys.argv[1:3] if len(sys.argv) > 2 else ("sfc", "xnor")
machine = weft.machine("bnn-ecp5")
plain = weft.trace(model, batch=64)
step = weft.sparsify(plain, scheme)

print(f"A training step of {model} on {machine.name}, every product on the engine on which it costs least")
for name, workload in (("FP16", plain), (scheme, step)):
    found = weft.simulate(weft.schedule(workload, machine))
    ff = [op for op in found.ops if op.op.pass_ is Pass.FF and op.mapping is not None]
    bits = sum(op.mapping.array.kind == "xnor" for op in ff)
    print(f"{name:>8} {found.cycles.total:>12,} cycles {1e3 * energy(found).joules:>8.3f} mJ")
    print(f"{'FF':>8} {sum(op.cycles.total for op in ff):>12,} cycles; {bits} of {len(ff)} products on the XNOR engine")

print("\nThe products of FF in bits on either engine, in cycles")
engines = {engine.kind: engine for engine in engines_of(machine)}
binary = [op for op in step.matrix_ops if op.pass_ is Pass.FF and engines["xnor"].takes(op)]
for op in binary:
    xnor, stce = (engines[kind].place(op, Objective.CYCLES) for kind in ("xnor", "stce"))
    g = op.gemm
    print(f"{op.name:>8} {f'{g.m} x {g.k} x {g.n}':>18} XNOR {xnor.cycles.total:>9,}  STCE {stce.cycles.total:>9,}")

# The last of them on real bits, 64 rows of it: word by word through the array, and NumPy's product of integers.
op = binary[-1]
levels = (op.a.levels, op.b.levels)
mapping = engines["xnor"].place(op, Objective.CYCLES).mapping.array
rng = np.random.default_rng(0)
rows, channels = min(op.gemm.m, 64), op.gemm.n
a = rng.choice(np.array(tuple(levels[0].values)), (rows, op.gemm.k))
b = rng.choice(np.array(tuple(levels[1].values)), (op.gemm.k, channels))
run = run_xnor(machine, mapping, a, b, levels, run=op.gemm.run)
same = (run.result == a @ b).all()
print(f"\n{op.name} stepped: {run.length:,} cycles; its sums {'are' if same else 'differ from'} those of NumPy")

# Batch norm and sign behind it, as one threshold a channel, ties included.
gamma, beta, mean = (rng.standard_normal(channels).astype(np.float32) for _ in range(3))
variance = np.full(channels, op.gemm.k, np.float32)
exact = gamma.astype(float) * (run.result - mean.astype(float)) / np.sqrt(variance.astype(float)) + beta >= 0
bits = signs(run.result, fold(Norm(gamma=gamma, beta=beta, mean=mean, variance=variance, epsilon=0.0)))
same = (bits == exact).all()
print(f"Thresholds {'give' if same else 'differ from'} the sign of its batch norm: {bits.mean():.0%} are +1")

# What only some values are worth: half of the words of a ternary operand without a value are left out.
ternary = rng.integers(-1, 2, a.shape) * np.repeat(rng.random(-(-a.shape[1] // 64)) < 0.5, 64)[: a.shape[1]]
full, short = (
    run_xnor(machine, mapping, ternary, b, (Levels.TERNARY, levels[1]), run=op.gemm.run, skip=skip)
    for skip in (False, True)
)
same = (full.result == short.result).all() and (full.result == ternary @ b).all()
print(f"Ternary, zero words left out: {short.length:,} of {full.length:,} cycles, sums {'equal' if same else 'differ'}")
