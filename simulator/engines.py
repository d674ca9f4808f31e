"""SORE and WUVE on real values: bit-exact results and exact cycles (docs/design/machine.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.engine_time import DIVIDE_LATENCY
from ..workloads.errors import InputError, require_int
from ..workloads.sparsity import NMPattern
from .array import canonical
from .compact import BUBBLE, Compact, cut, require_matrix, require_run
from .kernels.sore import run_network, run_serial
from .kernels.wuve import run_adam, run_sgd
from .operand import Half, narrow, operand_type

__all__ = ["Adam", "Sgd", "SoreRun", "WuveRun", "batcher_stages", "run_sore", "run_wuve"]

Single = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SoreRun:
    """One operand through SORE.

    ``nan_flags`` bool [groups, n] marks the groups that hold a NaN; ``left`` int64 [slots, n] is the cycle in which
    each pair leaves.
    """

    compact: Compact
    nan_flags: npt.NDArray[np.bool_]
    left: npt.NDArray[np.int64]
    cycles: int


def run_sore(spec: AcceleratorSpec, values: Half, pattern: NMPattern, run: int = 0) -> SoreRun:
    """Step ``values`` [k, n], cut into runs of ``run`` (0 for k) and groups along k, through the lanes.

    ``values`` are float16 or bfloat16 as ``spec`` has it. Groups are dealt column by column, those of a column in the
    order of k.
    """
    spec.check_pattern(pattern)
    require_matrix("values", values, operand_type(spec.pe))
    k, n = values.shape
    run = run or k
    require_run("run", k, run)
    groups = cut(pattern, k, run)
    count = len(groups.start)
    bits, infinity = np.ascontiguousarray(values).view(np.uint16), spec.pe.operand.infinity
    kept_bits = np.zeros((n * count, pattern.keep), np.uint16)
    kept_index = np.full((n * count, pattern.keep), BUBBLE, np.uint8)
    flags = np.zeros(n * count, np.uint8)
    left = np.zeros(kept_bits.shape, np.int64)
    if spec.sore.kind == "serial":
        cycles = run_serial(
            bits,
            infinity,
            groups.start,
            groups.length,
            pattern.group,
            spec.sore.lanes,
            kept_bits,
            kept_index,
            flags,
            left,
        )
    else:
        networks = _comparators(pattern.group), _comparators(pattern.keep), pattern.group
        cycles = run_network(
            bits, infinity, groups.start, groups.length, spec.sore.lanes, *networks, kept_bits, kept_index, flags, left
        )
    used = (np.arange(pattern.keep) < groups.kept[:, None]).ravel()
    compact = Compact(
        values=np.ascontiguousarray(kept_bits.reshape(n, -1)[:, used].T).view(values.dtype),
        indices=np.ascontiguousarray(kept_index.reshape(n, -1)[:, used].T),
        pattern=pattern,
        k=k,
        run=run,
    )
    return SoreRun(
        compact=compact,
        nan_flags=flags.reshape(n, count).T.astype(np.bool_),
        left=np.ascontiguousarray(left.reshape(n, -1)[:, used].T),
        cycles=int(cycles),
    )


def batcher_stages(inputs: int) -> list[list[tuple[int, int]]]:
    """Odd-even merge sort of ``inputs`` wires, rounded up to a power of two: the comparators of each stage."""
    width = 1 << (inputs - 1).bit_length()
    stages = []
    sorted_run = 1
    while sorted_run < width:
        distance = sorted_run
        while distance:
            stages.append(
                [
                    (i, i + distance)
                    for block in range(distance % sorted_run, width - distance, 2 * distance)
                    for i in range(block, min(block + distance, width - distance))
                    if i // (2 * sorted_run) == (i + distance) // (2 * sorted_run)
                ]
            )
            distance //= 2
        sorted_run *= 2
    return stages


@cache
def _comparators(inputs: int) -> npt.NDArray[np.int64]:
    """`batcher_stages` as one array [stages, comparators, 2], padded with -1."""
    stages = batcher_stages(inputs)
    table = np.full((len(stages), max(map(len, stages), default=1), 2), -1, np.int64)
    for stage, pairs in enumerate(stages):
        table[stage, : len(pairs)] = pairs
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """SGD with momentum; its state is one array, the velocity."""

    rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    inverse_scale: float = 1.0

    def __post_init__(self) -> None:
        _require_finite(self)

    @property
    def constants(self) -> tuple[float, ...]:
        """What the host writes into WUVE's registers before a step, to be rounded once to FP32."""
        return self.inverse_scale, self.weight_decay, self.momentum, self.rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """Adam at step ``step`` (from 1); its state is two arrays, the mean and the mean square of the gradient."""

    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    inverse_scale: float = 1.0
    step: int

    def __post_init__(self) -> None:
        _require_finite(self)
        require_int("step of Adam", self.step, 1, 2**53)
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise InputError(f"{name} of Adam must be at least 0 and below 1, not {value}")

    @property
    def constants(self) -> tuple[float, ...]:
        """What the host writes into WUVE's registers before a step; made in double precision, rounded once to FP32."""
        correction = math.sqrt(1.0 - self.beta2**self.step)
        rate = self.rate * correction / (1.0 - self.beta1**self.step)
        rest1, rest2 = 1.0 - self.beta1, 1.0 - self.beta2
        return self.inverse_scale, self.beta1, rest1, self.beta2, rest2, rate, self.epsilon * correction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WuveRun:
    """One update: FP32 master weights and state, the operands made from them, and the time it took.

    ``left`` int64 [n] is the cycle in which each parameter leaves.
    """

    master: Single
    state: tuple[Single, ...]
    weights16: Half
    left: npt.NDArray[np.int64]
    cycles: int


def run_wuve(
    spec: AcceleratorSpec, rule: Sgd | Adam, master: Single, gradient16: Half, state: tuple[Single, ...]
) -> WuveRun:
    """Step one update of ``master`` float32 [n] by ``gradient16`` [n] in the format of ``spec``.

    ``state`` float32 [n] each: (velocity,) of SGD, (mean, square) of Adam. The inputs stay as they are.
    """
    names = ("velocity",) if isinstance(rule, Sgd) else ("mean", "square")
    if len(state) != len(names):
        raise InputError(f"state of {type(rule).__name__} must be ({', '.join(names)}), not {len(state)} arrays")
    _require_vector("master", master, np.float32, None)
    _require_vector("gradient16", gradient16, operand_type(spec.pe), len(master))
    for name, array in zip(names, state, strict=True):
        _require_vector(name, array, np.float32, len(master))
    weights = master.copy()
    updated = tuple(array.copy() for array in state)
    update = run_sgd if isinstance(rule, Sgd) else run_adam
    ages, depth = _pipeline(spec, rule)
    constants = np.array(rule.constants, np.float32)
    with np.errstate(invalid="ignore"):  # a signalling NaN is data here
        gradient = gradient16.astype(np.float32)
    left = np.zeros(len(weights), np.int64)
    cycles = update(weights, gradient, *updated, constants, ages, depth, spec.wuve.lanes, left)
    for array in (weights, *updated):
        canonical(array)
    weights16 = narrow(weights, spec.pe)
    return WuveRun(master=weights, state=updated, weights16=weights16, left=left, cycles=int(cycles))


def _pipeline(spec: AcceleratorSpec, rule: Sgd | Adam) -> tuple[npt.NDArray[np.int64], int]:
    """Age of a beat at each operation, and at its retirement."""
    multiply, add = spec.pe.multiply_latency, spec.pe.add_latency
    if isinstance(rule, Sgd):
        waits = [multiply, multiply + add, multiply + add, multiply + add]
    else:
        # Rate times mean is ready long before the root it is divided by.
        waits = [multiply, 2 * multiply + add, DIVIDE_LATENCY, add + DIVIDE_LATENCY, add]
    ages = np.cumsum([0, *waits])
    return ages[:-1].astype(np.int64), int(ages[-1])


def _require_finite(rule: Sgd | Adam) -> None:
    for field in fields(rule):
        value = getattr(rule, field.name)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"{field.name} of {type(rule).__name__} must be a finite number, not {value!r}")


def _require_vector(where: str, value: object, dtype: type[np.generic], length: int | None) -> None:
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype != dtype or not value.size:
        shown = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else repr(type(value).__name__)
        raise InputError(f"{where} must be a non-empty vector of {dtype.__name__}, not {shown}")
    if length is not None and len(value) != length:
        raise InputError(f"{where} has {len(value)} elements, but master has {length}; they must be equal")
