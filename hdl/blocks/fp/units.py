"""The units that an operand format takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from amaranth import Module

from ....dataflow.operand import FormatName
from .add import Fp32Add
from .convert import Bf16ToFp32, Fp16ToFp32, Fp32ToBf16, Fp32ToFp16
from .datapath import wire
from .multiply import RECODED_FP16, Bf16Multiply, RecodedMultiply, recode_fp16

__all__ = ["OPERAND_UNITS", "OperandUnits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandUnits:
    """What an operand format takes, each by its latency: ``multiply`` two operands, ``add`` their products, ``widen``
    one to FP32, ``narrow`` FP32 to one. What is multiplied has entered an array, as a word of ``word`` bits, by way of
    ``enter`` of a module, a name and 16 bits."""

    word: int
    enter: Callable[[Module, str, Any], Any]
    multiply: Callable[[int], Any]
    add: Callable[[int], Fp32Add]
    widen: Callable[[int], Any]
    narrow: Callable[[int], Any]


OPERAND_UNITS: dict[FormatName, OperandUnits] = {
    "fp16": OperandUnits(
        word=RECODED_FP16, enter=recode_fp16, multiply=RecodedMultiply, add=Fp32Add, widen=Fp16ToFp32, narrow=Fp32ToFp16
    ),
    "bf16": OperandUnits(
        word=16,
        enter=wire,
        multiply=Bf16Multiply,
        add=partial(Fp32Add, subnormals=True),
        widen=Bf16ToFp32,
        narrow=Fp32ToBf16,
    ),
}
