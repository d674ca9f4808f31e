"""One stored tensor: its format, its contents where they are small, and what of it can be forgotten."""

from __future__ import annotations

from math import prod
from typing import Any

import onnx
from onnx import numpy_helper

from ..errors import InputError
from ..operand import DTYPE_BYTES, STORED_AS
from .folding import FOLD_LIMIT

__all__ = ["content", "drop_large", "dtype_name", "format_name", "is_floating"]

_RENAMED = {
    "float": "float32",
    "double": "float64",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e5m2": "float8_e5m2",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2fnuz": "float8_e5m2fnuz",
}


def format_name(number: int) -> str:
    """Name of a format of ONNX."""
    if number not in onnx.TensorProto.DataType.values():
        return f"of unknown number {number}"
    name = str(onnx.TensorProto.DataType.Name(number)).lower()
    return _RENAMED.get(name, name)


def dtype_name(number: int) -> str:
    """Name of a format of ONNX, as in ``DTYPE_BYTES`` where one of its width is there."""
    name = format_name(number)
    return name if name.startswith("complex") else STORED_AS.get(name, name)


def is_floating(dtype: str) -> bool:
    """Whether values of this format can have a gradient."""
    return dtype.startswith(("float", "bfloat"))


def drop_large(tensor: Any) -> None:
    """Free the contents of a large tensor: its shape is all that is needed."""
    dtype = dtype_name(tensor.data_type)
    size, held = prod(tensor.dims) * DTYPE_BYTES.get(dtype, 0), len(tensor.raw_data)
    if size and held and held != size:
        raise InputError(
            f"initializer {tensor.name!r} has {held} bytes, but {' x '.join(map(str, tensor.dims))} of {dtype} are "
            f"{size}"
        )
    if prod(tensor.dims) > FOLD_LIMIT:
        for kept in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(kept)


def content(tensor: Any) -> Any:
    """What a tensor holds."""
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"initializer {tensor.name!r} does not hold what its type and shape say") from error
