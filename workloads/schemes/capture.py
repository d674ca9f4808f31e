"""The GEMMs of a real training step as the machine reads them: FP16 matrices, what is kept, PyTorch's own result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..gemm import Pass
from ..im2col import Window, fold, unfold
from ..operand import Role
from ..sparsity import NMPattern
from .annotate import FIRST_CONVOLUTION
from .layer import Observed, SparseLayer
from .layers import ATTRIBUTE, find_layers, install, uninstall
from .masks import CompactWeight
from .scheme import scheme
from .technique import Technique
from .three_gemms import made_again

__all__ = ["StepGemm", "StepProduct", "observed"]

Half = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepProduct:
    """C[m, n] = A[m, k] B[k, n] of one convolution group; ``b`` is the operand that is N:M, if one is.

    ``kept`` bool [k, n] is where the technique keeps ``b``; ``run`` is the length of the contraction runs that groups
    do not cross. ``unsorted`` [k, n] is what the machine's online compressor reads to make ``b``: dY itself where the
    technique only selects; ``b`` where it also scales. ``swapped``: C is the transposed result of the layer's GEMM.
    ``compact``: the weight as :meth:`.technique.Technique.compacted` packs it for the machine.
    """

    a: Half
    b: Half
    run: int
    kept: npt.NDArray[np.bool_] | None
    unsorted: Half | None
    swapped: bool
    compact: tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepGemm:
    """One pass of one layer in the step, all convolution groups.

    ``pattern`` and ``role``: of the N:M operand, None where the GEMM is dense. ``left`` and ``right``: X and W in FF,
    dY and W in BP, dY and X in WU; data as [samples, channels, *positions], weights as [groups, out, in, taps]; as the
    technique left them. ``dy``: what the technique selected from; None where it also scales. ``found``: what PyTorch's
    own kernel makes of the same FP16 operands in FP32, without bias. ``magnitude``: the same of their absolute values,
    in FP64.
    """

    layer: str
    pass_: Pass
    pattern: NMPattern | None
    role: Role | None
    left: Half
    right: Half
    dy: Half | None
    window: Window
    transposed: bool
    groups: int
    order: npt.NDArray[np.int64] | None
    compact: CompactWeight | None
    found: npt.NDArray[np.float32] = field(repr=False)
    magnitude: npt.NDArray[np.float64] = field(repr=False)

    @property
    def gathers(self) -> bool:
        """The expanded image is multiplied by the weight; otherwise the product is what an image is folded from."""
        return self.pass_ == (Pass.BP if self.transposed else Pass.FF)

    def products(self) -> Iterator[StepProduct]:
        """The products of the convolution groups; of equal sizes (``workloads/convolution.py``)."""
        return (self._product(group) for group in range(self.groups))

    def _product(self, group: int) -> StepProduct:
        if self.pass_ == Pass.WU:
            return self._weight_gradient(group)
        data, weight = self._channels(self.left, group), self.right[group]
        raw = self._channels(self.dy, group) if self.dy is not None else data
        if self.order is not None:
            data, raw, weight = data[:, self.order], raw[:, self.order], weight[self.order]
        if self.transposed:
            weight = weight.swapaxes(0, 1)
        outer, inner, taps = weight.shape
        # In FF the channels of the contraction are the inputs, in BP the outputs: the inner ones of a weight where the
        # image is expanded, the outer ones where it is folded.
        if self.gathers:
            a, run = self._rows(data), inner
            b = weight.transpose(2, 1, 0).reshape(taps * inner, outer)
        else:
            a, run = self._rows(data), outer
            b = weight.reshape(outer, inner * taps)
        if self.role == Role.WEIGHT:
            pairs = None if self.compact is None else (self.compact.values[group], self.compact.indices[group])
            return _made(a, b, run, kept=b != 0, compact=pairs)
        if self.role == Role.GRADIENT:
            return _made(b.T, a.T, run, kept=a.T != 0, unsorted=self._rows(raw).T, swapped=True)
        return _made(a, b, run)

    def _weight_gradient(self, group: int) -> StepProduct:
        gradient, x = (self._channels(operand, group) for operand in (self.left, self.right))
        rows, image = (x, gradient) if self.transposed else (gradient, x)
        a = _positions_first(rows).T
        by_tap = unfold(image, self.window)
        b = by_tap.swapaxes(1, 2).reshape(len(by_tap), -1)
        if self.role == Role.GRADIENT:
            raw = _positions_first(self._channels(self.left if self.dy is None else self.dy, group))
            return _made(b.T, a.T, a.shape[1], kept=a.T != 0, unsorted=raw, swapped=True)
        return _made(a, b, a.shape[1])

    def _rows(self, data: Half) -> Half:
        if not self.gathers:
            return _positions_first(data)
        columns = unfold(data, self.window)
        return columns.reshape(len(columns), -1)

    def _channels(self, data: Half, group: int) -> Half:
        size = data.shape[1] // self.groups
        return data[:, group * size : (group + 1) * size]

    def result(self, products: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """The layer's result, shaped like ``found``, of C of every group, transposed back if it was ``swapped``.

        What a folded image adds up is added in FP32, in the order of the taps.
        """
        if self.pass_ == Pass.WU:
            return np.concatenate(products).reshape(self.found.shape)
        if self.gathers:
            joined = np.concatenate(products, axis=1)
            by_position = joined.reshape(self.found.shape[0], -1, joined.shape[1])
            return np.ascontiguousarray(by_position.swapaxes(1, 2)).reshape(self.found.shape)
        taps = self.window.taps
        images = [fold(c.reshape(len(c), -1, taps).swapaxes(1, 2), self.window) for c in products]
        return np.concatenate(images, axis=1).reshape(self.found.shape)

    @property
    def terms(self) -> int:
        """Most products that one element of the result adds up."""
        if self.pass_ == Pass.WU:
            rows = self.right if self.transposed else self.left
            return int(rows.size // rows.shape[1])
        return int(self.left.shape[1] // self.groups * self.window.taps)


def _positions_first(data: Half) -> Half:
    return np.moveaxis(data, 1, -1).reshape(-1, data.shape[1])


def _made(
    a: Half, b: Half, run: int, *, kept: Any = None, unsorted: Any = None, swapped: bool = False, compact: Any = None
) -> StepProduct:
    return StepProduct(
        a=np.ascontiguousarray(a),
        b=np.ascontiguousarray(b),
        run=run,
        kept=None if kept is None else np.ascontiguousarray(kept),
        unsorted=None if unsorted is None else np.ascontiguousarray(unsorted),
        swapped=swapped,
        compact=compact,
    )


@contextmanager
def observed(model: nn.Module, technique: Technique) -> Iterator[tuple[list[StepGemm], dict[str, str]]]:
    """Write down the GEMMs that ``model`` makes meanwhile; yields them in order, and why layers are left out.

    Layers that the technique leaves alone are shown too: they work through the same three GEMMs, all of them dense.
    The operands must be FP16, as under autocast.
    """
    found: list[StepGemm] = []
    left_out: dict[str, str] = {}
    guests: list[SparseLayer] = []
    for name, module, kind, reason in find_layers(model):
        if ATTRIBUTE in module.__dict__:
            continue
        if kind is None or reason not in ("", FIRST_CONVOLUTION):
            left_out[name or "the model"] = reason
        else:
            guests.append(SparseLayer(name, module, kind, technique))
    try:
        for layer in guests:
            install(layer)
        for layer in [*technique.layers.values(), *guests]:
            layer.observer = lambda seen: found.append(_captured(seen, technique))
        yield found, left_out
    finally:
        for layer in guests:
            uninstall(layer)
        for layer in technique.layers.values():
            layer.observer = None


@torch.no_grad()
def _captured(seen: Observed, technique: Technique) -> StepGemm:
    layer, pass_, convolution = seen.layer, seen.pass_, seen.layer.kind.convolution
    if {seen.left.dtype, seen.right.dtype} != {torch.float16}:
        raise InputError(
            f"operands of {layer.name} in {pass_} are {seen.left.dtype} and {seen.right.dtype}, but the machine reads "
            "torch.float16"
        )
    left, right = seen.left.detach().float(), seen.right.detach().float()
    found = made_again(seen, left, right)
    magnitude = made_again(seen, left.double().abs(), right.double().abs())
    role = _role(layer, technique, pass_, right if pass_ == Pass.WU else left)
    weight = pass_ != Pass.WU
    transposed = convolution and layer.kind.inputs_first
    # A transposed convolution multiplies in FF as another does in BP, so compact() orders its columns otherwise.
    compact = technique.compacted(layer, pass_, seen.right) if role == Role.WEIGHT and not transposed else None
    order = technique.channel_order(layer) if role == Role.WEIGHT and pass_ == Pass.BP else None
    return StepGemm(
        layer=layer.name,
        pass_=pass_,
        pattern=technique.nm() if role else None,
        role=role,
        left=_data(layer, seen.left),
        right=_half(layer.canonical(seen.right)) if weight else _data(layer, seen.right),
        dy=None if seen.dy is None or pass_ in technique.scales else _data(layer, seen.dy),
        window=_window(seen, found),
        transposed=transposed,
        groups=layer.conv_groups,
        order=order,
        compact=compact,
        found=_result(layer, pass_, found).numpy(),
        magnitude=_result(layer, pass_, magnitude).numpy(),
    )


def _role(layer: SparseLayer, technique: Technique, pass_: Pass, data: Tensor) -> Role | None:
    if pass_ not in layer.passes or technique.pattern is None:
        return None
    role = scheme(technique.phase.scheme).sparse.get(pass_)
    if pass_ == Pass.WU and layer.rows(data) < technique.pattern.group:
        return None
    return role


def _window(seen: Observed, found: Tensor) -> Window:
    if seen.conv is None:
        return Window()
    stride, padding, dilation, transposed, *_ = seen.conv
    kernel = tuple(seen.layer.weight.shape[2:])
    if not transposed:
        image = seen.shape
    elif seen.pass_ == Pass.FF:
        image = found.shape
    else:
        image = seen.left.shape
    return Window(
        image=tuple(image[2:]), kernel=kernel, stride=tuple(stride), padding=tuple(padding), dilation=tuple(dilation)
    )


def _data(layer: SparseLayer, x: Tensor) -> Half:
    return _half(x if layer.kind.convolution else x.reshape(-1, x.shape[-1]))


def _half(x: Tensor) -> Half:
    made: Half = x.detach().cpu().contiguous().numpy()
    # An optimizer changes weights in place.
    return made.copy()


def _result(layer: SparseLayer, pass_: Pass, found: Tensor) -> Tensor:
    if layer.kind.convolution:
        return found.detach().cpu().contiguous()
    if pass_ == Pass.WU:
        return layer.canonical(found)[0, :, :, 0].detach().cpu().contiguous()
    return found.reshape(-1, found.shape[-1]).detach().cpu()
