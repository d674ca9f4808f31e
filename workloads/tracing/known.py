"""Which operators are known to multiply no matrices: whatever is neither here nor a product is refused by its name.

PyTorch's own tags say it of element-wise operators and reductions, its schemas of views; the rest is listed.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache

import torch
from torch._ops import OpOverload

from ..errors import InputError
from .factorizations import COUNTS
from .vector_operators import VECTOR

__all__ = ["count_as_vector_work", "is_declared", "is_vector_work"]

_OPEN = ("aten", "prim", "prims", "profiler", "torchvision")


_STEM = re.compile(r"^(_foreach)?_*|(_backward_data|_backward|_forward|_copy|_functional)?_*$")
_TAGS = (torch.Tag.pointwise, torch.Tag.reduction)

_declared: dict[str, None] = {}


def count_as_vector_work(*patterns: str) -> None:
    """Declare operators by name (``"namespace.name"``, ``*`` for any): element-wise work of the bytes that they touch.

    For operators that Weft cannot look into, in a line of the file that defines or uses them. A workload lists those
    that it met as assumed. Products of ATen's stay refused.
    """
    for pattern in patterns:
        if not re.fullmatch(r"[\w*?]+\.[\w*?]+", pattern):
            raise InputError(f"operator {pattern!r} is not of the form namespace.name, as 'mylib.neuron' or 'mylib.*'")
        _declared[pattern] = None


def is_declared(name: str) -> bool:
    """Whether somebody declared an operator to be vector work."""
    return any(fnmatchcase(name, pattern) for pattern in _declared)


@cache
def is_vector_work(func: OpOverload) -> bool:
    """Whether PyTorch's tags, its schema or the list say that an operator multiplies no matrices."""
    namespace, _, name = func._schema.name.partition("::")
    if namespace not in _OPEN:
        return False
    if name.startswith("_foreach_") and "mm" not in name:
        return True
    aliased = [argument.alias_info for argument in func._schema.arguments if argument.alias_info is not None]
    views = any(not alias.is_write for alias in aliased)
    nothing = not aliased and not any("Tensor" in str(result.type) for result in func._schema.returns)
    return views or nothing or _tagged(func) or name in COUNTS or _STEM.sub("", name) in VECTOR


def _tagged(func: OpOverload) -> bool:
    """Whether any overload has a tag that says so; in-place ones and those of numbers often lack theirs."""
    packet = func.overloadpacket
    plain = getattr(getattr(torch.ops, func.namespace), packet.__name__.rstrip("_"), packet)
    packets = {packet, plain} if hasattr(plain, "overloads") else {packet}
    return any(tag in getattr(one, name).tags for one in packets for name in one.overloads() for tag in _TAGS)
