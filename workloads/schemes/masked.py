"""Schemes of masks without a pattern, one for FF and BP; importing this must not import torch."""

from __future__ import annotations

from collections.abc import Callable

from ..gemm import Pass
from ..operand import Role
from ..sparsity import NMPattern
from .description import Phase, Scheme, dense_until

__all__ = ["MASKED"]

_BOTH = {Pass.FF: Role.WEIGHT, Pass.BP: Role.WEIGHT}


def _tickets(name: str, back: float) -> Callable[..., tuple[Phase, ...]]:
    """Schedule of lottery tickets: the first of its trainings, ``rewind`` of which the others leave out, is dense."""

    def schedule(pattern: NMPattern | None, *, rounds: int = 4, rewind: float = back) -> tuple[Phase, ...]:
        first = 1.0 / (1.0 + rounds * (1.0 - rewind))
        return (
            Phase(share=first, scheme="dense", pattern=None),
            Phase(share=1.0 - first, scheme=name, pattern=pattern),
        )

    return schedule


MASKED: tuple[Scheme, ...] = (
    Scheme(
        name="gmp",
        title="gradual magnitude pruning",
        unstructured=_BOTH,
        technique="dynamic.GradualMagnitude",
        paper="Zhu and Gupta, arXiv 1710.01878",
        refresh="every 100 steps",
        unit="host",
        recalled="period",
    ),
    Scheme(
        name="set",
        title="SET: drop by magnitude, grow at random",
        unstructured=_BOTH,
        technique="dynamic.Set",
        paper="Mocanu et al., Nature Communications 2018, doi 10.1038/s41467-018-04316-3",
        refresh="every 100 steps",
        unit="host",
    ),
    Scheme(
        name="rigl",
        title="RigL: drop by magnitude, grow by gradient",
        unstructured=_BOTH,
        technique="dynamic.RigL",
        paper="Evci et al., ICML 2020, arXiv 1911.11134, repository google-research/rigl",
        refresh="every 100 steps, from a dense dW",
        unit="host",
        recalled="cosine of the share dropped",
    ),
    Scheme(
        name="granet",
        title="GraNet: gradual global pruning with regrowth",
        unstructured=_BOTH,
        technique="dynamic.GraNet",
        paper="Liu et al., NeurIPS 2021, arXiv 2106.10404, repository VITA-Group/GraNet",
        refresh="every 100 steps, from a dense dW",
        unit="host",
    ),
    Scheme(
        name="erk",
        title="random mask with Erdos-Renyi-kernel densities",
        unstructured=_BOTH,
        technique="unstructured.Erk",
        refresh="never",
        unit="host",
        paper="Liu et al., ICLR 2022, arXiv 2202.02643; Evci et al., arXiv 1911.11134",
    ),
    Scheme(
        name="sparse-ift",
        title="Sparse-IFT: wider layers of the same operations under RigL",
        unstructured=_BOTH,
        technique="dynamic.SparseWide",
        paper="Thangarasa et al., ICML 2024, arXiv 2303.11525",
        refresh="every 100 steps, from a dense dW",
        unit="host",
        recalled="widths times sqrt(1 / (1 - s))",
        wide=True,
    ),
    Scheme(
        name="sparcl",
        title="SparCL: dynamic weight masks, largest gradients only",
        unstructured=_BOTH,
        technique="dynamic.SparCl",
        paper="Wang et al., NeurIPS 2022, arXiv 2209.09476, repository neu-spiral/SparCL",
        refresh="every 100 steps; gradients every step",
        unit="host",
        recalled="without replay buffer and data removal",
    ),
    Scheme(
        name="lottery",
        title="lottery tickets: prune by magnitude, set back, train again",
        unstructured=_BOTH,
        technique="tickets.Lottery",
        paper="Frankle and Carbin, ICLR 2019, arXiv 1803.03635",
        refresh="once a round",
        unit="host",
        schedule=_tickets("lottery", 0.0),
    ),
    Scheme(
        name="lottery-late",
        title="lottery tickets, set back to an early state of the first training",
        unstructured=_BOTH,
        technique="tickets.LateLottery",
        paper="Frankle et al., arXiv 1903.01611",
        refresh="once a round",
        unit="host",
        schedule=_tickets("lottery-late", 0.1),
    ),
    Scheme(
        name="soup",
        title="sparse model soups: means of trainings under one mask",
        unstructured=_BOTH,
        technique="tickets.Soup",
        paper="Zimmer, Spiegel and Pokutta, ICLR 2024, arXiv 2306.16788, repository ZIB-IOL/SMS",
        refresh="once a cycle",
        unit="host",
        schedule=dense_until("soup", 0.5),
    ),
    Scheme(
        name="jackpot",
        title="lottery jackpots: a mask searched on weights that stay",
        unstructured=_BOTH,
        technique="tickets.Jackpot",
        paper="Zhang et al., IEEE TPAMI 2023, arXiv 2104.08700, repository zyxxmu/lottery-jackpots",
        unit="host",
        recalled="which parameters stay: all",
        schedule=dense_until("jackpot", 0.5),
    ),
)
"""In the order of the documentation."""
