"""Schemes of few values: which levels the operands of each pass have; importing this must not import torch."""

from __future__ import annotations

from ..gemm import Pass
from ..levels import Levels
from ..operand import Role
from ..sparsity import NMPattern
from .description import FIRST_LAYER, LAST_LAYER, Phase, Scheme
from .vector_work import ScaleOf, VectorWork

__all__ = ["BIPER_REAL", "FEW"]

BIPER_REAL = "biper-real"
"""The first stage of ``biper``, by itself."""

_W, _X = Role.WEIGHT, Role.ACTIVATION
_ENDS = (FIRST_LAYER, LAST_LAYER)
_HEAD = (LAST_LAYER,)
_BINARY = {Pass.FF: {_W: Levels.BINARY, _X: Levels.BINARY}, Pass.BP: {_W: Levels.BINARY}, Pass.WU: {_X: Levels.BINARY}}
_TERNARY = {Pass.FF: {_W: Levels.TERNARY, _X: Levels.INT8}, Pass.BP: {_W: Levels.TERNARY}, Pass.WU: {_X: Levels.INT8}}
_EIGHT = {Pass.FF: {_W: Levels.INT8, _X: Levels.INT8}, Pass.BP: {_W: Levels.INT8}, Pass.WU: {_X: Levels.INT8}}
_SIGNS = VectorWork(norm=True)
"""Of activations, whose gradient is one of its own."""
_OF_FILTER = {_W: VectorWork(scale=ScaleOf.FILTER), _X: _SIGNS}
_OF_LAYER = {_W: VectorWork(scale=ScaleOf.LAYER, gradient=2), _X: _SIGNS}  # dW has a sum over the layer in it
_SINE = {_W: VectorWork(scale=ScaleOf.CONSTANT), _X: _SIGNS}
_BYTES = VectorWork(norm=True, looks=1, scale=ScaleOf.ROW, gradient=0)
_BY_MEAN = {_W: VectorWork(looks=1, scale=ScaleOf.LAYER, gradient=0), _X: _BYTES}
# The middle of 2^16 numbers: their upper bytes are counted, then the lower ones of those that have its upper one.
_BY_MEDIAN = {_W: VectorWork(looks=2, scale=ScaleOf.LAYER, gradient=0), _X: _BYTES}
_ROUNDED = {
    _W: VectorWork(looks=1, scale=ScaleOf.FILTER, gradient=0),
    _X: VectorWork(looks=1, scale=ScaleOf.ROW, gradient=0),
}
_BY_MEAN_FIRES = {_W: _BY_MEAN[_W], _X: _SIGNS}
_SPIKING = {Pass.FF: {_W: Levels.TERNARY, _X: Levels.SPIKE}, Pass.BP: {_W: Levels.TERNARY}, Pass.WU: {_X: Levels.SPIKE}}
_SIGN = "sign of weights behind the update, of activations online"


def two_stages(pattern: NMPattern | None, *, real: float = 2 / 3) -> tuple[Phase, ...]:
    """BiPer: real weights first, for 600 of 900 epochs of CIFAR-10, then their signs."""
    return (
        Phase(share=real, scheme=BIPER_REAL, pattern=pattern),
        Phase(share=1.0 - real, scheme="biper", pattern=pattern),
    )


FEW: tuple[Scheme, ...] = (
    Scheme(
        name="xnor",
        title="XNOR-Net: binary weights and activations, clipped straight-through gradient",
        levels=_BINARY,
        full_precision=_ENDS,
        vector_work=_OF_FILTER,
        technique="binary.XnorNet",
        paper="Rastegari et al., ECCV 2016, arXiv 1603.05279",
        unit=f"{_SIGN}; mean |W| of a filter",
        recalled="its equations; norm in front of the sign is one without parameters",
    ),
    Scheme(
        name="bireal",
        title="Bi-Real Net: binary, gradient of two parabolas",
        levels=_BINARY,
        full_precision=_ENDS,
        vector_work=_OF_FILTER,
        technique="binary.BiReal",
        paper="Liu et al., ECCV 2018, arXiv 1808.00278, repository liuzechun/Bi-Real-net",
        unit=f"{_SIGN}; mean |W| of a filter",
        recalled="number of the paper; shortcuts are the model's; norm in front of the sign",
    ),
    Scheme(
        name="mst",
        title="Bi-Real Net, channels pulled together along their spanning tree",
        levels=_BINARY,
        full_precision=_ENDS,
        vector_work=_OF_FILTER,
        technique="spanning.Mst",
        paper="idea of Vo et al., ICCV 2023, arXiv 2308.13735",
        unit=f"{_SIGN}; mean |W| of a filter; host: spanning trees",
        recalled="as bireal; the term is ours, the paper's is not public in its exact form",
    ),
    Scheme(
        name="reste",
        title="ReSTE: binary, gradient of a root whose order grows",
        levels=_BINARY,
        full_precision=_ENDS,
        vector_work=_OF_LAYER,
        technique="binary.ReSte",
        paper="Wu et al., ICCV 2023, arXiv 2308.06689, repository DravenALG/ReSTE",
        unit=f"{_SIGN}; mean |W| of a layer",
        recalled="number of the paper; order by steps instead of epochs; norm in front of the sign",
    ),
    Scheme(
        name=BIPER_REAL,
        title="BiPer, first stage: weights sin(w W), binary activations",
        levels={Pass.FF: {_X: Levels.BINARY}, Pass.WU: {_X: Levels.BINARY}},
        full_precision=_ENDS,
        vector_work=_SINE,
        technique="binary.BiPer",
        paper="Vargas et al., CVPR 2024, arXiv 2404.01278, repository edmav4/BiPer",
        unit="sine of weights behind the update; sign of activations online",
        recalled="1 / sqrt(n) for its learned scale; norm in front of the sign",
    ),
    Scheme(
        name="biper",
        title="BiPer: binary weights by the sign of a sine, after a stage with the sine",
        levels=_BINARY,
        full_precision=_ENDS,
        vector_work=_SINE,
        technique="binary.BiPer",
        paper="Vargas et al., CVPR 2024, arXiv 2404.01278, repository edmav4/BiPer",
        unit="sign of a sine of weights behind the update; sign of activations online",
        recalled="1 / sqrt(n) for its learned scale; one learning rate over both stages; norm in front of the sign",
        schedule=two_stages,
    ),
    Scheme(
        name="bitnet",
        title="BitNet b1.58: ternary weights by their mean, activations of 8 bits",
        levels=_TERNARY,
        full_precision=_HEAD,
        vector_work=_BY_MEAN,
        technique="ternary.BitNet",
        paper="Ma et al., arXiv 2402.17764",
        unit="rounding behind the update and online; mean |W| of a layer, largest |x| of a token",
        recalled="bias unscaled; in a convolution a token is an image",
    ),
    Scheme(
        name="bitnet-median",
        title="BitNet b1.58 Reloaded: ternary weights by their median, activations of 8 bits",
        levels=_TERNARY,
        full_precision=_HEAD,
        vector_work=_BY_MEDIAN,
        technique="ternary.BitNetMedian",
        paper="Nielsen and Schneider-Kamp, arXiv 2407.09527, repository schneiderkamplab/bitlinear",
        unit="rounding behind the update and online; median |W| of a layer, largest |x| of a token",
        recalled="bias unscaled; in a convolution a token is an image; without the ramp of lambda",
    ),
    Scheme(
        name="integer",
        title="integers: weights of 8 bits, or fewer by layer, activations of 8 bits",
        levels=_EIGHT,
        vector_work=_ROUNDED,
        technique="integer.Integer",
        paper="HAWQ-V3, arXiv 2011.10680, repository Zhen-Dong/HAWQ",
        unit="rounding behind the update and online; largest |W| of a filter, largest |x| of a token",
        recalled="its range of activations is a running one; in a convolution a token is an image",
    ),
    Scheme(
        name="spiking",
        title="spiking: ternary weights, activations of 0 and 1, gradient of a triangle",
        levels=_SPIKING,
        full_precision=_ENDS,
        vector_work=_BY_MEAN_FIRES,
        technique="spiking.Spiking",
        paper="Chowdhury, Rathi and Roy, arXiv 2110.05929, repository SayeedChowdhury/IIR-SNN",
        unit="rounding behind the update, thresholds online; mean |W| of a layer",
        recalled="number of the paper; ternary weights are not the paper's; no conversion of a trained network first",
    ),
)
