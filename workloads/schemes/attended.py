"""The products of attention in a training: found while the model runs, and multiplied by operands of few values.

A model writes its attention as it likes: ``q @ k.transpose(-2, -1)``, a mask, a softmax, ``@ v``, or all of it as
`torch.nn.functional.scaled_dot_product_attention`. What becomes of a product of two activations is known only at the
softmax, so that product is noted with what is done to it until then, and made again, of few values, in front of it.
What goes from the softmax into a product is the map. `workloads/schemes/attention.py` finds the same in a trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import InputError
from .attention import Part
from .estimator import Estimator
from .few_product import few_product

__all__ = ["Attended", "Estimators", "written_out"]

Estimators = Callable[[], dict[Part, Estimator]]
"""The estimators of the parts in the current step; a part that is not there stays as it is."""

Observer = Callable[[Part, Tensor], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """A tensor that is a product of two activations, or made of one by work that changes no size: how to make it again,
    with operands of few values. ``again`` None: by an operator that hides its operands."""

    again: Callable[[], Tensor] | None


class _Map:
    """Marks a softmax of scores, and what is made of it by work that changes no size."""


_PRODUCTS = frozenset((torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__))
_ADDED = frozenset((torch.baddbmm, Tensor.baddbmm))
_SOFTMAX = frozenset((torch.softmax, functional.softmax, Tensor.softmax, torch.special.softmax))
_WHOLE = frozenset((functional.scaled_dot_product_attention,))
_HIDING = frozenset((torch.einsum,))
_LAYERS = frozenset((functional.linear, functional.bilinear, torch.addmm, torch.mm, Tensor.mm, Tensor.__rmatmul__))
"""Products with a weight, or of matrices without a batch: what they make is no score any more."""


def written_out(
    scored: Callable[[Tensor, Tensor], Tensor],
    mixed: Callable[[Tensor, Tensor], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` as PyTorch's documentation writes it out, its two products by ``scored`` and
    ``mixed``; [..., queries, width] of one float dtype as there."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(repeats, -3) for x in (key, value))
    scores = scored(query, key.transpose(-2, -1))
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        masked = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if masked else scores + attn_mask
    return mixed(functional.dropout(scores.softmax(-1), dropout_p, training=dropout_p > 0), value)


class Attended:
    """Interception of the attention of ``model``, from :meth:`install` to :meth:`uninstall`."""

    def __init__(self, model: nn.Module, name: str, estimators: Estimators) -> None:
        self._model, self._name, self._estimators = model, name, estimators
        self._hooks: list[Any] = []
        self._open: list[_Mode | None] = []
        self.observer: Observer | None = None
        """Is shown the values of every part that is multiplied, of any shape and float dtype, contraction last."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Attended:
        """That of a copied model, whose hooks are copied with it; the technique goes on steering the original only."""
        return Attended(memo.get(id(self._model), self._model), self._name, self._estimators)

    def install(self) -> None:
        """Listen to every forward of the model, and of what it is made of (checkpointing calls that by itself)."""
        for name, module in self._model.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                raise InputError(
                    f"scheme {self._name!r} changes the products of attention, but those of {name or 'the model'!r}, "
                    "an nn.MultiheadAttention, cannot be reached; write it with matmul, softmax and matmul, or with "
                    "scaled_dot_product_attention"
                )
        for module in self._model.modules():
            if module is self._model or next(module.children(), None) is not None:
                self._hooks.append(module.register_forward_pre_hook(self._enter))
                self._hooks.append(module.register_forward_hook(self._leave, always_call=True))

    def uninstall(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _enter(self, _module: nn.Module, _args: Any) -> None:
        mode = None if self._open else _Mode(self._name, self._estimators(), self.observer)
        self._open.append(mode)
        if mode is not None:
            mode.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        mode = self._open.pop()
        if mode is not None:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]


class _Mode(TorchFunctionMode):
    """Knows of every tensor whether it is scores or a map."""

    def __init__(self, name: str, estimators: dict[Part, Estimator], observer: Observer | None) -> None:
        self._name, self._estimators, self._observer = name, estimators, observer
        self._known: Any = WeakTensorKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _WHOLE:
            return self._attention(*args, **kwargs)
        if func in _PRODUCTS or func in _ADDED:
            return self._product(func, args, kwargs)
        if func in _SOFTMAX:
            return self._softmax(func, args, kwargs)
        known = self._of(args, kwargs)
        out = func(*args, **kwargs)
        if func in _HIDING:
            self._hidden(known, args, out)
        elif known is not None and isinstance(out, Tensor) and func not in _LAYERS:
            self._follow(known, func, args, kwargs, out)
        return out

    def _of(self, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor, _Scores | _Map] | None:
        """The first argument that is scores or a map."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and (found := self._known.get(value)) is not None:
                return value, found
        return None

    def _follow(self, known: Any, func: Any, args: Any, kwargs: dict[str, Any], out: Tensor) -> None:
        source, tag = known
        if out.numel() != source.numel() or not out.is_floating_point():
            return
        if isinstance(tag, _Map) or tag.again is None:
            self._known[out] = tag
            return
        before = tag.again

        def again() -> Tensor:
            made = before()
            args_ = tuple(made if value is source else value for value in args)
            found: Tensor = func(*args_, **{key: made if value is source else value for key, value in kwargs.items()})
            return found

        self._known[out] = _Scores(again)

    def _hidden(self, known: Any, args: Any, out: Any) -> None:
        if known is not None and isinstance(known[1], _Map):
            raise self._refused("multiplies the map of an attention by einsum")
        operands = [value for value in args if isinstance(value, Tensor) and not isinstance(value, nn.Parameter)]
        if len(operands) > 1 and isinstance(out, Tensor):
            self._known[out] = _Scores(None)

    def _refused(self, what: str) -> InputError:
        return InputError(
            f"scheme {self._name!r} changes the products of attention, but the model {what}; write them with matmul, "
            "or with scaled_dot_product_attention"
        )

    def _product(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        if func in _ADDED:
            return self._added(*args, **kwargs)
        a, b = (*args, *kwargs.values())[:2]
        plain: Tensor = func(*args, **kwargs)
        if a.dim() < 3 or b.dim() < 3 or isinstance(a, nn.Parameter) or isinstance(b, nn.Parameter):
            return plain
        if isinstance(self._known.get(b), _Map):
            raise self._refused("multiplies by the map of an attention from the left")
        if isinstance(self._known.get(a), _Map):
            return self._mixed(a, b)
        self._known[plain] = _Scores(lambda: self._few(Part.QUERY, a, Part.KEY, b))
        return plain

    def _added(self, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1.0, alpha: float = 1.0, **_: Any) -> Tensor:
        if isinstance(self._known.get(a), _Map):
            raise self._refused("adds to the product of a map by baddbmm")
        plain = torch.baddbmm(bias, a, b, beta=beta, alpha=alpha)

        def again() -> Tensor:
            made = alpha * self._few(Part.QUERY, a, Part.KEY, b)
            # With beta 0 the bias may hold anything, NaN too.
            return made + beta * bias if beta else made

        self._known[plain] = _Scores(again)
        return plain

    def _softmax(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        scores = args[0] if args else kwargs["input"]
        tag = self._known.get(scores)
        if not isinstance(tag, _Scores):
            plain: Tensor = func(*args, **kwargs)
            return plain
        if tag.again is None:
            raise self._refused("makes the scores of an attention by einsum")
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        if dim not in (-1, scores.dim() - 1):
            raise self._refused(f"takes the softmax of its scores along dimension {dim}, not along the keys")
        again = tag.again() if {Part.QUERY, Part.KEY} & self._estimators.keys() else scores
        made: Tensor = func(again, *args[1:], **{key: value for key, value in kwargs.items() if key != "input"})
        self._known[made] = _Map()
        return made

    def _attention(self, *args: Any, **kwargs: Any) -> Tensor:
        return written_out(lambda q, k: self._few(Part.QUERY, q, Part.KEY, k), self._mixed, *args, **kwargs)

    def _mixed(self, a: Tensor, v: Tensor) -> Tensor:
        return self._few(Part.MAP, a, Part.VALUE, v)

    def _few(self, left: Part, a: Tensor, right: Part, b: Tensor) -> Tensor:
        """``a`` [..., m, k] times ``b`` [..., k, n] of few values, as autocast would have it."""
        if torch.is_autocast_enabled(a.device.type):
            dtype = torch.get_autocast_dtype(a.device.type)
            a, b = a.to(dtype), b.to(dtype)
        one, other = self._estimators.get(left), self._estimators.get(right)
        if one is None and other is None:
            return a @ b
        shown = None if self._observer is None else lambda x, y: self._show(left, x, right, y)
        return few_product(a, b.transpose(-2, -1), one or Estimator(), other or Estimator(), shown)

    def _show(self, left: Part, a: Tensor, right: Part, b: Tensor) -> None:
        assert self._observer is not None, "shown only where somebody looks"
        self._observer(left, a)
        self._observer(right, b)
