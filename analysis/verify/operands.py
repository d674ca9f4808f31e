"""Operands of test benches: numbers, any bits, and words at which something changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.operand import BF16, OperandFormat
from ...simulator.operand import Half, operand_type
from ...workloads.gemm import Gemm

__all__ = [
    "any_bits",
    "anything",
    "edge_bits",
    "edge_words",
    "normal",
    "normals",
    "products_of_edges",
    "sums_of_edges",
    "sums_with_minus_zero",
    "ties",
    "zeros",
]


def edge_words(operand: OperandFormat) -> npt.NDArray[np.uint16]:
    """Words at which something changes, in both signs: zero, the ends of the subnormal and normal numbers, one,
    infinity, NaN; in BF16 two more, whose products lie on either side of the smallest normal FP32. Bits, uint16
    [words]."""
    infinity, one = operand.infinity, 1 << operand.fraction
    above = [0, 1, one - 1, one, infinity >> 1 & -one, infinity - 1, infinity, infinity | 1]
    if operand is BF16:
        above += [0x2000, 0x1F81]
    return np.array([sign | word for sign in (0, 0x8000) for word in above], np.uint16)


def normal(random: np.random.Generator, spec: AcceleratorSpec, rows: int, cols: int) -> Half:
    """Standard normal numbers; [rows, cols] of the operand type."""
    return random.standard_normal((rows, cols), np.float32).astype(operand_type(spec.pe))


def any_bits(random: np.random.Generator, spec: AcceleratorSpec, rows: int, cols: int) -> Half:
    """Any bit pattern: subnormals, infinities, NaNs of any payload; [rows, cols] of the operand type."""
    bits: Half = random.integers(0, 1 << 16, (rows, cols), np.uint16).view(operand_type(spec.pe))
    return bits


def edge_bits(random: np.random.Generator, spec: AcceleratorSpec, *shape: int) -> Half:
    """Edge words; of any shape and the operand type."""
    edges: Half = random.choice(edge_words(spec.pe.operand), shape).view(operand_type(spec.pe))
    return edges


def ties(random: np.random.Generator, spec: AcceleratorSpec, rows: int, cols: int) -> Half:
    """Columns of two or three magnitudes, in both signs; [rows, cols] of the operand type."""
    kinds = edge_bits(random, spec, 3, cols)
    ties: Half = np.take_along_axis(kinds, random.integers(0, 3, (rows, cols)), axis=0)
    signs = random.integers(0, 2, (rows, cols), np.uint16) << np.uint16(15)
    return (ties.view(np.uint16) ^ signs).view(ties.dtype)


def normals(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """A [m, k] and B [k, n] of `normal`, of the operand type."""
    return normal(random, spec, gemm.m, gemm.k), normal(random, spec, gemm.k, gemm.n)


def anything(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """A [m, k] and B [k, n] of `any_bits`, of the operand type."""
    return any_bits(random, spec, gemm.m, gemm.k), any_bits(random, spec, gemm.k, gemm.n)


def products_of_edges(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """Of k = 1: every product of two edge words, each a result of its own; [m, 1] and [1, n] of the operand type."""
    words = edge_words(spec.pe.operand).view(operand_type(spec.pe))
    return np.resize(words, (gemm.m, 1)), words[None]


def sums_of_edges(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """Of m = k = 2: the sum and the difference of every two edge words, those of equal magnitude and of -0 included;
    [2, 2] and [2, n] of the operand type."""
    words = edge_words(spec.pe.operand).view(operand_type(spec.pe))
    first, second = np.meshgrid(words, words)
    b: Half = np.stack([first.ravel(), second.ravel()])
    return np.array([[1, 1], [1, -1]], words.dtype), b


def zeros(random: np.random.Generator, spec: AcceleratorSpec, rows: int, cols: int) -> Half:
    """Both zeros; [rows, cols] of the operand type."""
    signs: Half = (random.integers(0, 2, (rows, cols), np.uint16) << np.uint16(15)).view(operand_type(spec.pe))
    return signs


def sums_with_minus_zero(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm) -> tuple[Half, Half]:
    """Sums and differences of two edge words; of the first column only -0. [2, 2] and [2, n] of the operand type."""
    b = edge_bits(random, spec, gemm.k, gemm.n)
    b[:, 0] = -0.0
    return np.array([[1, 1], [1, -1]], b.dtype), b
