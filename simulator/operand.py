"""Operands as NumPy arrays: the dtype is the format, so an array made for another machine is refused, not misread."""

from __future__ import annotations

from typing import Any, assert_never

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ..dataflow.operand import OPERAND_FORMATS, FormatName
from ..dataflow.stce.spec import PESpec
from .kernels.convert import narrow_bf16, narrow_fp16, widen_bf16, widen_fp16

__all__ = ["OPERAND_TYPES", "Half", "Word", "narrow", "operand_type", "widen"]

Half = npt.NDArray[Any]
"""float16, or bfloat16 of ml_dtypes, as NumPy has none."""

Word = Any
"""One of them, a NumPy scalar."""

OPERAND_TYPES: dict[FormatName, type[np.generic]] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
if OPERAND_TYPES.keys() != OPERAND_FORMATS.keys():
    raise TypeError(f"NumPy types are given of {list(OPERAND_TYPES)}, formats of {list(OPERAND_FORMATS)}")


def operand_type(pe: PESpec) -> type[np.generic]:
    """Scalar type of the operands of a machine."""
    return OPERAND_TYPES[pe.format]


def narrow(values: npt.NDArray[np.float32], format: FormatName) -> Half:
    """FP32 of any shape rounded to operands, to nearest even; every NaN the canonical one; contiguous."""
    wide = np.ascontiguousarray(values)
    operands: Half = np.empty(wide.shape, OPERAND_TYPES[format])
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
    """Operands of any shape, float16 or bfloat16, as float32: the same values, a NaN any NaN; contiguous."""
    words = np.ascontiguousarray(operands).view(np.uint16)
    wide = np.empty(words.shape, np.float32)
    flat = wide.reshape(-1)
    if operands.dtype == np.float16:
        widen_fp16(words.reshape(-1), flat, flat.view(np.uint32))
    else:
        widen_bf16(words.reshape(-1), flat.view(np.uint32))
    return wide
