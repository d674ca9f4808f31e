"""Operands as NumPy arrays: the dtype is the format, so an array made for another machine is refused, not misread."""

from __future__ import annotations

from typing import Any, assert_never

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ..dataflow.operand import OPERAND_FORMATS, FormatName, NumberFormat
from ..dataflow.stce.spec import PESpec
from .eight_bits import narrow_integer, narrowed, widened
from .kernels.convert import narrow_bf16, narrow_fp16, widen_bf16, widen_fp16

__all__ = [
    "ENCODINGS",
    "OPERAND_TYPES",
    "RANK",
    "SIGN",
    "Half",
    "Word",
    "bits_of",
    "encoding_of",
    "is_gradient",
    "narrow",
    "operand_type",
    "operand_types",
    "ranked",
    "sum_type",
    "unranked",
    "widen",
]

Half = npt.NDArray[Any]
"""float16, or bfloat16 of ml_dtypes, as NumPy has none; of eight bits its float8_e4m3fn and float8_e5m2, or int8."""

Word = Any
"""One of them, a NumPy scalar."""

OPERAND_TYPES: dict[FormatName, type[np.generic]] = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "fp8": ml_dtypes.float8_e4m3fn,
    "int8": np.int8,
}
"""Of weights and activations."""
_GRADIENT_TYPES: dict[FormatName, type[np.generic]] = {"fp8": ml_dtypes.float8_e5m2}
"""Of formats whose gradients have an encoding of their own."""
if OPERAND_TYPES.keys() != OPERAND_FORMATS.keys():
    raise TypeError(f"NumPy types are given of {list(OPERAND_TYPES)}, formats of {list(OPERAND_FORMATS)}")

ENCODINGS: dict[type[np.generic], NumberFormat] = {
    kind: encoding
    for name, form in OPERAND_FORMATS.items()
    for kind, encoding in zip(
        (OPERAND_TYPES[name], _GRADIENT_TYPES.get(name, OPERAND_TYPES[name])), form.encodings, strict=False
    )
}
"""The layout of every dtype."""

SIGN, RANK = np.uint16(0x8000), np.uint16(0x7FFF)
"""Of a word as SORE ranks it."""


def operand_type(pe: PESpec) -> type[np.generic]:
    """Scalar type of the weights and activations of a machine."""
    return OPERAND_TYPES[pe.format]


def operand_types(format: FormatName) -> tuple[type[np.generic], ...]:
    """Scalar types that operands of a format may have: of FP8 the two of its encodings, in any combination."""
    own = OPERAND_TYPES[format]
    return (own,) if format not in _GRADIENT_TYPES else (own, _GRADIENT_TYPES[format])


def is_gradient(operands: Half, pe: PESpec) -> bool:
    """Whether operands, of any shape and an operand type of a machine, are in an encoding of gradients alone."""
    return operands.dtype.type is not operand_type(pe)


def sum_type(format: FormatName) -> type[np.generic]:
    """Scalar type of sums: float32, or int32."""
    return np.int32 if OPERAND_FORMATS[format].integer else np.float32


def encoding_of(operands: Half) -> NumberFormat:
    """The layout of operands of any shape, by their dtype."""
    return ENCODINGS[operands.dtype.type]


def bits_of(operands: Half) -> npt.NDArray[Any]:
    """The words of operands of any shape as they lie, uint16 or uint8; a view."""
    return operands.view(np.uint16 if operands.itemsize == 2 else np.uint8)


def ranked(operands: Half) -> npt.NDArray[np.uint16]:
    """Operands of any shape as SORE ranks them, uint16: the magnitude, below the sign in the highest bit.

    The magnitude of a float is its bits below the sign, so that a NaN is the largest; of an integer its value.
    """
    bits = bits_of(operands)
    if encoding_of(operands).integer:
        return np.abs(operands.astype(np.int16)).astype(np.uint16) | (operands < 0) * SIGN
    if bits.dtype == np.uint16:
        return bits
    wide = bits.astype(np.uint16)
    return (wide & np.uint16(0x7F)) | (wide & np.uint16(0x80)) << np.uint16(8)


def unranked(words: npt.NDArray[np.uint16], kind: type[np.generic]) -> Half:
    """What `ranked` makes ``words``, uint16 of any shape, of; a contiguous array of ``kind``."""
    words = np.ascontiguousarray(words)
    if ENCODINGS[kind].integer:
        return np.where(words & SIGN, -(words & RANK).astype(np.int16), words).astype(np.int8)
    if np.dtype(kind).itemsize == 2:
        return words.view(kind)
    return ((words & np.uint16(0x7F)) | (words & SIGN) >> np.uint16(8)).astype(np.uint8).view(kind)


def narrow(values: npt.NDArray[np.float32], format: FormatName, *, gradient: bool = False) -> Half:
    """FP32 of any shape rounded to operands, to nearest even; every NaN the canonical one; contiguous.

    What has an infinity overflows to it: FP16, BF16, and E5M2, which a ``gradient`` of FP8 is, so that loss scaling
    sees it. Of E4M3 and INT8 what is too large, infinity too, becomes the largest number of its sign.
    """
    wide = np.ascontiguousarray(values)
    kind = operand_types(format)[-1 if gradient else 0]
    if format == "fp8":
        return narrowed(wide, ENCODINGS[kind]).view(kind)
    if format == "int8":
        return narrow_integer(wide)
    operands: Half = np.empty(wide.shape, kind)
    flat, words = wide.reshape(-1), operands.reshape(-1).view(np.uint16)
    match format:
        case "fp16":
            narrow_fp16(flat, flat.view(np.uint32), words)
        case "bf16":
            narrow_bf16(flat.view(np.uint32), words)
        case _:
            assert_never(format)
    return operands


def widen(operands: Half) -> npt.NDArray[np.float32]:
    """Operands of any shape and type as float32: the same values, a NaN any NaN; contiguous."""
    if operands.itemsize == 1:
        encoding = encoding_of(operands)
        if encoding.integer:
            return operands.astype(np.float32, order="C")
        return widened(encoding)[np.ascontiguousarray(operands).view(np.uint8)]
    words = np.ascontiguousarray(operands).view(np.uint16)
    wide = np.empty(words.shape, np.float32)
    flat = wide.reshape(-1)
    if operands.dtype == np.float16:
        widen_fp16(words.reshape(-1), flat, flat.view(np.uint32))
    else:
        widen_bf16(words.reshape(-1), flat.view(np.uint32))
    return wide
