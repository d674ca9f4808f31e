"""Schemes of large models and of their residues: weights that are sums of planes; importing this must not import torch.

Where activations are real, every plane is a product of the STCE, which takes as long as a dense one: what shrinks is
memory. The forms with int8 activations are this project's, so that the XNOR engine can take the planes.
"""

from __future__ import annotations

from ..gemm import Pass
from ..levels import Levels
from ..operand import Role
from .description import FIRST_LAYER, LAST_LAYER, Scheme, dense_until
from .vector_work import ScaleOf, VectorWork

__all__ = ["SUMS"]

_W, _X = Role.WEIGHT, Role.ACTIVATION
_HEAD = (LAST_LAYER,)
_REAL: dict[Pass, dict[Role, Levels]] = {Pass.FF: {}}
_INT8 = {Pass.FF: {_X: Levels.INT8}, Pass.WU: {_X: Levels.INT8}}
_INT4 = {Pass.FF: {_X: Levels.INT4}, Pass.WU: {_X: Levels.INT4}}
# The ternary plane is 0 exactly where a weight is salient, so its mask is the bitmap of these; their own plane has a
# value for every weight, as an operand of the machine has no form for what follows no pattern.
_PARTIAL = (Levels.TERNARY, Levels.INT8)
_CENTRED = (Levels.SPIKE, Levels.SPIKE, Levels.INT8)
_DUAL = (Levels.SPIKE, Levels.SPIKE)
_BASES = (Levels.BINARY, Levels.BINARY)
_BINARY = {Pass.FF: {_W: Levels.BINARY, _X: Levels.BINARY}, Pass.BP: {_W: Levels.BINARY}, Pass.WU: {_X: Levels.BINARY}}
_AS_IT_IS = VectorWork(gradient=0)
"""Of real activations, which nothing is done with."""
_WORK = {
    "pb-llm": {_W: VectorWork(scale=ScaleOf.FILTER), _X: _AS_IT_IS},
    "pb-llm-mean": {_W: VectorWork(looks=1, scale=ScaleOf.FILTER), _X: _AS_IT_IS},
    # Its gradient has sums of dW' in it, for the scales of both planes.
    "db-llm": {_W: VectorWork(scale=ScaleOf.FILTER, gradient=2), _X: _AS_IT_IS},
    "binarydm": {_W: VectorWork(looks=1, scale=ScaleOf.FILTER), _X: VectorWork(norm=True, looks=1, scale=ScaleOf.ROW)},
    "bipft": {_W: VectorWork(looks=1, scale=ScaleOf.LAYER, gradient=0), _X: VectorWork(norm=True, scale=ScaleOf.ROW)},
}
_BYTES = VectorWork(looks=1, scale=ScaleOf.ROW, gradient=0)
_PB_LLM = "Shang et al., arXiv 2310.00034, repository hahnyuan/PB-LLM"
_DB_LLM = "Chen et al., arXiv 2402.11960"

SUMS: tuple[Scheme, ...] = (
    Scheme(
        name="pb-llm",
        title="PB-LLM: salient weights in 8 bits and frozen, the others binary; real activations",
        levels=_REAL,
        planes=_PARTIAL,
        full_precision=_HEAD,
        vector_work=_WORK["pb-llm"],
        technique="partial.PbLlm",
        paper=_PB_LLM,
        refresh="signs every step; salient weights once",
        unit="sign of weights behind the update; mean |W| of a layer; host: the salient weights",
        recalled="8 bits symmetric; a dense start for its pre-trained model",
        schedule=dense_until("pb-llm", 0.5),
    ),
    Scheme(
        name="pb-llm-int8",
        title="PB-LLM under activations of 8 bits a token",
        levels=_INT8,
        planes=_PARTIAL,
        full_precision=_HEAD,
        vector_work={**_WORK["pb-llm"], _X: _BYTES},
        technique="partial.PbLlmBytes",
        paper=_PB_LLM,
        refresh="signs every step; salient weights once",
        unit="as pb-llm; rounding online, largest |x| of a token",
        recalled="activations are this project's",
        schedule=dense_until("pb-llm-int8", 0.5),
    ),
    Scheme(
        name="pb-llm-mean",
        title="PB-LLM with the binary weights around the mean of their filter; real activations",
        levels=_REAL,
        planes=_CENTRED,
        full_precision=_HEAD,
        vector_work=_WORK["pb-llm-mean"],
        technique="partial.PbLlmMean",
        paper=_PB_LLM,
        refresh="signs every step; salient weights once",
        unit="sign of weights behind the update; two means of a filter; host: the salient weights",
        recalled="8 bits symmetric; trained on, without its error feedback",
        schedule=dense_until("pb-llm-mean", 0.5),
    ),
    Scheme(
        name="db-llm",
        title="DB-LLM: weights of two planes of 0 and 1 with a learned scale each; real activations",
        levels=_REAL,
        planes=_DUAL,
        full_precision=_HEAD,
        vector_work=_WORK["db-llm"],
        technique="bases.DbLlm",
        paper=_DB_LLM,
        unit="two thresholds of weights behind the update",
        recalled="all of it; without distillation",
        schedule=dense_until("db-llm", 0.5),
    ),
    Scheme(
        name="db-llm-int8",
        title="DB-LLM under activations of 8 bits a token",
        levels=_INT8,
        planes=_DUAL,
        full_precision=_HEAD,
        vector_work={**_WORK["db-llm"], _X: _BYTES},
        technique="bases.DbLlmBytes",
        paper=_DB_LLM,
        unit="as db-llm; rounding online, largest |x| of a token",
        recalled="all of it; activations are this project's",
        schedule=dense_until("db-llm-int8", 0.5),
    ),
    Scheme(
        name="binarydm",
        title="BinaryDM: weights of two binary bases, activations of 4 bits",
        levels=_INT4,
        planes=_BASES,
        full_precision=(FIRST_LAYER, LAST_LAYER),
        vector_work=_WORK["binarydm"],
        technique="bases.BinaryDm",
        paper="Zheng et al., arXiv 2404.05662, repository Xingyu-Zheng/BinaryDM",
        unit="two signs of weights behind the update, two means of a filter; rounding online, mean |x| of a row",
        recalled="scales and steps as theirs begin, not learned; shortcuts are the model's; no mimicking",
    ),
    Scheme(
        name="bipft",
        title="BiPFT, its layers: binary weights around their mean, binary activations",
        levels=_BINARY,
        full_precision=(FIRST_LAYER, LAST_LAYER),
        vector_work=_WORK["bipft"],
        technique="bipft.BiPft",
        paper="Xing et al., AAAI 2024, arXiv 2312.08937, repository Xingrun-Xing/BiPFT",
        unit="sign of weights behind the update, of activations online; means of a layer and of a row",
        recalled="scale of activations as theirs begins, not learned; the estimators of the residue are the model's",
    ),
)
