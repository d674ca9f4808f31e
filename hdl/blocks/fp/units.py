"""The units that an operand format takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from amaranth import Module

from ....dataflow.operand import FormatName
from .add import Fp32Add
from .convert import Bf16ToFp32, E5m2ToFp32, Fp8ToFp32, Fp16ToFp32, Fp32ToBf16, Fp32ToE4m3, Fp32ToFp8, Fp32ToFp16
from .datapath import wire
from .integer import Int8Multiply, Int32Add
from .multiply import (
    RECODED_FP8,
    RECODED_FP16,
    Bf16Multiply,
    RecodedFp8Multiply,
    RecodedMultiply,
    recode_fp8,
    recode_fp16,
)

__all__ = ["CONVERTED", "MOVED", "OPERAND_UNITS", "Converters", "OperandUnits"]

MINUS_ZERO_32 = 0x80000000


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandUnits:
    """What a PE takes of an operand format: ``multiply`` two operands and ``add`` their products, each by its latency.

    What is multiplied has entered an array, as a word of ``word`` bits, by way of ``enter`` of a module, a name, the
    bits, and whether they are a gradient, which FP8 encodes otherwise. ``bubble``: bits of an operand whose product
    with +0.0 no sum sees; ``zero``: bits that a sum begins with.
    """

    word: int
    enter: Callable[[Module, str, Any, Any], Any]
    multiply: Callable[[int], Any]
    add: Callable[[int], Any]
    bubble: int
    zero: int = MINUS_ZERO_32


def _as_it_is(m: Module, name: str, word: Any, _gradient: Any) -> Any:
    return wire(m, name, word)


def _recoded_fp16(m: Module, name: str, word: Any, _gradient: Any) -> Any:
    return recode_fp16(m, name, word)


OPERAND_UNITS: dict[FormatName, OperandUnits] = {
    "fp16": OperandUnits(word=RECODED_FP16, enter=_recoded_fp16, multiply=RecodedMultiply, add=Fp32Add, bubble=0x8000),
    "bf16": OperandUnits(
        word=16, enter=_as_it_is, multiply=Bf16Multiply, add=partial(Fp32Add, subnormals=True), bubble=0x8000
    ),
    "fp8": OperandUnits(word=RECODED_FP8, enter=recode_fp8, multiply=RecodedFp8Multiply, add=Fp32Add, bubble=0x80),
    "int8": OperandUnits(word=8, enter=_as_it_is, multiply=Int8Multiply, add=Int32Add, bubble=0, zero=0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Converters:
    """``widen`` a gradient to FP32, ``narrow`` FP32 to a weight, each by its latency."""

    widen: Callable[[int], Any]
    narrow: Callable[[int], Any]


CONVERTED: dict[FormatName, Converters] = {
    "fp16": Converters(widen=Fp16ToFp32, narrow=Fp32ToFp16),
    "bf16": Converters(widen=Bf16ToFp32, narrow=Fp32ToBf16),
    "fp8": Converters(widen=E5m2ToFp32, narrow=Fp32ToE4m3),
}
"""Of formats that WUVE has in RTL."""
MOVED: dict[FormatName, Converters] = {**CONVERTED, "fp8": Converters(widen=Fp8ToFp32, narrow=Fp32ToFp8)}
"""The same of what loads widen and stores narrow, of FP8 in either encoding: ``gradient`` says which."""
