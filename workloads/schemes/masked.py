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
        name="group-1x16",
        title="gradual pruning of groups of 16 channels of an output",
        unstructured=_BOTH,
        technique="groups.GroupMagnitude",
        paper="groups of GQSA, Zeng et al., IJCNLP-AACL 2025, arXiv 2412.17560; schedule of arXiv 1710.01878",
        refresh="every 100 steps",
        unit="host",
        recalled="16 in a group; pruned by magnitude in training, where GQSA calibrates a trained model",
        groups="1x16",
    ),
    Scheme(
        name="group-16x1",
        title="gradual pruning of groups of 16 outputs of a channel",
        unstructured=_BOTH,
        technique="groups.GroupMagnitude",
        paper="Elsen et al., CVPR 2020, arXiv 1911.09723",
        refresh="every 100 steps",
        unit="host",
        recalled="blocks of outputs, and how large",
        groups="16x1",
    ),
    Scheme(
        name="group-4x4",
        title="gradual pruning of blocks of 4 outputs by 4 channels",
        unstructured=_BOTH,
        technique="groups.GroupMagnitude",
        paper="Narang, Undersander and Diamos, arXiv 1711.02782",
        refresh="every 100 steps",
        unit="host",
        recalled="by the sum of |W|, where the largest one stands for its block there",
        groups="4x4",
    ),
    Scheme(
        name="group-kernel",
        title="gradual pruning of whole kernels",
        unstructured=_BOTH,
        technique="groups.GroupMagnitude",
        paper="Xu et al., SparseByteNN, arXiv 2310.19509",
        refresh="every 100 steps",
        unit="host",
        recalled="which kernels share their zeros: each has its own here; without rearranging the network",
        groups="kernel",
    ),
    Scheme(
        name="group-level",
        title="at most k groups of 16 channels of every output",
        unstructured=_BOTH,
        technique="groups.GroupLevel",
        paper="Refael, Arbel and Huleihel, arXiv 2212.12921",
        refresh="every 100 steps",
        unit="host",
        recalled="a projection onto k groups in the place of the envelope",
        groups="1x16",
        level=True,
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
    Scheme(
        name="turbo-vbi",
        title="Turbo-VBI: variational inference under a prior of bursts",
        unstructured=_BOTH,
        technique="turbo.TurboVbi",
        paper="Xia, Tsang and Lau, IEEE TSP 2023, arXiv 2302.10483, repository cxiaab/D-turbo-vbi-FL",
        refresh="once",
        unit="host",
        recalled="updates derived here; chains along inputs alone; density held; gradient at the mean",
        schedule=dense_until("turbo-vbi", 0.5),
    ),
)
"""In the order of the documentation."""
