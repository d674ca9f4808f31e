"""Operands as NumPy arrays: the dtype is the format, so an array made for another machine is refused, not misread."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ..dataflow.operand import OPERAND_FORMATS, FormatName
from ..dataflow.stce.spec import PESpec

__all__ = ["OPERAND_TYPES", "Half", "Word", "narrow", "operand_type"]

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


def narrow(values: npt.NDArray[np.float32], pe: PESpec) -> Half:
    """FP32 of any shape rounded to operands, to nearest even; every NaN the canonical one."""
    with np.errstate(over="ignore", invalid="ignore"):
        operands: Half = values.astype(operand_type(pe))
    operands.view(np.uint16)[np.isnan(values)] = pe.operand.nan
    return operands
