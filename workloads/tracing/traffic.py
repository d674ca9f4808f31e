"""Bytes that an element-wise, reducing or copying operator moves through memory, run by itself and not fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

from ..operand import DTYPE_BYTES, STORED_AS
from .factorizations import multiply_adds
from .provenance import stored_bytes, stored_elements, tensors_in

__all__ = ["SAMPLING", "Access", "Traffic", "access_of", "dtype_name", "sampling", "traffic"]

_ALLOCATIONS = frozenset(
    {
        "empty",
        "empty_like",
        "empty_strided",
        "empty_permuted",
        "empty_quantized",
        "new_empty",
        "new_empty_strided",
        "_efficientzerotensor",
    }
)
_GATHERS = frozenset({"embedding", "index", "index_select", "gather", "take"})
"""Operators that read of their first argument only as much as they return."""

_OVERWRITES = frozenset(
    {"copy_", "fill_", "zero_", "uniform_", "normal_", "bernoulli_", "exponential_", "random_", "set_"}
)
"""In-place operators that do not read what they replace."""

SAMPLING = {"torchvision.deform_conv2d": 1, "torchvision._deform_conv2d_backward": 3}
"""Deformable convolutions, and how often each goes through its samples: assumed, as torchvision's own kernels do."""

_FOURIER = frozenset({"_fft_c2c", "_fft_c2r", "_fft_r2c"})
"""Transforms of n elements are ceil(log2 n) passes of element-wise work (radix 2), in one trip to memory: assumed."""


@dataclass(frozen=True, slots=True)
class Access:
    """What an operator does with its arguments: which it writes, what it reads of them, or that it moves nothing."""

    written: frozenset[str]
    overwrites: bool
    reads_values: bool
    gathers: bool
    moves_nothing: bool


class Traffic(NamedTuple):
    """Elements of the largest tensor touched, bytes read and written, and the format of the result."""

    elements: int
    read_bytes: int
    write_bytes: int
    dtype: str


@cache
def access_of(func: OpOverload) -> Access:
    """What the schema of ``func`` says about its arguments."""
    name = func._schema.name.partition("::")[2]
    arguments = func._schema.arguments
    written = frozenset(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)
    outputs_only = any(a.name in written and a.kwarg_only for a in arguments)
    return Access(
        written=written,
        overwrites=name in _OVERWRITES or outputs_only,
        reads_values=not name.endswith("_like") and not name.startswith("new_"),
        gathers=name in _GATHERS,
        moves_nothing=name in _ALLOCATIONS or torch.Tag.inplace_view in func.tags,
    )


def traffic(func: OpOverload, given: dict[str, Any], out: Any) -> Traffic | None:
    """The traffic of one call, or ``None`` when it only allocates or looks at its inputs differently."""
    access = access_of(func)
    if access.moves_nothing:
        return None
    names = access.written
    changed = _distinct([value for name, value in given.items() if name in names])
    inputs = _distinct([value for name, value in given.items() if name not in names] if names else given)
    written = changed + _fresh(out, inputs + changed)
    if not written:
        return None
    read = inputs if access.overwrites else _distinct(inputs + changed)
    if not access.reads_values:
        read = []
    write_bytes = sum(map(stored_bytes, written))
    read_bytes = sum(map(stored_bytes, read))
    elements = max(map(stored_elements, written))
    if access.gathers:
        read_bytes -= max(0, stored_bytes(read[0]) - write_bytes)
    else:
        elements = max([elements, *map(stored_elements, read)])
    name = func._schema.name.partition("::")[2]
    if name in _FOURIER:
        sides = [max(read[0].shape[dim], written[0].shape[dim]) for dim in given["dim"]]
        elements *= max((prod(sides) - 1).bit_length(), 1)
    if func.namespace == "aten":
        elements = multiply_adds(name, given, out) or elements
    return Traffic(elements, read_bytes, write_bytes, dtype_name(written[0].dtype))


def sampling(name: str, given: Mapping[str, Any], out: Any) -> Traffic:
    """What a deformable convolution does beside its products: four corners for every element that it multiplies.

    It writes what it sampled. Backward samples again for the weight, spreads the gradient over the corners, and takes
    that of offsets and mask: three times the work, and the gradient of the bias.
    """
    y = given["grad"] if name.endswith("_backward") else out
    x, weight = given["input"], given["weight"]
    taps = prod(weight.shape[2:]) * x.shape[1] * prod(y.shape[2:]) * x.shape[0]
    beside = stored_bytes(given["offset"]) + (stored_bytes(given["mask"]) if given["use_mask"] else 0)
    times = SAMPLING[name]
    element, bias = x.element_size(), y.numel() if name.endswith("_backward") else 0
    read = times * (4 * taps * element + beside) + bias * element
    return Traffic(4 * times * taps + bias, read, times * taps * element, dtype_name(x.dtype))


def _distinct(value: object) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors_in(value)}.values())


def _fresh(out: object, inputs: list[Tensor]) -> list[Tensor]:
    """The results with storage of their own; the others are views, also where the schema does not say so."""
    known = {tensor.untyped_storage()._cdata for tensor in inputs}
    return [tensor for tensor in _distinct(out) if tensor.untyped_storage()._cdata not in known]


def dtype_name(dtype: torch.dtype) -> str:
    """Weft's name of a format."""
    name = str(dtype).removeprefix("torch.")
    return name if name in DTYPE_BYTES else STORED_AS.get(name, name)
