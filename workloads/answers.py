"""What a model may ask of values on tensors that have none, and what a training step answers.

- A number by itself (a state flag, a step counter, a mixing factor) is made on the CPU and keeps its value.
- A random number by itself, as layer drop draws one, stands at the middle of its range: nothing is dropped.
- Activations are finite; a mask has what it was made with, and stays so until something is written into it.
- The device of a tensor is a CPU to whoever asks its name: autocast is left to the machine, which has its own formats.

Anything else that looks at values is refused where the model's own code asks it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from .errors import InputError

__all__ = ["Answers", "asked_for", "caller"]

_MADE = frozenset((torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.zeros, torch.ones, torch.full))
_DRAWN = {torch.rand: 0.5, torch.randn: 0.0}
"""Functions that draw numbers, and the middle of what they draw."""
_FINITE = {
    torch.isfinite: True, Tensor.isfinite: True, torch.isnan: False, Tensor.isnan: False, torch.isinf: False,
    Tensor.isinf: False,
}  # fmt: skip
_EVERY = frozenset((torch.all, Tensor.all, torch.any, Tensor.any))
_NOT = frozenset((torch.logical_not, Tensor.logical_not, torch.bitwise_not, Tensor.bitwise_not, Tensor.__invert__))
_SAME = frozenset((
    Tensor.detach, Tensor.to, Tensor.bool, Tensor.clone, Tensor.contiguous, Tensor.view, Tensor.reshape, Tensor.expand,
    Tensor.unsqueeze, Tensor.squeeze, Tensor.transpose, Tensor.permute, Tensor.flatten, torch.flatten,
))  # fmt: skip
"""What makes no other values of a mask."""


class Answers(TorchFunctionMode):
    """Keeps what is known of values while a model is built and run; ``given`` says what was answered, and where."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, None] = {}
        self._every: Any = WeakTensorKeyDictionary()  # bool tensors whose elements are all one value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _MADE or func in _DRAWN:
            return self._created(func, args, kwargs)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is None or not first.is_meta:
            return func(*args, **kwargs)
        if func is Tensor.type:
            return _typed(first, *args[1:], **kwargs)
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _moved(first, func, args[1:], kwargs)
        if func is Tensor.tolist:
            raise asked_for(f"the values of a tensor of {list(first.shape)}")
        if func in _EVERY and len(args) == 1 and not kwargs and first in self._every:
            return torch.tensor(self._every[first], device="cpu")
        out = func(*args, **kwargs)
        if func in _FINITE:
            self._every[out] = _FINITE[func]
            self._note("activations are finite")
        elif first in self._every and isinstance(out, Tensor) and out.dtype is torch.bool:
            if func in _NOT:
                self._every[out] = not self._every[first]
            elif func in _SAME:
                self._every[out] = self._every[first]
        if first in self._every and getattr(func, "__name__", "").endswith(("_", "__setitem__")):
            del self._every[first]
        return out

    def _created(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A number by itself, on the CPU; a whole mask, with its value noted."""
        device = kwargs.get("device")
        if (device is not None and torch.device(device).type != "meta") or any(isinstance(one, Tensor) for one in args):
            return func(*args, **kwargs)
        if func in _DRAWN:
            if not _is_number(args, kwargs):
                return func(*args, **kwargs)
            self._note("a random number by itself stands at the middle of its range: no layer is dropped")
            return torch.tensor(_DRAWN[func], dtype=kwargs.get("dtype"), device="cpu")
        if func in (torch.tensor, torch.as_tensor, torch.scalar_tensor):
            alone = args and isinstance(args[0], int | float | bool)
            return func(*args, **{**kwargs, "device": "cpu"}) if alone else func(*args, **kwargs)
        if _is_number(args[:1] if func is torch.full else args, kwargs):
            return func(*args, **{**kwargs, "device": "cpu"})
        made = func(*args, **kwargs)
        if made.dtype is torch.bool:
            value = args[1] if func is torch.full and len(args) > 1 else kwargs.get("fill_value", func is torch.ones)
            self._every[made] = bool(value)
        return made

    def _note(self, what: str) -> None:
        file, line, _ = caller()
        self.given.setdefault(f"{what} ({file.name}:{line})" if file is not None else what)

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Answer inside, autocast included."""
        real = torch.amp.autocast_mode.autocast.__init__

        def off(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
            # Formats are the machine's own; of a device that is not there PyTorch would only warn.
            if device_type in ("meta", "cuda") and not torch.cuda.is_available():
                device_type, args, kwargs = "cpu", (), {**kwargs, "enabled": False, "dtype": None}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                real(self, device_type, *args, **kwargs)

        with patch.object(torch.amp.autocast_mode.autocast, "__init__", off), self:
            yield


def _is_number(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether sizes are those of one number: ``[]``, ``()``, or ``size=()``."""
    size = args[0] if len(args) == 1 else kwargs.get("size", args or None)
    return isinstance(size, list | tuple) and len(size) == 0 and bool(args or "size" in kwargs)


def _moved(tensor: Tensor, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A tensor without data where it is: no device has any, as that of a number kept on the CPU would need."""
    if func is not Tensor.to:
        return tensor
    named = {name: value for name, value in kwargs.items() if name != "copy"}
    device, dtype, *_ = torch._C._nn._parse_to(*args, **named)
    if device is None or device.type == "meta":
        return func(tensor, *args, **kwargs)
    return func(tensor, dtype or tensor.dtype, copy=kwargs.get("copy", False))


def _typed(tensor: Tensor, dtype: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    """``Tensor.type``: the name of a type as a CPU has it, or the tensor in the type of a name."""
    if dtype is None:
        return torch.empty(0, dtype=tensor.dtype, device="cpu").type()
    if isinstance(dtype, str):
        kind = getattr(torch, dtype.rpartition(".")[2], None)
        if kind is None:
            raise asked_for(f"a tensor of type {dtype!r}")
        dtype = torch.empty(0, device="cpu").type(dtype.replace("cuda.", "").replace("meta.", "")).dtype
    return tensor.to(dtype)


def caller() -> tuple[Path | None, int, str]:
    """The file, line and function of the model's code, or of its library's, that is at work."""
    here, torch_folder = Path(__file__).parent, Path(torch.__file__).parent
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        file = Path(frame.f_code.co_filename)
        if here != file.parent and torch_folder not in file.parents and file.name != "contextlib.py":
            return file, frame.f_lineno, frame.f_code.co_name
    return None, 0, ""


def asked_for(what: str) -> InputError:
    """That the model asks for values, which a trace does not have."""
    file, line, _ = caller()
    return InputError(
        f"{file}:{line} asks for {what}, but a trace knows shapes only; make that choice without looking at data, or "
        "let a flag of the model's own decide it"
    )
