"""Schemes of few values for transformers: the levels of their layers and of the parts of their attention.

Importing this must not import torch.
"""

from __future__ import annotations

from ..gemm import Pass
from ..levels import Levels
from ..operand import Role
from .attention import Part
from .description import FIRST_LAYER, LAST_LAYER, Scheme
from .vector_work import ScaleOf, VectorWork

__all__ = ["FEW_ATTENTION"]

_W, _X = Role.WEIGHT, Role.ACTIVATION
_BINARY = {Pass.FF: {_W: Levels.BINARY, _X: Levels.BINARY}, Pass.BP: {_W: Levels.BINARY}, Pass.WU: {_X: Levels.BINARY}}
_TERNARY = {
    Pass.FF: {_W: Levels.TERNARY, _X: Levels.TERNARY},
    Pass.BP: {_W: Levels.TERNARY},
    Pass.WU: {_X: Levels.TERNARY},
}
_BINARY_ATTENTION = {
    Part.QUERY: Levels.BINARY,
    Part.KEY: Levels.BINARY,
    Part.MAP: Levels.SPIKE,
    Part.VALUE: Levels.BINARY,
}
_TBT = "Liu et al., ACL 2023, arXiv 2306.01841, repository facebookresearch/Ternary_Binary_Transformer"

_LEARNED = {Role.WEIGHT: VectorWork(scale=ScaleOf.FILTER, gradient=1), Role.ACTIVATION: VectorWork(norm=True)}
_SIGNS = {
    Role.WEIGHT: VectorWork(scale=ScaleOf.FILTER, gradient=0),
    Role.ACTIVATION: VectorWork(norm=True, scale=ScaleOf.ROW),
}
_ROUNDED = {
    Role.WEIGHT: VectorWork(looks=1, scale=ScaleOf.FILTER, gradient=0),
    Role.ACTIVATION: VectorWork(norm=True, looks=1, scale=ScaleOf.ROW),
}

FEW_ATTENTION: tuple[Scheme, ...] = (
    Scheme(
        name="bivit",
        title="BiViT: binary, maps of attention by a share of the maximum of their row",
        levels=_BINARY,
        attention=_BINARY_ATTENTION,
        full_precision=(FIRST_LAYER, LAST_LAYER),
        vector_work=_LEARNED,
        technique="bivit.BiVit",
        paper="He et al., ICCV 2023, arXiv 2211.07091",
        unit="signs; maximum of a row of the map online; learned scale of a filter",
        recalled="formulas of the threshold (prose read), its share 1/4 from another's notes; both stages at once; "
        "without distillation; norm in front of the sign",
    ),
    Scheme(
        name="tbt-binary",
        title="binary transformer of language generation: weights, activations and attention",
        levels=_BINARY,
        attention=_BINARY_ATTENTION,
        full_precision=(LAST_LAYER,),
        vector_work=_SIGNS,
        technique="language.BinaryTransformer",
        paper=_TBT,
        unit="signs; mean |W| of a filter, mean |x| of a token",
        recalled="steps of activations by means of rows, not learned; embeddings whole; without distillation; "
        "norm in front of the sign",
    ),
    Scheme(
        name="tbt-ternary",
        title="ternary transformer of language generation: weights and activations; maps of 0 and 1",
        levels=_TERNARY,
        attention={**_BINARY_ATTENTION, Part.QUERY: Levels.TERNARY, Part.KEY: Levels.TERNARY},
        full_precision=(LAST_LAYER,),
        vector_work=_ROUNDED,
        technique="language.TernaryTransformer",
        paper=_TBT,
        unit="rounding; mean |W| of a filter, mean |x| of a token",
        recalled="as tbt-binary; maps of two values and values by their signs, both of three there",
    ),
)
