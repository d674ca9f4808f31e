"""Modules whose activations are not kept but made again in the backward pass, without a change to the model's code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from ..patterns import matching

__all__ = ["checkpoint_modules"]


def checkpoint_modules(model: nn.Module, patterns: Sequence[str]) -> None:
    """Checkpoint every module of ``model`` whose path matches one of ``patterns`` (shell wildcards), outermost only.

    As ``torch.utils.checkpoint`` around its call, so its hooks run both times; what is kept is its input.
    """
    paths = [path for path, module in model.named_modules() if path and any(True for _ in module.parameters())]
    wrapped = matching(patterns, paths, "module with parameters")
    for path in wrapped:
        if not any(path.startswith(f"{other}.") for other in wrapped):
            module = model.get_submodule(path)
            module._call_impl = partial(_checkpointed, module._call_impl)  # type: ignore[method-assign]


def _checkpointed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Tensors without data have no random state to restore.
    return checkpoint(call, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
