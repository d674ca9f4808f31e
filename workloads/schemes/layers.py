"""Layers whose three GEMMs read operands that a technique chooses: linear layers and convolutions of every kind.

A layer is put to work by exchanging the class of its module, so parameters, buffers, hooks, ``state_dict`` keys and the
user's own code stay as they are. A weight is looked at as [groups, out, in, taps] of its convolution groups, wherever
the module stores these axes: FF groups run along ``in`` for fixed tap and output, BP groups along ``out`` for fixed tap
and input, WU groups along batch and positions. Groups never cross a tap or a convolution group; the last, shorter group
of a run keeps ``min(keep, its length)``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.parameter import UninitializedParameter

from ..errors import InputError
from ..gemm import Pass
from .annotate import EXPANDED, FIRST_CONVOLUTION, short_run

if TYPE_CHECKING:
    from .technique import Technique

__all__ = ["Kind", "Observed", "SparseLayer", "View", "find_layers", "install", "uninstall"]

ATTRIBUTE = "weft_layer"
"""Where an exchanged module keeps its :class:`SparseLayer`."""

ATTENTION = "nn.MultiheadAttention multiplies by it without calling the layer"
COMPUTED = "weight is computed from other parameters"
OWN_FORWARD = "forward of the layer is the user's own"
NOT_SUPPORTED = "no layer of a kind that can be sparse"

F = TypeVar("F", bound=Callable[..., Any])
View = tuple[int, int, int]
"""A tensor as [outer, length, inner]; groups lie along ``length``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of layer: its sparse twin, and whether the weight stores the outputs first or the inputs."""

    sparse: type[nn.Module]
    convolution: bool
    inputs_first: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """A GEMM of a layer as it is made: X and W_ff in FF, g_bp(dY) and W_bp in BP, g_wu(dY) and X in WU.

    ``dy``: the gradient before the technique. ``conv``: stride, padding, dilation, transposed, output padding, groups
    of a convolution. ``shape``: of X.
    """

    layer: SparseLayer
    pass_: Pass
    left: Tensor
    right: Tensor
    dy: Tensor | None
    conv: Any
    shape: torch.Size

    def again(self, left: Tensor, right: Tensor) -> Tensor:
        """What PyTorch makes of other operands of the same shapes, without the bias."""
        if self.pass_ == Pass.FF:
            return _multiply(left, right, None, self.layer, self.conv)
        if self.pass_ == Pass.BP:
            return _input_gradient(left, right, self.shape, self.layer, self.conv)
        return _weight_gradient(left, right, self.layer, self.conv)


class SparseLayer:
    """A module at work under a technique: the shape of its weight, the passes that are sparse, its operands.

    ``passes``: those whose operand is sparse in the current phase. ``kept_dense``: why others of the scheme are not.
    ``state``: tensors of the technique that must survive a restart (masks, permutations, scales).
    """

    def __init__(self, name: str, module: nn.Module, kind: Kind, technique: Technique) -> None:
        self.name, self.module, self.kind, self.technique = name, module, kind, technique
        self.passes: frozenset[Pass] = frozenset()
        self.kept_dense: dict[Pass, str] = {}
        self.state: dict[str, Tensor] = {}
        self.observer: Callable[[Observed], None] | None = None
        """Is shown every GEMM of the layer."""
        self.initial: Tensor | None = None
        """FF operand (or its mask) of the first step, for the divergence of masks."""
        self.previous: Tensor | None = None
        """Thinned-out weight (or its mask) of the step before, for the flip rate."""
        self.used: Tensor | None = None
        """Thinned-out weight of the current step."""
        self._dtype: torch.dtype | None = None
        self._key: tuple[object, ...] = ()
        self._operands: dict[Pass, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseLayer:
        """A copy at work under the same technique, which goes on steering the original only."""
        from copy import deepcopy

        made = SparseLayer(self.name, deepcopy(self.module, memo), self.kind, self.technique)
        made.passes, made.kept_dense = self.passes, dict(self.kept_dense)
        made.state = deepcopy(self.state, memo)
        return made

    @property
    def weight(self) -> nn.Parameter:
        """The dense master weight."""
        return cast(nn.Parameter, self.module.weight)

    @property
    def conv_groups(self) -> int:
        """Convolution groups; 1 for a linear layer."""
        return cast(int, self.module.groups) if self.kind.convolution else 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Weight as (convolution groups, outputs of one, inputs of one, taps)."""
        first, second, *taps = self.weight.shape
        groups = self.conv_groups
        outputs, inputs = (second, first // groups) if self.kind.inputs_first else (first // groups, second)
        return groups, outputs, inputs, prod(taps)

    def run(self, pass_: Pass) -> int:
        """Contraction elements side by side in FF or BP: what a group must fit into."""
        return self.shape[2 if pass_ == Pass.FF else 1]

    def view(self, pass_: Pass) -> View:
        """The stored weight with the groups of FF (along inputs) or BP (along outputs) in the middle."""
        groups, outputs, inputs, taps = self.shape
        if self.kind.inputs_first:
            return (groups, inputs, outputs * taps) if pass_ == Pass.FF else (groups * inputs, outputs, taps)
        return (groups * outputs, inputs, taps) if pass_ == Pass.FF else (groups, outputs, inputs * taps)

    def canonical(self, weight: Tensor) -> Tensor:
        """View of a tensor stored like the weight as [groups, out, in, taps]."""
        groups, outputs, inputs, taps = self.shape
        if self.kind.inputs_first:
            return weight.reshape(groups, inputs, outputs, taps).transpose(1, 2)
        return weight.reshape(groups, outputs, inputs, taps)

    def stored(self, canonical: Tensor) -> Tensor:
        """Inverse of :meth:`canonical`."""
        return (canonical.transpose(1, 2) if self.kind.inputs_first else canonical).reshape(self.weight.shape)

    def gradient_view(self, dy: Tensor) -> View:
        """The gradient of the output, as stored, with the groups of BP (along outputs) in the middle."""
        groups, outputs, _, _ = self.shape
        if not self.kind.convolution:
            return (dy.numel() // outputs, outputs, 1)
        return (dy.shape[0] * groups, outputs, prod(dy.shape[2:]))

    def rows(self, dy: Tensor) -> int:
        """Batch times positions: the contraction of WU."""
        return dy.numel() // (dy.shape[1] if self.kind.convolution else dy.shape[-1])

    def along_rows(self, dy: Tensor, group: int, make: Callable[[Tensor, View], Tensor]) -> Tensor:
        """``make`` on the gradient of the output with the groups of WU (along batch and positions) in the middle."""
        if not self.kind.convolution:
            return make(dy, (1, dy.numel() // dy.shape[-1], dy.shape[-1]))
        positions = prod(dy.shape[2:])
        if positions % group == 0:
            return make(dy, (dy.shape[0] * dy.shape[1], positions, 1))
        # Groups go on from one image into the next, so the batch has to lie beside the positions.
        by_channel = dy.transpose(0, 1).contiguous()
        return make(by_channel, (dy.shape[1], dy.shape[0] * positions, 1)).transpose(0, 1).contiguous()

    def begin_step(self) -> None:
        """Have the operands made anew at their next use."""
        self.previous, self.used = self.used if self.used is not None else self.previous, None
        self.forget()

    def forget(self) -> None:
        """Drop the operands, as after a change of what they are made from."""
        self._key, self._operands = (), {}

    def operand(self, pass_: Pass, dtype: torch.dtype | None = None) -> Tensor:
        """W_ff or W_bp, stored like the weight, in the dtype of the GEMM: ``dtype``, or that of the last one.

        Made once and kept until the weight changes (in place, by an optimizer or a loaded state) or a step begins; a
        change through ``weight.data`` leaves no trace and is seen in the next step only. Magnitudes are compared in the
        dtype of the GEMM, as the machine does.
        """
        master = self.weight
        self._dtype = dtype or self._dtype or master.dtype
        key = (master._version, master.data_ptr(), self._dtype, master.device)
        if key != self._key:
            self._key, self._operands = key, {}
        if pass_ not in self._operands:
            # A tensor made in inference mode could not be saved for a later backward.
            with torch.inference_mode(False), torch.no_grad():
                self._operands[pass_] = self._make(pass_, self._dtype)
        return self._operands[pass_]

    def _make(self, pass_: Pass, dtype: torch.dtype) -> Tensor:
        dense = self.weight.detach().to(dtype)
        if pass_ == Pass.FF:
            made = self.technique.forward_weight(self, dense) if Pass.FF in self.passes else dense
        else:
            ff = self.operand(Pass.FF, dtype)
            made = self.technique.backward_weight(self, dense, ff) if Pass.BP in self.passes else ff
        if self.used is None and pass_ == self.watched:
            self.used = made
            self.initial = made != 0 if self.initial is None else self.initial
        return made

    @property
    def watched(self) -> Pass | None:
        """The pass whose weights are watched for flips: FF, or BP where FF is dense."""
        return next((p for p in (Pass.FF, Pass.BP) if p in self.passes), None)


class _ThreeGemms(torch.autograd.Function):
    """Y = X W_ff; dX = g_bp(dY) W_bp^T; dW = x_wu(X)^T g_wu(dY): the gradient goes straight to the dense master."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: SparseLayer, conv: Any) -> Tensor:
        ctx.layer, ctx.conv, ctx.shape = layer, conv, x.shape
        needs_x, needs_w = ctx.needs_input_grad[:2]
        with torch.autocast(x.device.type, enabled=False):
            w_bp = layer.operand(Pass.BP, x.dtype) if needs_x else None
            ctx.save_for_backward(x if needs_w else None, w_bp)
            w_ff = layer.operand(Pass.FF, x.dtype)
            _show(ctx, Pass.FF, x, w_ff, None)
            return _multiply(x, w_ff, bias, layer, conv)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w_bp = ctx.saved_tensors
        layer, conv, technique = ctx.layer, ctx.conv, ctx.layer.technique
        needs_x, needs_w, needs_b = ctx.needs_input_grad[:3]
        dx = dw = db = None
        with torch.autocast(dy.device.type, enabled=False):
            if needs_b:
                # An empty list of dimensions would sum over all of them.
                others = [d for d in range(dy.dim()) if d != (1 if conv else dy.dim() - 1)]
                db = dy.sum(others) if others else dy
            if needs_x:
                g = technique.backward_gradient(layer, dy) if Pass.BP in layer.passes else dy
                _show(ctx, Pass.BP, g, w_bp, dy)
                dx = _input_gradient(g, w_bp, ctx.shape, layer, conv)
            if needs_w:
                g = technique.update_gradient(layer, dy) if Pass.WU in layer.passes else dy
                _show(ctx, Pass.WU, g, x, dy)
                dw = _weight_gradient(g, x, layer, conv)
        return dx, dw, db, None, None


def _show(ctx: Any, pass_: Pass, left: Tensor, right: Tensor, dy: Tensor | None) -> None:
    layer: SparseLayer = ctx.layer
    if layer.observer is not None:
        layer.observer(
            Observed(layer=layer, pass_=pass_, left=left, right=right, dy=dy, conv=ctx.conv, shape=ctx.shape)
        )


def _multiply(x: Tensor, w: Tensor, bias: Tensor | None, layer: SparseLayer, conv: Any) -> Tensor:
    if conv:
        return torch.ops.aten.convolution(x, w, bias, *conv)  # type: ignore[no-any-return]
    rows = functional.linear(x.reshape(-1, x.shape[-1]), w.t() if layer.kind.inputs_first else w, bias)
    # Autograd lets no view that a function returns be changed in place, as nn.ReLU(inplace=True) does.
    return torch.ops.aten._unsafe_view(rows, (*x.shape[:-1], rows.shape[-1]))  # type: ignore[no-any-return]


def _input_gradient(dy: Tensor, w: Tensor, shape: torch.Size, layer: SparseLayer, conv: Any) -> Tensor:
    if conv:
        # Only the shape of the input is read for its gradient.
        x = dy.new_empty(1).expand(shape)
        return torch.ops.aten.convolution_backward(dy, x, w, None, *conv, [True, False, False])[0]  # type: ignore[no-any-return]
    rows = dy.reshape(-1, dy.shape[-1]) @ (w.t() if layer.kind.inputs_first else w)
    return rows.reshape(shape)


def _weight_gradient(dy: Tensor, x: Tensor, layer: SparseLayer, conv: Any) -> Tensor:
    if conv:
        w = dy.new_empty(1).expand(layer.weight.shape)
        return torch.ops.aten.convolution_backward(dy, x, w, None, *conv, [False, True, False])[1]  # type: ignore[no-any-return]
    x, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return x.t() @ dy if layer.kind.inputs_first else dy.t() @ x


def _eager(function: F) -> F:
    """Where a compiled model leaves its graph: Dynamo cannot look into the kernels that make masks."""
    return cast(F, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


@_eager
def _apply(module: nn.Module, x: Tensor, conv: Any) -> Tensor:
    """The layer on ``x``, with the casts that autocast makes in front of a GEMM."""
    layer: SparseLayer = getattr(module, ATTRIBUTE)
    bias = cast("Tensor | None", module.bias)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
    elif x.dtype != layer.weight.dtype:
        raise InputError(
            f"layer {layer.name!r} has a weight of {layer.weight.dtype} and an input of {x.dtype}; cast one of them"
        )
    return cast(Tensor, _ThreeGemms.apply(x, module.weight, bias, layer, conv))  # type: ignore[no-untyped-call]


class SparseLinear(nn.Linear):
    """nn.Linear at work."""

    def forward(self, input: Tensor) -> Tensor:
        return _apply(self, input, None)


class _Convolution:
    """Forward of the plain convolutions."""

    def forward(self, input: Tensor) -> Tensor:
        conv: Any = self
        dims = len(conv.kernel_size)
        x = input if input.dim() == dims + 2 else input.unsqueeze(0)
        pads = conv._reversed_padding_repeated_twice
        even = all(low == high for low, high in zip(pads[::2], pads[1::2], strict=True))
        if conv.padding_mode != "zeros" or not even:
            x = functional.pad(x, pads, "constant" if conv.padding_mode == "zeros" else conv.padding_mode)
            padding = (0,) * dims
        else:
            padding = tuple(reversed(pads[::2]))
        y = _apply(conv, x, (conv.stride, padding, conv.dilation, False, (0,) * dims, conv.groups))
        return y if input.dim() == dims + 2 else y.squeeze(0)


class _Transposed:
    """Forward of the transposed convolutions."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        conv: Any = self
        dims = len(conv.kernel_size)
        if conv.padding_mode != "zeros":
            raise ValueError("only padding_mode 'zeros' is supported for transposed convolutions")
        extra = conv._output_padding(
            input, output_size, conv.stride, conv.padding, conv.kernel_size, dims, conv.dilation
        )
        x = input if input.dim() == dims + 2 else input.unsqueeze(0)
        y = _apply(conv, x, (conv.stride, conv.padding, conv.dilation, True, tuple(extra), conv.groups))
        return y if input.dim() == dims + 2 else y.squeeze(0)


class SparseConv1d(_Convolution, nn.Conv1d):
    """nn.Conv1d at work."""


class SparseConv2d(_Convolution, nn.Conv2d):
    """nn.Conv2d at work."""


class SparseConv3d(_Convolution, nn.Conv3d):
    """nn.Conv3d at work."""


class SparseConvTranspose1d(_Transposed, nn.ConvTranspose1d):
    """nn.ConvTranspose1d at work."""


class SparseConvTranspose2d(_Transposed, nn.ConvTranspose2d):
    """nn.ConvTranspose2d at work."""


class SparseConvTranspose3d(_Transposed, nn.ConvTranspose3d):
    """nn.ConvTranspose3d at work."""


KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind(sparse=SparseLinear, convolution=False, inputs_first=False),
    **{
        plain: Kind(sparse=sparse, convolution=True, inputs_first=issubclass(sparse, _Transposed))
        for plain, sparse in (
            (nn.Conv1d, SparseConv1d), (nn.Conv2d, SparseConv2d), (nn.Conv3d, SparseConv3d),
            (nn.ConvTranspose1d, SparseConvTranspose1d), (nn.ConvTranspose2d, SparseConvTranspose2d),
            (nn.ConvTranspose3d, SparseConvTranspose3d),
        )
    },
}  # fmt: skip


def _huggingface_linear() -> type[nn.Module] | None:
    """The linear layer of GPT-2 in transformers, which stores its weight [in, out]; None while not imported."""
    module = sys.modules.get("transformers.pytorch_utils")
    return None if module is None else cast("type[nn.Module]", module.Conv1D)


def _kind(module: nn.Module) -> Kind | None:
    plain = next((k for k in KINDS if isinstance(module, k)), None)
    if plain is not None:
        return KINDS[plain]
    base = _huggingface_linear()
    if base is None or not isinstance(module, base):
        return None
    made = type("SparseConv1D", (base,), {"forward": lambda self, x: _apply(self, x, None)})
    return Kind(sparse=made, convolution=False, inputs_first=True)


def find_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, Kind | None, str]]:
    """Modules with a weight matrix of their own: path, module, kind, and why it can never be sparse ("" if it can)."""
    skipped = {
        id(part): ATTENTION
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for part in module.modules()
    }
    first = True
    for name, module in model.named_modules():
        kind, own = _kind(module), list(module.parameters(recurse=False))
        if any(isinstance(p, UninitializedParameter) for p in own):
            raise InputError(f"layer {name!r} has no weight yet; run the model once before a technique is attached")
        if kind is None:
            if any(p.dim() > 1 for p in own) and not isinstance(module, nn.Embedding | nn.EmbeddingBag):
                yield name, module, None, skipped.get(id(module), NOT_SUPPORTED)
            continue
        yield name, module, kind, skipped.get(id(module)) or _reason(module, kind, first)
        first = first and not kind.convolution


def _reason(module: nn.Module, kind: Kind, first: bool) -> str:
    if "weight" not in module._parameters:
        return COMPUTED
    plain = next((base for base in type(module).__mro__ if base in KINDS or base is _huggingface_linear()), None)
    if plain is None or type(module).forward is not plain.forward:
        return OWN_FORWARD
    return FIRST_CONVOLUTION if first and kind.convolution else ""


def short_runs(layer: SparseLayer, passes: frozenset[Pass], group: int) -> dict[Pass, str]:
    """Why N:M groups of ``group`` do not fit the contraction of some of ``passes``; the words of the annotation.

    The contraction of WU depends on the batch: a batch shorter than one group is kept whole.
    """
    found = {p: layer.run(p) for p in (Pass.FF, Pass.BP) if p in passes}
    reasons: dict[Pass, str] = {p: short_run(run, group) for p, run in found.items() if run < group}
    if Pass.WU in passes and layer.kind.convolution and layer.kind.inputs_first:
        reasons[Pass.WU] = EXPANDED
    return reasons


def install(layer: SparseLayer) -> None:
    """Exchange the class of the module."""
    module = layer.module
    layer_class = type(module)
    bases = layer.kind.sparse if layer_class in KINDS or layer.kind.sparse.__base__ is layer_class else None
    made = bases or type(f"Sparse{layer_class.__name__}", (layer_class,), {"forward": layer.kind.sparse.forward})
    module.__dict__[ATTRIBUTE] = layer
    module.__dict__["weft_plain_class"] = layer_class
    module.__class__ = made


def uninstall(layer: SparseLayer) -> None:
    """Give the module its own class back."""
    module = layer.module
    module.__class__ = module.__dict__.pop("weft_plain_class")
    del module.__dict__[ATTRIBUTE]
