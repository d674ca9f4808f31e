"""What a training of the model of characters is of: its shape, its neurons, its steps."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..errors import InputError, require_choice, require_int
from ..models.hf.library import construct
from ..models.zoo import source
from .experts import Routed, in_experts
from .top_k import replace_relu

__all__ = ["BLOCKS", "MODEL", "STEPS", "WIDTH", "TextSpec"]

MODEL = "characters"
BLOCKS, WIDTH = 3, 128
"""Of `characters` itself."""
STEPS = 600
"""Of training: about two minutes of one core."""
_RATE = 2e-3
_WIDER = 4
"""Neurons of a network to a channel of the stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec:
    """``steps`` of AdamW from ``seed``. ``top_k``: the density of the statistical top-k that stands for the ReLU;
    ``experts``: the networks are in experts that tokens in a row are taught to share. ``falls``: the rate falls along a
    cosine to the last step; where it does not, a model along the training is what a shorter training ends with."""

    blocks: int = BLOCKS
    width: int = WIDTH
    activation: Literal["relu", "silu"] = "relu"
    top_k: float | None = None
    experts: bool = False
    steps: int = STEPS
    seed: int = 0
    falls: bool = True

    def __post_init__(self) -> None:
        require_int("steps", self.steps, 1, 10**6)
        require_int("seed", self.seed, 0, 2**32 - 1)
        require_int("blocks", self.blocks, 1, 64)
        require_int("width", self.width, 4, 4096)
        require_choice("activation", self.activation, ("relu", "silu"))
        if self.width % 4:
            raise InputError(f"width must be a multiple of 4 heads, not {self.width}: {self.width // 4 * 4} is one")
        if self.activation != "relu" and (self.top_k is not None or self.experts):
            raise InputError("a top-k, and experts, stand in the place of a ReLU: leave the activation relu")

    def build(self) -> tuple[nn.Module, list[Routed]]:
        """The model before its first step, and its networks in experts."""
        model: Any = source(MODEL).build()
        if (self.blocks, self.width, self.activation) != (BLOCKS, WIDTH, "relu"):
            config = copy.deepcopy(model.config)
            config.num_hidden_layers, config.hidden_size = self.blocks, self.width
            config.word_embed_proj_dim, config.ffn_dim = self.width, _WIDER * self.width
            config.activation_function = self.activation
            model = construct(type(model), config, None)
        if self.top_k is not None:
            replace_relu(model, self.top_k)
        return model, in_experts(model) if self.experts else []

    def rate(self, step: int) -> float:
        """Of learning, at a step from 0 on."""
        return _RATE * 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.falls else _RATE
