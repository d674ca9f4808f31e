"""Channels that leave a model with everything that depends on them, by DepGraph (Torch-Pruning)."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["pruned_channels"]

_NEVER_BELOW = 0.1
"""Share of the channels of a layer that stays when layers are ranked together (assumed), so that none is cut off."""
_PROJECTIONS = re.compile(r"(in_proj|c_attn|qkv|[qkv]|[qkv]_proj|query|key|value)$")
"""Layers whose outputs are cut into heads, of a width that only their model knows; by their usual names."""


def pruned_channels(
    model: nn.Module,
    pixels: Tensor,
    kept: float,
    *,
    together: bool = False,
    output: Callable[[Any], Tensor] | None = None,
) -> nn.Module:
    """A copy of ``model`` with a share ``kept`` of the channels of every group of layers that depend on each other:
    those whose squares, in all weights of the group, add up to most. Scores stay, and so do queries, keys and values.

    ``together``: groups of layers whose feature maps are of one size are ranked together, by what a channel has of the
    mean of its group, so that shares differ within a size.
    ``pixels``: example of an input, float32 [images, channels, height, width], any number of images. ``output``: the
    scores of what the model returns. A model that cannot be followed is an :class:`InputError`.
    """
    tp = _torch_pruning()
    small = copy.deepcopy(model).eval()
    layers: dict[str, nn.Module] = {
        name: m for name, m in small.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
    }
    fixed = [m for name, m in layers.items() if _PROJECTIONS.search(name.rpartition(".")[2])]
    sides = _sides(small, layers.values(), pixels)
    # The last layer that is called gives the scores.
    fixed.append(list(sides)[-1])
    scopes = {}
    if together:
        for side in dict.fromkeys(sides.values()):
            scopes[tuple(m for m, own in sides.items() if own == side)] = 1.0 - kept
    try:
        with warnings.catch_warnings():
            # Parameters of no layer lose their last axis, as positions and class tokens should.
            warnings.filterwarnings("ignore", message="(?s)Unwrapped parameters")
            tp.pruner.BasePruner(
                small,
                pixels,
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=1.0 - kept,
                pruning_ratio_dict=scopes,
                global_pruning=together,
                max_pruning_ratio=1.0 - _NEVER_BELOW if together else 1.0,
                ignored_layers=fixed,
                root_module_types=[nn.Conv2d, nn.Linear],
                output_transform=output,
            ).step()
            with torch.no_grad():
                small(pixels)
    except Exception as error:
        first = str(error).strip().partition("\n")[0][:300]
        raise InputError(
            f"{type(model).__name__}: which channels depend on each other could not be followed "
            f"({type(error).__name__}: {first}); use rank, trp or maestro"
        ) from error
    return small.train(model.training)


def _sides(model: nn.Module, layers: Any, pixels: Tensor) -> dict[nn.Module, tuple[int, ...]]:
    """Sides of what each layer writes, in the order of calls; () of a linear one."""
    found: dict[nn.Module, tuple[int, ...]] = {}

    def note(layer: nn.Module, _: Any, made: Tensor) -> None:
        found[layer] = tuple(made.shape[2:]) if isinstance(layer, nn.Conv2d) else ()

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            model(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise InputError(f"{type(model).__name__} has no convolution or linear layer to take channels from")
    return found


def _torch_pruning() -> ModuleType:
    try:
        import torch_pruning
    except ImportError:
        raise InputError(
            "channels are followed by Torch-Pruning, which is not installed: pip install 'weft[prune]'"
        ) from None
    found: ModuleType = torch_pruning
    return found
