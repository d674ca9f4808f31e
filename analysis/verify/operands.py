"""Operands of test benches: numbers, any bits, and words at which something changes."""

from __future__ import annotations

import numpy as np

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.operand import BF16, OperandFormat
from ...dataflow.stce.spec import PESpec
from ...simulator.operand import Half, bits_of, narrow, operand_type, operand_types
from ...workloads.gemm import Gemm

__all__ = [
    "any_bits",
    "anything",
    "edge_bits",
    "edge_words",
    "normal",
    "normals",
    "products_of_edges",
    "raw_bits",
    "sums_of_edges",
    "sums_with_minus_zero",
    "ties",
    "zeros",
]


_INTEGER_SCALE = 40
"""Deviation of INT8 operands, an assumption: few reach the ends."""


def edge_words(operand: OperandFormat, *, gradient: bool = False) -> Half:
    """Words at which something changes, in both signs: zero, the ends of the subnormal and normal numbers, one,
    infinity, NaN; in BF16 two more, whose products lie on either side of the smallest normal FP32; of an integer both
    ends and what is next to them. Of the operand type, or that of a ``gradient``, [words]."""
    which = -1 if gradient else 0
    kind, encoding = operand_types(operand.name)[which], operand.encodings[which]
    if operand.integer:
        most = operand.largest
        return np.array([0, 1, 2, most - 1, most, -1, -2, 1 - most, -most, -most - 1], kind)
    highest, one = encoding.highest, 1 << encoding.fraction
    above = [0, 1, one - 1, one, highest >> 1 & -one, highest - 1, highest, highest | 1]
    if operand is BF16:
        above += [0x2000, 0x1F81]
    sign = 1 << (operand.bits - 1)
    words = [signed | word for signed in (0, sign) for word in above]
    found: Half = np.array(words, f"u{operand.bytes}").view(kind)
    return found


def normal(random: np.random.Generator, spec: AcceleratorSpec, rows: int, cols: int) -> Half:
    """Normal numbers of deviation 1, of an integer more; [rows, cols] of the operand type."""
    drawn = random.standard_normal((rows, cols), np.float32)
    return narrow(drawn * np.float32(_INTEGER_SCALE) if spec.pe.operand.integer else drawn, spec.pe.format)


def any_bits(random: np.random.Generator, spec: AcceleratorSpec, rows: int, cols: int) -> Half:
    """Any bit pattern: subnormals, infinities, NaNs of any payload; [rows, cols] of the operand type."""
    return raw_bits(random, spec.pe, rows, cols)


def raw_bits(random: np.random.Generator, pe: PESpec, *shape: int) -> Half:
    """The same of any shape and the operand type."""
    bits: Half = random.integers(0, 1 << pe.operand.bits, shape, f"u{pe.operand.bytes}").view(operand_type(pe))
    return bits


def edge_bits(random: np.random.Generator, spec: AcceleratorSpec, *shape: int) -> Half:
    """Edge words; of any shape and the operand type."""
    edges: Half = random.choice(edge_words(spec.pe.operand), shape)
    return edges


def ties(random: np.random.Generator, spec: AcceleratorSpec, rows: int, cols: int) -> Half:
    """Columns of two or three magnitudes, in both signs; [rows, cols] of the operand type."""
    kinds = edge_bits(random, spec, 3, cols)
    ties: Half = np.take_along_axis(kinds, random.integers(0, 3, (rows, cols)), axis=0)
    if ties.dtype == np.int8:
        negated: Half = np.where(random.integers(0, 2, (rows, cols)), -ties, ties)
        return negated
    signed: Half = (bits_of(ties) ^ bits_of(zeros(random, spec, rows, cols))).view(ties.dtype)
    return signed


def normals(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """A [m, k] and B [k, n] of `normal`, of the operand type."""
    return normal(random, spec, gemm.m, gemm.k), normal(random, spec, gemm.k, gemm.n)


def anything(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """A [m, k] and B [k, n] of `any_bits`, of the operand type."""
    return any_bits(random, spec, gemm.m, gemm.k), any_bits(random, spec, gemm.k, gemm.n)


def products_of_edges(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """Of k = 1: every product of two edge words, each a result of its own; [m, 1] and [1, n] of the operand type."""
    words = edge_words(spec.pe.operand)
    return np.resize(words, (gemm.m, 1)), words[None]


def sums_of_edges(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """Of m = k = 2: the sum and the difference of every two edge words, those of equal magnitude and of -0 included;
    [2, 2] and [2, n] of the operand type."""
    words = edge_words(spec.pe.operand)
    first, second = np.meshgrid(words, words)
    b: Half = np.stack([first.ravel(), second.ravel()])
    return np.array([[1, 1], [1, -1]], words.dtype), b


def zeros(random: np.random.Generator, spec: AcceleratorSpec, rows: int, cols: int) -> Half:
    """Both zeros, of an integer the one; [rows, cols] of the operand type."""
    bits, kind = spec.pe.operand.bits, f"u{spec.pe.operand.bytes}"
    if spec.pe.operand.integer:
        return np.zeros((rows, cols), np.int8)
    signs: Half = (random.integers(0, 2, (rows, cols), kind) << np.array(bits - 1, kind)).view(operand_type(spec.pe))
    return signs


def sums_with_minus_zero(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """Sums and differences of two edge words; of the first column only -0. [2, 2] and [2, n] of the operand type."""
    b = edge_bits(random, spec, gemm.k, gemm.n)
    b[:, 0] = -0.0
    return np.array([[1, 1], [1, -1]], b.dtype), b
