"""Random numbers: each purpose has its own, by the seed and the number of the epoch or step alone."""

from __future__ import annotations

import numpy as np
import torch

from .spec import TrainSpec

__all__ = ["AUGMENT", "ORDER", "PATH", "POLICY", "STEP", "WEIGHTS", "generator_of", "seed_of"]

WEIGHTS, ORDER, AUGMENT, STEP, PATH, POLICY = range(6)
"""What random numbers are for."""


def seed_of(spec: TrainSpec, purpose: int, index: int = 0) -> int:
    """Seed of the random numbers for one purpose in one epoch or step."""
    return int(np.random.SeedSequence((spec.seed, purpose, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_of(spec: TrainSpec, purpose: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(spec, purpose, index))
