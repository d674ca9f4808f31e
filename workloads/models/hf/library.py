"""The library transformers, imported so that it never looks at the network, and models built by it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

__all__ = ["EAGER", "construct", "first_lines", "quiet", "transformers"]

# sdpa takes the math path on meta, which computes a bfloat16 model's attention in float32. Experts keep their default,
# grouped products: the others index with data or copy the weights once per token.
EAGER = {"attn_implementation": "eager"}


@cache
def transformers() -> Any:
    """The library, imported so that it never looks at the network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    return transformers


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' advice (generation defaults, missing image libraries) while a model is built."""
    log = transformers().utils.logging
    before = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(before)


def construct(model_class: Any, config: Any, dtype: torch.dtype | None) -> nn.Module:
    with quiet():
        model: nn.Module = model_class(config)
    return model if dtype is None else model.to(dtype)


def first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__
