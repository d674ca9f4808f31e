"""Sensitivities of the network that a training ended with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import digest
from ..data import normalised, order
from ..errors import InputError, require_int
from ..schemes.distilled import DISTILLING_STEPS, distilled, has_statistics
from ..schemes.scores import DISTILLED, METHODS, LayerScores, Scores
from ..schemes.sensitivity import sensitivities
from .control import controlled, threads_for
from .loop import trained

__all__ = ["CANDIDATES", "score"]

CANDIDATES = ("1:8", "2:8", "4:8", "1:4", "2:4", *(f"int{bits}" for bits in range(2, 9)))
"""What layers are scored for unless told: the patterns of the papers that train N:M, and all integers of the levels."""

_BATCH = 128


def score(
    folder: Path,
    candidates: Sequence[str] = CANDIDATES,
    methods: Sequence[str] | None = None,
    *,
    images: int = 256,
    probes: int = 32,
    seed: int = 0,
    asked: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score every layer of the finished dense training in ``folder`` for every candidate, on the CPU.

    ``images`` of its training set are looked at, as they are, drawn by ``seed``, and as many distilled for `DISTILLED`;
    nothing is trained or written. Without ``methods`` all, but that one of a network without batch norms. A training
    under another scheme is refused: its master weights are not the network that was trained. ``asked`` as of `resume`.
    SIGINT ends it between two images, candidates or steps of distilling by KeyboardInterrupt.
    """
    run = trained(folder, asked)
    spec, data = run.spec, run.data
    if spec.scheme != "dense":
        raise InputError(
            f"{folder}: was trained under {spec.scheme!r}, whose dense weights alone are not the network; train with "
            "--scheme dense"
        )
    require_int("images", images, 1, len(data.train.labels))
    require_int("seed", seed, 0, 2**32 - 1)
    run.technique.detach()
    if methods is None:
        methods = [method for method in METHODS if method != DISTILLED or has_statistics(run.model)]
    with controlled(threads_for(data), torch.device("cpu")) as stop:
        before = 0

        def told(done: int, every: int) -> None:
            if stop():
                raise KeyboardInterrupt
            if progress is not None:
                progress(before + done, before + every)

        made = distilled(run.model, images, data.shape, seed=seed, progress=told) if DISTILLED in methods else []
        before = DISTILLING_STEPS * len(made)
        drawn = order(len(data.train.labels), torch.Generator().manual_seed(seed))[:images]
        batches = [
            (normalised(data, data.train.fetch(index)), data.train.labels[index])
            for index in torch.split(drawn, _BATCH)
        ]
        found, sizes, dense = sensitivities(
            run.model, batches, candidates, methods, distilled=made, probes=probes, seed=seed, progress=told
        )
    return Scores(
        model=spec.model,
        data=spec.data,
        digest=digest(dict(run.model.state_dict())),
        images=images,
        probes=probes,
        seed=seed,
        layers=tuple(LayerScores(layer=name, weights=sizes[name], scores=mine) for name, mine in found.items()),
        kept_dense=dense,
    )
