"""Training schemes by name: which operand of which pass is sparse, how often it is re-made, and by which unit.

A scheme is a choice of operands of the three GEMMs of a layer (FF: Y = X W_ff, BP: dX = g_bp(dY) W_bp^T, WU:
dW = x_wu(X)^T g_wu(dY)), of when they are re-made, and of what happens to gradients and master weights around the
optimizer. This file is what the machine needs to know of it; the training itself is the technique class it names.
Importing it must not import torch, so that saved workloads open quickly.
"""

from __future__ import annotations

from math import isclose, sqrt
from typing import Any

from ..errors import InputError, nearest
from ..gemm import Pass
from ..operand import Role
from ..sparsity import MAX_GROUP, NMPattern
from .description import Phase, Scheme, dense_until
from .few import FEW
from .few_attention import FEW_ATTENTION
from .masked import MASKED
from .outside import outside, outside_names
from .sums import SUMS

__all__ = ["SCHEMES", "Phase", "Scheme", "phase_at", "phases", "scheme", "target_density", "widening"]

W, G = Role.WEIGHT, Role.GRADIENT


def scheme(name: str) -> Scheme:
    """Scheme of that name: one of ours, one that was registered or installed, or ``file.py:Class``."""
    found = SCHEMES.get(name) or outside(name)
    if found is None:
        raise InputError(f"scheme {name!r} is unknown: {nearest(name, [*SCHEMES, *outside_names()])}")
    return found


def phases(name: str, pattern: NMPattern | None, **options: Any) -> tuple[Phase, ...]:
    """Phases of a training under scheme ``name``, in order; their shares add up to 1.

    The cost of a training is the mean of the costs of its phases, weighted by their shares.
    """
    chosen = scheme(name)
    if chosen.schedule is None:
        return (Phase(share=1.0, scheme=name, pattern=pattern),)
    made = tuple(p for p in chosen.schedule(pattern, **options) if p.share > 0.0)
    if not isclose(sum(p.share for p in made), 1.0, rel_tol=1e-9):
        raise InputError(f"phases of scheme {name!r} cover {sum(p.share for p in made):.3g} of the training; must be 1")
    return made


def phase_at(made: tuple[Phase, ...], step: int, steps: int) -> Phase:
    """The phase that ``step`` (from 0) of ``steps`` belongs to; a phase ends at the step nearest to its share."""
    end = 0.0
    for phase in made:
        end += phase.share
        if step < round(end * steps):
            return phase
    return made[-1]


def fully_sparse(pattern: NMPattern | None, *, dense_head: float = 0.0, dense_tail: float = 0.0) -> tuple[Phase, ...]:
    """BDWP-X: WU is dense, as under BDWP, in the first ``dense_head`` and the last ``dense_tail`` of the steps."""
    return (
        Phase(share=dense_head, scheme="bdwp", pattern=pattern),
        Phase(share=1.0 - dense_head - dense_tail, scheme="bdwp-x", pattern=pattern),
        Phase(share=dense_tail, scheme="bdwp", pattern=pattern),
    )


def dense_fine_tuned(pattern: NMPattern | None, *, dense_tail: float = 1 / 6) -> tuple[Phase, ...]:
    """Hu et al. 2024: dense fine-tuning over the last sixth (from step 250,000 of 300,000 in their GPT-2 recipe)."""
    return (
        Phase(share=1.0 - dense_tail, scheme="transposable-mvue", pattern=pattern),
        Phase(share=dense_tail, scheme="dense", pattern=None),
    )


def stepwise(pattern: NMPattern | None, *, dense_head: float = 0.0) -> tuple[Phase, ...]:
    """SdGf-Stepwise: (M-1):M, M/2:M, M/4:M and so on down to N:M, for equal shares of what ``dense_head`` leaves."""
    if pattern is None:
        return (Phase(share=1.0, scheme="sdgf-stepwise", pattern=None),)
    keep, group = pattern.keep, pattern.group
    halves = [group >> i for i in range(1, group.bit_length()) if group >> i > keep]
    kept = sorted({max(group - 1, keep), *halves, keep}, reverse=True)
    return _frames("sdgf-stepwise", [NMPattern(keep=k, group=group) for k in kept], dense_head)


def geometric(pattern: NMPattern | None, *, dense_head: float = 0.0, frames: int = 3) -> tuple[Phase, ...]:
    """SdGf-Geometric: 2^(frames-1) N : 2^(frames-1) M, ... 2N:2M, N:M, for equal shares of the steps."""
    if pattern is None:
        return (Phase(share=1.0, scheme="sdgf-geometric", pattern=None),)
    first = pattern.group << (frames - 1)
    if first > MAX_GROUP:
        fits = (MAX_GROUP // pattern.group).bit_length()
        raise InputError(
            f"scheme 'sdgf-geometric' at {pattern} with {frames} frames begins with groups of {first}, but a group has "
            f"at most {MAX_GROUP} elements; use frames={fits}, or groups of at most {MAX_GROUP >> (frames - 1)}"
        )
    made = [NMPattern(keep=pattern.keep << i, group=pattern.group << i) for i in reversed(range(frames))]
    return _frames("sdgf-geometric", made, dense_head)


def _frames(name: str, patterns: list[NMPattern], dense_head: float) -> tuple[Phase, ...]:
    share = (1.0 - dense_head) / len(patterns)
    return (
        Phase(share=dense_head, scheme="dense", pattern=None),
        *(Phase(share=share, scheme=name, pattern=pattern) for pattern in patterns),
    )


def widening(name: str, pattern: NMPattern | None, density: object = None) -> float:
    """What a model for scheme ``name`` multiplies its widths by; 1 for all but Sparse-IFT.

    ``density`` takes the place of the density of ``pattern``.
    """
    if not scheme(name).wide:
        return 1.0
    return sqrt(1.0 / target_density(name, pattern, density))


def target_density(name: str, pattern: NMPattern | None, density: object = None) -> float:
    """Share of the weights that an unstructured scheme keeps: ``density``, or that of ``pattern``."""
    if density is None:
        if pattern is not None:
            return pattern.density
        raise InputError(f"scheme {name!r} needs an N:M pattern, for example 2:8, or the option 'density'")
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0.0 < density <= 1.0:
        raise InputError(f"option 'density' of scheme {name!r} must be a number above 0 to 1, not {density!r}")
    return float(density)


_BAMBHANIYA = "Bambhaniya et al., repository abhibambhaniya/progressive_gradient_flow_nm_sparsity"
SCHEMES: dict[str, Scheme] = {
    s.name: s
    for s in (
        Scheme(name="dense", title="no sparsity", technique="technique.Technique", refresh="never", unit="none"),
        Scheme(
            name="srste",
            title="SR-STE: N:M weights in FF",
            sparse={Pass.FF: W},
            technique="nm.SrSte",
            paper="Zhou et al., ICLR 2021, arXiv 2102.04010",
        ),
        Scheme(
            name="sdgp",
            title="SDGP: N:M output gradients in BP",
            sparse={Pass.BP: G},
            technique="nm.Sdgp",
            paper="McDanel et al., repository BradMcDanel/sdgp",
            refresh="every gradient",
            unit="SORE, online",
        ),
        Scheme(
            name="sdgp-rescaled",
            title="SDGP with rescaled maps",
            sparse={Pass.BP: G},
            technique="nm.SdgpRescaled",
            paper="McDanel et al., repository BradMcDanel/sdgp",
            refresh="every gradient",
            unit="SORE, online; two sums of magnitudes a map",
        ),
        Scheme(
            name="sdwp",
            title="SDWP: N:M weights in BP",
            sparse={Pass.BP: W},
            technique="nm.Sdwp",
            paper="baseline of Fang et al., IEEE TCAD, arXiv 2309.13015",
            recalled="its definition",
        ),
        Scheme(
            name="bdwp",
            title="BDWP: N:M weights in FF and, with a second mask, in BP",
            sparse={Pass.FF: W, Pass.BP: W},
            technique="nm.Bdwp",
            paper="Fang et al., IEEE TCAD, arXiv 2309.13015",
            recalled="decay term off by default",
        ),
        Scheme(
            name="bimask",
            title="Bi-Mask: N:M weights in FF, a subset in BP over permuted output channels",
            sparse={Pass.FF: W, Pass.BP: W},
            technique="nm.BiMask",
            paper="Zhang et al., ICML 2023, arXiv 2302.06058",
            refresh="every step; permutation every 100",
            unit="SORE; gather of output channels",
        ),
        Scheme(
            name="transposable",
            title="one mask that is N:M along both channel axes",
            sparse={Pass.FF: W, Pass.BP: W},
            technique="nm.Transposable",
            paper="Hubara et al., NeurIPS 2021, arXiv 2102.08124",
            refresh="every 40 steps",
            unit="host: flow over M x M blocks",
            recalled="refresh period when trained from scratch",
        ),
        Scheme(
            name="transposable-mvue",
            title="transposable weights, unbiased N:M gradients in WU",
            sparse={Pass.FF: W, Pass.BP: W, Pass.WU: G},
            technique="nm.TransposableMvue",
            paper="Hu et al., ICML 2024, arXiv 2404.01847",
            refresh="masks every 40 steps, samples every gradient",
            unit="host: 90-pattern search; sampler, online",
            schedule=dense_fine_tuned,
        ),
        Scheme(
            name="sste",
            title="S-STE: soft-thresholded N:M weights in FF, unbiased N:M gradients in WU",
            sparse={Pass.FF: W, Pass.WU: G},
            technique="nm.SSte",
            paper="Hu, Zhu, Chen, NeurIPS 2024, arXiv 2409.09099",
            unit="SORE and a subtraction; sampler, online",
            recalled="BP reads the weights of FF",
        ),
        Scheme(
            name="bdwp-x",
            title="BDWP-X: BDWP with unbiased N:M gradients in WU",
            sparse={Pass.FF: W, Pass.BP: W, Pass.WU: G},
            technique="full.BdwpX",
            paper="this project",
            refresh="weights every step, samples every gradient",
            unit="SORE; sampling keys, online",
            schedule=fully_sparse,
        ),
        Scheme(
            name="mdgf-linear",
            title="MdGf-Linear: what N:M drops fades out linearly",
            sparse={Pass.FF: W},
            technique="progressive.MdGfLinear",
            paper=_BAMBHANIYA,
            schedule=dense_until("mdgf-linear", 0.5),
        ),
        Scheme(
            name="mdgf-exponential",
            title="MdGf-Exponential: what N:M drops fades out exponentially",
            sparse={Pass.FF: W},
            technique="progressive.MdGfExponential",
            paper=_BAMBHANIYA,
            schedule=dense_until("mdgf-exponential", 0.9),
        ),
        Scheme(
            name="sdgf-stepwise",
            title="SdGf-Stepwise: (M-1):M, M/2:M, ... N:M in FF",
            sparse={Pass.FF: W},
            technique="progressive.SdGf",
            paper=_BAMBHANIYA,
            schedule=stepwise,
        ),
        Scheme(
            name="sdgf-geometric",
            title="SdGf-Geometric: 4N:4M, 2N:2M, N:M in FF",
            sparse={Pass.FF: W},
            technique="progressive.SdGfGeometric",
            paper=_BAMBHANIYA,
            unit="SORE of groups up to 4 M",
            schedule=geometric,
        ),
        Scheme(
            name="cast",
            title="CAST: L1 decay of what N:M drops (AdamS), then that mask for good",
            sparse={Pass.FF: W},
            technique="progressive.Cast",
            paper="Huang et al., arXiv 2509.25996",
            refresh="every 10 steps, then never",
            unit="SORE; decay in the update",
            recalled="1/sqrt(v) in the decay, its ramp; without weight scaling and self-distillation",
            schedule=dense_until("cast", 0.9),
        ),
        Scheme(
            name="step",
            title="STEP: dense Adam, then N:M in FF with its second moment frozen",
            sparse={Pass.FF: W},
            technique="progressive.Step",
            paper="ICML 2023, arXiv 2302.01172",
            recalled="rule of the switch, read in repository huyz2023/2by4-pretrain",
            schedule=dense_until("step", 0.5),
        ),
        Scheme(
            name="magnitude",
            title="one-shot N:M by magnitude",
            sparse={Pass.FF: W},
            technique="oneshot.Magnitude",
            paper="baseline of Frantar and Alistarh, arXiv 2301.00774",
            refresh="once",
            unit="host",
            schedule=dense_until("magnitude", 0.8),
        ),
        Scheme(
            name="wanda",
            title="one-shot N:M by magnitude times norm of the input",
            sparse={Pass.FF: W},
            technique="oneshot.Wanda",
            paper="Sun et al., arXiv 2306.11695, repository locuslab/wanda",
            refresh="once",
            unit="host",
            schedule=dense_until("wanda", 0.8),
        ),
        Scheme(
            name="sparsegpt",
            title="one-shot N:M with second-order updates of the rest",
            sparse={Pass.FF: W},
            technique="oneshot.SparseGpt",
            paper="Frantar and Alistarh, arXiv 2301.00774, repository IST-DASLab/sparsegpt",
            refresh="once",
            unit="host",
            schedule=dense_until("sparsegpt", 0.8),
        ),
        *MASKED,
        *FEW,
        *SUMS,
        *FEW_ATTENTION,
    )
}
"""Every scheme by name, in the order of the documentation."""
