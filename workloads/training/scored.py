"""Sensitivities of the network that a training ended with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import digest
from ..data import normalised, order
from ..errors import InputError, require_int
from ..schemes.scores import METHODS, LayerScores, Scores
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
    methods: Sequence[str] = tuple(METHODS),
    *,
    images: int = 256,
    probes: int = 32,
    seed: int = 0,
    asked: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score every layer of the finished dense training in ``folder`` for every candidate, on the CPU.

    ``images`` of its training set are looked at, as they are, drawn by ``seed``; nothing is trained or written. A
    training under another scheme is refused: its master weights are not the network that was trained. ``asked`` as of
    `resume`. SIGINT ends it between two images or candidates by KeyboardInterrupt.
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
    with controlled(threads_for(data), torch.device("cpu")) as stop:

        def told(done: int, every: int) -> None:
            if stop():
                raise KeyboardInterrupt
            if progress is not None:
                progress(done, every)

        drawn = order(len(data.train.labels), torch.Generator().manual_seed(seed))[:images]
        batches = [
            (normalised(data, data.train.fetch(index)), data.train.labels[index])
            for index in torch.split(drawn, _BATCH)
        ]
        found, sizes, dense = sensitivities(
            run.model, batches, candidates, methods, probes=probes, seed=seed, progress=told
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
