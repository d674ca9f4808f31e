"""The update with packed copies behind it, on real weights: bits as they lie in memory, and exact cycles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..workloads.copies import PackedCopy
from ..workloads.errors import InputError
from ..workloads.gemm import Pass
from ..workloads.levels import Levels
from .engines import WuveRun, run_wuve
from .operand import Half
from .update_settings import UpdateSettings

__all__ = ["PackedRun", "loaded", "run_packed_update", "stored"]

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.integer]
Single = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedRun:
    """What an update leaves in memory: the weights, and of each form asked for its bytes, uint8 [bytes]."""

    update: WuveRun
    copies: tuple[Bytes, ...]
    cycles: int


def stored(values: Integers, levels: Levels, word_bits: int = 0, run: int = 0) -> Bytes:
    """``values`` [lines, k], of any integer dtype, as they lie in memory, uint8 [bytes], the first bit lowest.

    With ``word_bits`` each ``run`` of a line (0: ``k``) fills whole words, of which a value of several bits has one for
    each of its planes; without, values lie side by side, as many bits of each as its levels have.
    """
    lines, k = values.shape
    run, bits = run or k, levels.bits
    coded = _coded(values, levels)
    planes = (coded[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    if word_bits:
        cut = planes.reshape(lines, k // run, run, bits)
        words = np.pad(cut, ((0, 0), (0, 0), (0, -run % word_bits), (0, 0)))
        planes = words.reshape(lines, -1, word_bits, bits).swapaxes(2, 3)
    return np.packbits(planes.astype(np.bool_).reshape(-1), bitorder="little")


def loaded(memory: Bytes, shape: tuple[int, int], levels: Levels, word_bits: int = 0, run: int = 0) -> Integers:
    """Values int64 [lines, k] of ``shape`` from ``memory``, uint8 [bytes], that `stored` made."""
    lines, k = shape
    run, bits = run or k, levels.bits
    flat = np.unpackbits(memory, bitorder="little").astype(np.int64)
    if word_bits:
        words = k // run * -(-run // word_bits)
        planes = flat[: lines * words * word_bits * bits].reshape(lines, k // run, -1, bits, word_bits)
        split = planes.swapaxes(3, 4).reshape(lines, k // run, -1, bits)[:, :, :run].reshape(lines, k, bits)
    else:
        split = flat[: lines * k * bits].reshape(lines, k, bits)
    match levels:
        case Levels.BINARY:
            made = 1 - 2 * split[..., 0]
        case Levels.SPIKE:
            made = split[..., 0]
        case Levels.TERNARY:
            made = split[..., 0] * (1 - 2 * split[..., 1])
        case _:
            made = (split << np.arange(bits)).sum(-1)
            made -= (made >> (bits - 1)) << bits
    found: Integers = made
    return found


def _coded(values: Integers, levels: Levels) -> Bytes:
    """Each value as its bits: a sign, an event, mask and sign, two's complement."""
    wide = values.astype(np.int64)
    bits: npt.NDArray[np.generic]
    match levels:
        case Levels.BINARY:
            bits = wide < 0
        case Levels.SPIKE:
            bits = wide != 0
        case Levels.TERNARY:
            bits = (wide != 0) + 2 * (wide < 0)
        case _:
            bits = wide & ((1 << levels.bits) - 1)
    coded: Bytes = bits.astype(np.uint8)
    return coded


def run_packed_update(
    spec: AcceleratorSpec,
    settings: UpdateSettings,
    master: Single,
    gradient16: Half,
    state: tuple[Single, ...],
    shape: tuple[int, int, int],
    copies: tuple[PackedCopy, ...],
    bring: Callable[[Half], Integers],
    looks: int = 0,
) -> PackedRun:
    """Update a weight of ``shape`` (outputs, taps, inputs) and write its packed ``copies``.

    ``master`` and ``state`` float32 [n], ``gradient16`` float16 or bfloat16 [n]. ``bring`` makes of the new weights
    [n], in operands, the few values that the copies hold; with ``looks`` it has to see all of them that often first,
    and WUVE goes over them again. FF and what has no padding lie output by output, BP input by input under its tap.
    """
    outputs, taps, inputs = shape
    if len(master) != outputs * taps * inputs:
        raise InputError(f"master has {len(master)} elements, but shape is {shape}; they must be equal")
    update = run_wuve(spec, settings, master, gradient16, state)
    values = bring(update.weights16).reshape(outputs, taps, inputs)
    made = []
    for copy in copies:
        across = copy.word_bits and copy.pass_ is Pass.BP
        # The contraction of BP runs over outputs: one line for each tap and input.
        lines = values.reshape(outputs, -1).T if across else values.reshape(outputs, -1)
        made.append(stored(lines, copy.levels, copy.word_bits, copy.run if copy.word_bits else 0))
    return PackedRun(update=update, copies=tuple(made), cycles=update.cycles * (1 + looks))
