"""What a model may ask of values on tensors that have none, and what a training step answers.

- A number by itself (a state flag, a step counter, a mixing factor) is made on the CPU and keeps its value; of other
  tensors what follows from constants is known (`values.py`).
- What data choose among alternatives, the experts of a token, is spread evenly.
- A random number by itself, as layer drop draws one, stands at the middle of its range: nothing is dropped.
- Activations are finite.
- The device of a tensor is a CPU to whoever asks its name: autocast is left to the machine, which has its own formats.

Anything else that looks at values is refused where the model's own code asks it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InputError
from .drawn import DRAWN, FILLED, middles, size_of
from .provenance import tensors_in
from .results import Results, key_of
from .sized import looked, looks_at_values
from .values import Values, unwatched

__all__ = ["Answers", "Following", "asked_for", "caller", "expected", "nothing_compiled"]

_MADE = frozenset((torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.zeros, torch.ones, torch.full))
_DROPPED = "a random number by itself stands at the middle of its range: no layer is dropped"
_FINITE = {
    torch.isfinite: True,
    Tensor.isfinite: True,
    torch.isnan: False,
    Tensor.isnan: False,
    torch.isinf: False,
    Tensor.isinf: False,
}
_TRACER = str(Path(__file__).parents[1] / "trace.py")
_OURS = frozenset((str(Path(__file__).parent), str(Path(__file__).parents[1])))
_TORCH = str(Path(torch.__file__).parent) + os.sep
_HANDED_OUT = frozenset((Tensor.tolist, Tensor.numpy, Tensor.__array__))
"""Functions that hand all values of a tensor to Python."""
_ROUTED = "what data choose (the experts of a token) is shared equally, the first ones get what is left over"


class Answers(TorchFunctionMode):
    """Keeps what is known of values while a model is built and run; ``assumed`` says what was answered, and where."""

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[str, dict[str, None]] = {}  # lines that asked, by what was assumed
        self.values = Values()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _MADE or func in DRAWN:
            return self._created(func, args, kwargs)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is None or not first.is_meta:
            return func(*args, **kwargs)
        if func is Tensor.type:
            return _typed(first, *args[1:], **kwargs)
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _moved(first, func, args[1:], kwargs)
        if func in _HANDED_OUT:
            values = self.ask(first, f"the values of a tensor of {list(first.shape)}")
            with unwatched():
                return func(values, *args[1:], **kwargs)
        if func is torch._pack_padded_sequence and args[1].is_meta:
            lengths = self.ask(args[1], "the lengths of sequences that are packed (inputs that are not 0 keep theirs)")
            return func(first, lengths, *args[2:], **kwargs)
        if func is Tensor.__format__ and not first.dim() and self.values.of(first) is not None:
            return format(self.ask(first, "the value of a tensor").tolist(), *args[1:])
        if func is functional.one_hot and args[1:] in ((), (-1,)) and kwargs.get("num_classes", -1) == -1:
            values = self.ask(first, "the largest index (one_hot without num_classes)")
            with unwatched():
                classes = int(values.max()) + 1 if values.numel() else 1
            return func(first, classes)
        out = func(*args, **kwargs)
        if func in FILLED and first.numel() == 1 and _is_whole(first) and not any(map(torch.is_tensor, args[1:])):
            self._note(_DROPPED)
            self._uniform(first, FILLED[func](*args[1:], **kwargs))
        if func in _FINITE:
            self._uniform(out, _FINITE[func])
            self._note("activations are finite")
        return out

    def _uniform(self, tensor: Tensor, value: float) -> None:
        if tensor.is_meta:
            with unwatched():
                self.values.remember(tensor, torch.full((), value, dtype=tensor.dtype).expand(tensor.shape))

    def ask(self, tensor: Tensor, what: str) -> Tensor:
        """Values of a tensor of any shape and dtype; refused where they depend on data otherwise than by a choice."""
        known = self.values.of(tensor)
        if known is None:
            raise asked_for(what)
        if known.routed:
            self._note(_ROUTED)
        return known.values

    def keep_given(self, tensors: Iterable[Tensor]) -> None:
        """Of the inputs of a model keep the values that were given: masks, and integers that are not all 0.

        Zeros hold the place of data, and so does what has a fraction. Tensors of any shape and dtype.
        """
        for tensor in tensors:
            known = self.values.of(tensor) if tensor.is_meta and not tensor.is_floating_point() else None
            with unwatched():
                if known is None or not (tensor.dtype is torch.bool or known.values.any()):
                    self.values.forget(tensor)

    def _created(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A number by itself, on the CPU; what is made of Python's numbers, with its values noted."""
        device = kwargs.get("device")
        if (device is not None and torch.device(device).type != "meta") or any(isinstance(one, Tensor) for one in args):
            return func(*args, **kwargs)
        if func in DRAWN:
            return self._drawn(func, args, kwargs)
        if func in (torch.tensor, torch.as_tensor, torch.scalar_tensor):
            if args and isinstance(args[0], int | float | bool):
                return func(*args, **{**kwargs, "device": "cpu"})
            made = func(*args, **kwargs)
            if made.is_meta and not tensors_in(args):
                with unwatched():
                    self.values.remember(made, func(*args, **{**kwargs, "device": "cpu"}).detach())
            return made
        if _is_number(args[:1] if func is torch.full else args, kwargs):
            return func(*args, **{**kwargs, "device": "cpu"})
        return func(*args, **kwargs)

    def _drawn(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A random tensor; one number at the middle of its range, on the CPU if it has no axes."""
        size = size_of(func, args, kwargs)
        if size is None:
            return func(*args, **kwargs)
        self._note(_DROPPED)
        middle = DRAWN[func]([one for one in (*args, *kwargs.values()) if type(one) is int])
        if not size:
            dtype = kwargs.get("dtype") or (torch.int64 if func is torch.randint else None)
            return torch.tensor(middle, dtype=dtype, device="cpu")
        made = func(*args, **kwargs)
        self._uniform(made, middle)
        return made

    def _note(self, what: str) -> None:
        file, line, _ = caller()
        lines = self._given.setdefault(what, {})
        if file is not None:
            lines.setdefault(f"{file.name}:{line}")

    @property
    def assumed(self) -> list[str]:
        """What was answered, each with the lines that asked."""
        return [f"{what} ({', '.join(lines)})" if lines else what for what, lines in self._given.items()]

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

        # Parameters of distributions are right.
        checks = patch.object(torch.distributions.Distribution, "_validate_args", False)
        drawn = middles(lambda: self._note(_DROPPED))
        with patch.object(torch.amp.autocast_mode.autocast, "__init__", off), checks, drawn, self:
            yield


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Run compiled code eagerly inside; the compiler is loaded, which takes 2 s, only by a model that asks for it."""
    with ExitStack() as entered:
        real = torch.compile

        def asked(*args: Any, **kwargs: Any) -> Any:
            entered.enter_context(torch.compiler.set_stance("force_eager"))
            return real(*args, **kwargs)

        if "torch._dynamo" in sys.modules:
            entered.enter_context(torch.compiler.set_stance("force_eager"))
        else:
            entered.enter_context(patch.object(torch, "compile", asked))
        yield


class Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the values of what is made outside of a recorded step: a model's buffers, its inputs."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answers = answers
        self._results = Results()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: the first call would load the compiler."""
        return False

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            key, tensors = key_of(func, args, kwargs)
            if looks_at_values(func, args) and any(tensor.is_meta for tensor in tensors):
                out = looked(func, args, kwargs, self._answers.ask)
            elif key is None:
                out = func(*args, **kwargs)
            else:
                out, _ = self._results.of(func, args, kwargs, key)
            self._answers.values.follow(func, args, kwargs, tensors, out)
        return out


def _is_number(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether sizes are those of one number: ``[]``, ``()``, or ``size=()``."""
    size = args[0] if len(args) == 1 else kwargs.get("size", args or None)
    return isinstance(size, list | tuple) and len(size) == 0 and bool(args or "size" in kwargs)


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor is all that its storage holds, and no parameter, which is set up once."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return whole and not isinstance(tensor, torch.nn.Parameter)


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
    """The file, line and function of the model's code, or of its library's, that is at work; none in its gradients."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        file = frame.f_code.co_filename
        if file == _TRACER:
            break
        folder, _, name = file.rpartition(os.sep)
        if folder not in _OURS and not file.startswith(_TORCH) and name != "contextlib.py":
            return Path(file), frame.f_lineno, frame.f_code.co_name
    return None, 0, ""


def asked_for(what: str) -> InputError:
    """That the model asks for values, which a trace does not have."""
    file, line, _ = caller()
    place = f"{file}:{line} asks for" if file is not None else "a gradient asks for"
    return InputError(
        f"{place} {what}, but a trace knows shapes only, and of values those that follow from constants or from what "
        "topk, argmax, sort and multinomial choose; make that choice without looking at data, or let a flag of the "
        "model's own decide it"
    )


_KNOWN_ANSWERS = {
    ("masking_utils.py", None): True,  # are the sequences not packed?
    ("modeling_utils.py", "warn_if_padding_and_no_attention_mask"): False,  # are there padding tokens?
}
"""What transformers asks of its inputs, by file and function (None: any), and the answer: they are whole sequences."""


def expected() -> bool | None:
    """What transformers expects to hear where it asks for a value, if it is known to."""
    file, _, function = caller()
    if file is not None and file.parent.name == "transformers":
        for name in (function, None):
            if (file.name, name) in _KNOWN_ANSWERS:
                return _KNOWN_ANSWERS[file.name, name]
    return None
