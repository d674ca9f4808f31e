"""A layer at work: the shape of its weight, where its N:M groups lie, and its operands.

A weight is looked at as [groups, out, in, taps] of its convolution groups, wherever the module stores these axes: FF
groups run along ``in`` for fixed tap and output, BP groups along ``out`` for fixed tap and input, WU groups along batch
and positions. Groups never cross a tap or a convolution group; the last, shorter group of a run keeps
``min(keep, its length)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..gemm import Pass
from .annotate import EXPANDED, short_run
from .description import Scheme
from .estimator import Few
from .float8 import FORWARD, rounded

__all__ = ["Kind", "Observed", "Operands", "SparseLayer", "View", "short_runs"]

View = tuple[int, int, int]
"""A tensor as [outer, length, inner]; groups lie along ``length``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of layer: its sparse twin, and whether the weight stores the outputs first or the inputs."""

    sparse: type[nn.Module]
    convolution: bool
    inputs_first: bool


class Operands(Protocol):
    """What chooses the operands of a layer's GEMMs: a technique of a ``scheme``.

    Weights may have any shape, that in which the layer stores its own; gradients are [batch, *positions, out], those of
    a convolution [batch, out, *positions]. What is returned has the shape and the dtype of what was given.
    """

    scheme: Scheme

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor: ...

    def backward_weight(self, layer: SparseLayer, weight: Tensor, forward: Tensor) -> Tensor: ...

    def backward_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor: ...

    def update_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor: ...

    def prepared(self, layer: SparseLayer, x: Tensor, conv: Any) -> tuple[Tensor, Any]: ...

    def gain(self, layer: SparseLayer, x: Tensor, conv: Any) -> Tensor | None: ...

    def activation(self, layer: SparseLayer, x: Tensor) -> Few: ...

    def activation_gradient(self, layer: SparseLayer, g: Tensor, x: Tensor) -> Tensor: ...

    def weight_gradient(self, layer: SparseLayer, g: Tensor, weight: Tensor) -> Tensor: ...

    def marks(self, weight: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """A GEMM of a layer as it is made: X and W_ff in FF, g_bp(dY) and W_bp in BP, g_wu(dY) and X in WU.

    X is [batch, *positions, in] or, of a convolution, [batch, in, *positions], dY the same with out; all of one float
    dtype. ``dy``: the gradient before the technique. ``conv``: stride, padding, dilation, transposed, output padding,
    groups of a convolution. ``shape``: of X. ``plane``: which one of a weight that is a sum of planes, in FF.
    """

    layer: SparseLayer
    pass_: Pass
    left: Tensor
    right: Tensor
    dy: Tensor | None
    conv: Any
    shape: torch.Size
    plane: int = 0


class SparseLayer:
    """A module at work under a technique: the shape of its weight, the passes that are sparse, its operands.

    ``passes``: those with an operand that is sparse, or of few values, in the current phase. ``kept_dense``: why others
    of the scheme are not. ``state``: tensors of the technique that must survive a restart (masks, permutations, ...).
    """

    def __init__(self, name: str, module: nn.Module, kind: Kind, technique: Operands) -> None:
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
        self.scale: Tensor | None = None
        """What outputs are multiplied by for W_ff to be of few values, of the dtype of the GEMM: [out], of a
        convolution [out, 1, ...]; None for 1."""
        self.planes: tuple[Few, ...] = ()
        """What FF multiplies by, where W_ff is a sum of planes: each stored like the weight, its scale as above; W_ff
        itself is then their sum, scales included. Empty elsewhere."""
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
        """View of a tensor of any dtype stored like the weight as [groups, out, in, taps]."""
        groups, outputs, inputs, taps = self.shape
        if self.kind.inputs_first:
            return weight.reshape(groups, inputs, outputs, taps).transpose(1, 2)
        return weight.reshape(groups, outputs, inputs, taps)

    def stored(self, canonical: Tensor) -> Tensor:
        """Inverse of :meth:`canonical`: [groups, out, in, taps] of any dtype, stored like the weight."""
        return (canonical.transpose(1, 2) if self.kind.inputs_first else canonical).reshape(self.weight.shape)

    def gradient_view(self, dy: Tensor) -> View:
        """The gradient of the output, as stored, with the groups of BP (along outputs) in the middle.

        ``dy``: [batch, *positions, out], of a convolution [batch, out, *positions]; of any dtype.
        """
        groups, outputs, _, _ = self.shape
        if not self.kind.convolution:
            return (dy.numel() // outputs, outputs, 1)
        return (dy.shape[0] * groups, outputs, prod(dy.shape[2:]))

    def rows(self, dy: Tensor) -> int:
        """Batch times positions of ``dy`` [batch, *positions, out] or [batch, out, *positions], of any dtype: the
        contraction of WU."""
        return dy.numel() // (dy.shape[1] if self.kind.convolution else dy.shape[-1])

    def along_rows(self, dy: Tensor, group: int, make: Callable[[Tensor, View], Tensor]) -> Tensor:
        """``make`` on the gradient of the output with the groups of WU (along batch and positions) in the middle.

        ``dy`` and the result: [batch, *positions, out], of a convolution [batch, out, *positions]; of any dtype.
        """
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
        """W_ff or W_bp, stored like the weight, of any shape, in the dtype of the GEMM: ``dtype``, or that of the last
        one. Of FP8 they are float32, numbers of E4M3 times a scale.

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
        dense = self.weight.detach()
        dense = rounded(dense, dtype) if dtype is FORWARD else dense.to(dtype)
        if pass_ == Pass.FF:
            self.scale, self.planes = None, ()
            made = self.technique.forward_weight(self, dense) if Pass.FF in self.passes else dense
        else:
            ff = self.operand(Pass.FF, dtype)
            made = self.technique.backward_weight(self, dense, ff) if Pass.BP in self.passes else ff
        if self.used is None and pass_ == self.watched:
            self.used = made
            self.initial = self.technique.marks(made) if self.initial is None else self.initial
        return made

    @property
    def watched(self) -> Pass | None:
        """The pass whose weights are watched for flips: FF, or BP where FF is dense."""
        return next((p for p in (Pass.FF, Pass.BP) if p in self.passes), None)


def short_runs(layer: SparseLayer, passes: frozenset[Pass], group: int) -> dict[Pass, str]:
    """Why N:M groups of ``group`` do not fit the contraction of some of ``passes``; the words of the annotation.

    The contraction of WU depends on the batch: a batch shorter than one group is kept whole.
    """
    found = {p: layer.run(p) for p in (Pass.FF, Pass.BP) if p in passes}
    reasons: dict[Pass, str] = {p: short_run(run, group) for p, run in found.items() if run < group}
    if Pass.WU in passes and layer.kind.convolution and layer.kind.inputs_first:
        reasons[Pass.WU] = EXPANDED
    return reasons
