"""WUVE stepped cycle by cycle: each operation runs on the beat that has reached its pipeline stage.

A beat is one parameter in every lane. FP32 throughout, no contraction, in the order of the program.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .jit import exact

MULTIPLY: Final = 0
ADD: Final = 1
SUBTRACT: Final = 2
ROOT: Final = 3
DIVIDE: Final = 4
"""What a line of a program does."""


@exact
def run_update(
    entering: Any,
    constants: Any,
    program: Any,
    ages: Any,
    results: Any,
    depth: int,
    lanes: int,
    leaving: Any,
    left: Any,
) -> int:
    """Send parameters through the pipeline of a rule; cycles.

    ``entering`` float32 [inputs, n], ``constants`` float32 [constants]. A value stands in a slot: inputs, constants,
    and the results of ``program`` int64 [operations, 3], each of which names its unit and the slots of both operands
    (a root reads the first). ``ages`` int64 [operations]: how many cycles after its entry a beat undergoes each;
    ``depth``: how many after it leaves. ``results`` int64 [outputs]: slots of what leaves.
    Written: ``leaving`` float32 [outputs, n], ``left`` int64 [n], the cycle in which each parameter leaves.
    """
    inputs, n = entering.shape
    held = inputs + len(constants)
    ring = depth + 1
    values = np.empty((held + len(program), ring, lanes), np.float32)
    for i in range(len(constants)):
        values[inputs + i] = constants[i]
    t, retired = 0, 0
    while retired < n:
        beat = t % ring
        for lane in range(min(lanes, n - t * lanes)):
            for i in range(inputs):
                values[i, beat, lane] = entering[i, t * lanes + lane]
        for i in range(len(program)):
            first = (t - ages[i]) * lanes
            if t < ages[i] or first >= n:
                continue
            beat, unit = (t - ages[i]) % ring, program[i, 0]
            a, b, result = values[program[i, 1], beat], values[program[i, 2], beat], values[held + i, beat]
            for lane in range(min(lanes, n - first)):
                if unit == MULTIPLY:
                    result[lane] = a[lane] * b[lane]
                elif unit == ADD:
                    result[lane] = a[lane] + b[lane]
                elif unit == SUBTRACT:
                    result[lane] = a[lane] - b[lane]
                elif unit == ROOT:
                    result[lane] = np.sqrt(a[lane])
                elif unit == DIVIDE:
                    result[lane] = a[lane] / b[lane]
                else:
                    raise ValueError("a program holds a unit that WUVE has not")
        first = (t - depth) * lanes
        if t >= depth:
            for lane in range(min(lanes, n - first)):
                left[first + lane] = t
                for i in range(len(results)):
                    leaving[i, first + lane] = values[results[i], (t - depth) % ring, lane]
            retired = first + lanes
        t += 1
    return t
