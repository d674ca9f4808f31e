"""Leaky integrate-and-fire neurons behind the XNOR engine, and a layer of them stepped over its time steps.

docs/design/xnor.md, "Neurons". The edge makes a spike in the cycle in which its sum leaves, so the cycles of a step are
those of its product; membranes lie in a memory of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.xnor.mapping import XnorMapping
from ..dataflow.xnor.neuron import MEMBRANE_BYTES, Neurons, require_membrane
from ..dataflow.xnor.spec import SUM_BITS
from ..workloads.errors import InputError
from ..workloads.levels import Levels
from ..workloads.one_line import OneLine
from .xnor import XnorRun, run_xnor

__all__ = ["SpikingRun", "fire", "neurons_of", "run_spiking"]

Sums = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


def fire(sums: Sums, membrane: Sums | None, neurons: Neurons) -> tuple[Bools, Sums]:
    """One time step: spikes bool [m, n] of ``sums`` int32 [m, n], and the membranes int32 [m, n] that it leaves.

    u' = u - (u >> leak) + s, the shift arithmetic; a spike where u' is at least the threshold of the channel, which is
    then subtracted. ``membrane``: int32 [m, n], that of the step before; None for 0. InputError for a u' that 32 bits
    do not hold; `require_membrane` says beforehand that none comes.
    """
    neurons.require_channels(sums.shape[1])
    before = np.zeros_like(sums) if membrane is None else membrane
    if before.dtype != np.int32 or before.shape != sums.shape:
        raise InputError(f"membrane must be int32 {list(sums.shape)}, not {before.dtype} {list(before.shape)}")
    wide = before.astype(np.int64)
    wide += sums - (wide >> neurons.leak)
    if len(wrong := np.argwhere(wide != wide.astype(np.int32))):
        row, channel = wrong[0]
        raise InputError(f"the membrane at [{row}, {channel}] becomes {wide[row, channel]}, beyond {SUM_BITS} bits")
    spikes = wide >= neurons.threshold
    return spikes, (wide - np.where(spikes, neurons.threshold, 0)).astype(np.int32)


def neurons_of(threshold: npt.NDArray[np.float32], scale: float, leak: int) -> Neurons:
    """Neurons in integers, of sums, of those whose currents are ``scale`` times these sums.

    ``threshold``: float32 [n], above 0. From the least integer on that is no less than threshold / scale, of these
    floats as rational numbers, a neuron fires: exactly where it begins with 0. What a reset then takes away is that
    integer too, and a leak rounds, so that from the second time step on membranes are near those in floats, not equal.
    """
    if threshold.dtype != np.float32 or threshold.ndim != 1:
        raise InputError(f"threshold must be float32 [n], not {threshold.dtype} {list(threshold.shape)}")
    if not (scale > 0 and np.isfinite(scale)):
        raise InputError(f"scale must be a number above 0, not {scale}")
    if not (np.isfinite(threshold) & (threshold > 0)).all():
        raise InputError(f"threshold must be above 0, not {threshold[~(threshold > 0) | ~np.isfinite(threshold)][0]}")
    found = [ceil(Fraction(float(at)) / Fraction(scale)) for at in threshold]
    # no sum is as large as what 32 bits do not hold
    return Neurons(leak, np.array([min(at, np.iinfo(np.int32).max) for at in found], np.int32))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class SpikingRun(OneLine):
    """A layer over its time steps."""

    spikes: Bools
    """bool [steps, m, n]."""
    membrane: Sums
    """int32 [m, n], behind the last step."""
    steps: tuple[XnorRun, ...]
    """The product of each."""
    membrane_bytes: int
    """Read from the memory of membranes, and as many written: the first step reads none, the last one leaves none."""

    @property
    def length(self) -> int:
        """Clock cycles of all steps, one after the other; neurons add none."""
        return sum(step.length for step in self.steps)


def run_spiking(
    spec: AcceleratorSpec,
    mapping: XnorMapping,
    spikes: Bools,
    b: npt.NDArray[np.integer],
    levels: Levels,
    neurons: Neurons,
    *,
    run: int = 0,
    skip: bool = True,
) -> SpikingRun:
    """Step a layer of ``neurons`` behind ``spikes`` bool [steps, m, k] times ``b`` [k, n], of any integer dtype.

    ``levels``: of ``b``; ``run`` and ``skip`` as of `run_xnor`. Membranes begin with 0.
    """
    if spikes.ndim != 3 or spikes.dtype != np.bool_ or not len(spikes):
        raise InputError(f"spikes must be bool [steps, m, k], not {spikes.dtype} {list(spikes.shape)}")
    steps, m, k = spikes.shape
    require_membrane(k, Levels.SPIKE, levels, neurons.leak, steps)
    neurons.require_channels(b.shape[1])
    membrane, fired, runs = None, [], []
    for events in spikes:
        made = run_xnor(spec, mapping, events.astype(np.int8), b, (Levels.SPIKE, levels), run=run, skip=skip)
        out, membrane = fire(made.result, membrane, neurons)
        fired.append(out)
        runs.append(made)
    assert membrane is not None
    return SpikingRun(
        spikes=np.stack(fired),
        membrane=membrane,
        steps=tuple(runs),
        membrane_bytes=MEMBRANE_BYTES * m * b.shape[1] * (steps - 1),
    )
