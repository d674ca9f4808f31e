"""A network of integers on the XNOR engine of a machine, stepped: every sum, every bit, the cycles of every layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.constraint import Constraint
from ..dataflow.objective import Objective
from ..dataflow.placement import Placement
from ..dataflow.xnor.engine import Xnor
from ..dataflow.xnor.mapping import XnorMapping, require_xnor
from ..workloads.gemm import Pass
from ..workloads.integer_network import Forward, IntegerLayer, IntegerNetwork, Made, Norm
from ..workloads.levels import Levels
from ..workloads.one_line import OneLine
from ..workloads.operand import Operand, Role
from ..workloads.step import MatrixOp
from .xnor import run_xnor
from .xnor_edge import Threshold, fold, signs

__all__ = ["LayerRun", "NetworkRun", "Observe", "run_network", "threshold_of"]

Bytes = npt.NDArray[np.int8]
_AS_TRAINED = Constraint(n2s="b")
"""Weights flow N2S: a channel is a column, and has the threshold of its column."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class LayerRun(OneLine):
    """The product of a layer: ``placement`` with buffers and DRAM, ``array`` cycles as stepped, operands at hand."""

    layer: IntegerLayer
    images: int
    placement: Placement
    mapping: XnorMapping
    threshold: Threshold | None
    array: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NetworkRun(OneLine):
    """Images through a network in one batch."""

    forward: Forward
    layers: tuple[LayerRun, ...]

    @property
    def cycles(self) -> int:
        """Of all layers, one after the other, with buffers and DRAM."""
        return sum(run.placement.cycles.total for run in self.layers)

    def _said(self) -> str:
        return f"{len(self.forward.scores):,} images through {len(self.layers)} layers: {self.cycles:,} cycles"


Observe = Callable[[LayerRun, Bytes, Made], None]
"""Is shown every product: the layer, its inputs [m, k] int8, and what the stepped engine makes of them."""


def run_network(
    spec: AcceleratorSpec, network: IntegerNetwork, pixels: npt.NDArray[np.uint8], observe: Observe | None = None
) -> NetworkRun:
    """Step the layers on images uint8 [images, channels, height, width], all in one batch."""
    own, runs = require_xnor(spec), list[LayerRun]()
    engine = Xnor(spec, own)

    def product(layer: IntegerLayer, a: Bytes) -> tuple[Made, npt.NDArray[np.bool_]]:
        last = layer is network.layers[-1]
        op = _op(layer, len(pixels), last=last)
        placement = engine.place(op, Objective.THRIFT, wanted=_AS_TRAINED)
        mapping = placement.mapping.array
        assert isinstance(mapping, XnorMapping), "the XNOR engine places on itself"
        ran = run_xnor(spec, mapping, a, layer.weights, layer.levels, run=op.gemm.run)
        threshold = None if last else threshold_of(layer)
        none = np.zeros(op.gemm.n, np.bool_)
        passed = np.zeros(ran.result.shape, np.bool_) if threshold is None else signs(ran.result, threshold)
        made = Made(ran.result, passed)
        runs.append(
            LayerRun(
                layer=layer,
                images=len(pixels),
                placement=placement,
                mapping=mapping,
                threshold=threshold,
                array=ran.length,
            )
        )
        if observe is not None:
            observe(runs[-1], a, made)
        return made, none if threshold is None else threshold.flip

    forward = network.run(pixels, product)
    return NetworkRun(forward=forward, layers=tuple(runs))


def threshold_of(layer: IntegerLayer) -> Threshold:
    """Scale, bias, batch norm and sign of a layer as one comparison a channel."""
    zeros, ones = np.zeros_like(layer.scale), np.ones_like(layer.scale)
    itself = Norm(gamma=ones, beta=zeros, mean=zeros, variance=ones, epsilon=0.0)
    return fold(layer.norm or itself, layer.scale, layer.bias)


def _op(layer: IntegerLayer, images: int, *, last: bool) -> MatrixOp:
    """The product as an engine is asked for it: results are bits, of the last layer whole sums."""
    gemm, image = layer.gemm(images), layer.window.image
    elements = gemm.m * gemm.k
    if image:
        elements = images * layer.channels * int(np.prod(image))
    x, w = layer.levels
    out = (
        Operand(role=Role.ACTIVATION, dtype="int32", bytes=4 * gemm.m * gemm.n)
        if last
        else Operand(role=Role.ACTIVATION, dtype="int8", bytes=gemm.m * gemm.n, levels=Levels.BINARY)
    )
    return MatrixOp(
        name=layer.name,
        op="integer",
        pass_=Pass.FF,
        gemm=gemm,
        a=Operand(role=Role.ACTIVATION, dtype="int8", bytes=elements, levels=x),
        b=Operand(role=Role.WEIGHT, dtype="int8", bytes=layer.weights.size, levels=w),
        c=out,
        parameter=f"{layer.name}.weight",
        convolution=bool(image),
    )
