"""A model as a chain of modules, cut into layers and what stands behind each; what no threshold can hold is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import _MaxPoolNd

from ..data import normalised
from ..errors import InputError
from ..models.classifier import scores
from .run import Run

__all__ = ["BatchNorm", "Block", "Call", "MaxPool", "blocks_of", "calls_of"]

BatchNorm, MaxPool = _BatchNorm, _MaxPoolNd
_PASSES = (nn.Flatten, nn.Identity, _DropoutNd)
"""Modules that change no value at inference."""
_WHAT = "a layer, BatchNorm, Hardtanh, and a MaxPool on either side of the norm, as in tfc, sfc, lfc and cnv"
_IMAGES = 2


class Call(NamedTuple):
    """A module without parts, what it was given, of any float dtype [images, ...], and what it made of that."""

    name: str
    module: nn.Module
    given: Tensor
    made: Tensor


Block = list[Call]
"""A layer of a technique and the modules behind it, up to the next one."""


def calls_of(run: Run) -> tuple[Call, ...]:
    """The modules in the order in which two images pass them, each on what the one before made, and nothing between."""
    calls = list[Call]()
    names = {id(module): name for name, module in run.model.named_modules()}

    def see(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        calls.append(Call(names[id(module)], module, given[0] if given else made, made))

    parts = [module for module in run.model.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(see) for module in parts]
    images = run.data.test.fetch(torch.arange(min(_IMAGES, len(run.data.test.labels))))
    x = normalised(run.data, images)
    try:
        with torch.no_grad():
            found = scores(run.model(x))
    finally:
        for hook in hooks:
            hook.remove()
    before, where = x, "the images"
    for call in calls:
        if call.given is not before:
            raise InputError(f"{_between(run)} {where} and {call.name!r}; {_AS_MODULES}")
        before, where = call.made, repr(call.name)
    if found is not before:
        raise InputError(f"{_between(run)} {where} and its scores; {_AS_MODULES}")
    return tuple(calls)


_AS_MODULES = "what is deployed is a chain of modules, so write that as one, such as nn.Flatten or nn.Hardtanh"


def _between(run: Run) -> str:
    return f"model {run.spec.model!r} does something of its own between"


def blocks_of(calls: Sequence[Call], run: Run) -> list[Block]:
    """Each layer with the modules behind it, those left out that change nothing."""
    layers = {id(layer.module) for layer in run.technique.layers.values()}
    kept, blocks = run.technique.kept_dense, list[Block]()
    for call in calls:
        if id(call.module) in layers:
            if any(block[0].module is call.module for block in blocks):
                raise InputError(f"layer {call.name!r} is passed twice; what is deployed has it in one place")
            blocks.append([call])
        elif call.name in kept:
            how = "train with --option ends=int8, or of fewer bits, which makes the first and the last layer binary too"
            if not hasattr(run.technique.options, "ends"):
                how = f"scheme {run.spec.scheme!r} has it so, xnor, bireal, reste and biper have an option for it"
            raise InputError(f"layer {call.name!r} is in full precision ({kept[call.name]}); {how}")
        elif isinstance(call.module, _PASSES):
            if len(call.made) != len(call.given):
                raise InputError(f"{call.name!r} flattens images into each other; leave it start_dim=1")
        elif not blocks:
            raise InputError(f"{_named(call)} stands in front of the first layer; what is deployed is {_WHAT}")
        else:
            _require_place(blocks[-1], call)
            blocks[-1].append(call)
    for call in blocks[-1][1:]:
        if not isinstance(call.module, BatchNorm):
            raise InputError(f"{_named(call)} stands behind the last layer; only a BatchNorm may, in front of scores")
    return blocks


def _named(call: Call) -> str:
    return f"{call.name!r} ({type(call.module).__name__})"


def _require_place(block: Block, call: Call) -> None:
    """A norm in front of all that clips, a clipping that keeps signs, or the only pool."""
    before, module = [other.module for other in block[1:]], call.module
    where = f"{_named(call)} behind layer {block[0].name!r}"
    match module:
        case BatchNorm():
            if module.running_mean is None:
                raise InputError(f"{where} norms by the batch; a threshold needs track_running_stats=True")
            if any(isinstance(other, BatchNorm | nn.Hardtanh) for other in before):
                raise InputError(f"{where} comes after another norm or a clipping; what is deployed is {_WHAT}")
        case nn.Hardtanh():
            if not module.min_val < 0 <= module.max_val:
                raise InputError(
                    f"{where} clips to [{module.min_val:g}, {module.max_val:g}]; signs need min < 0 <= max"
                )
        case MaxPool():
            if any(isinstance(other, MaxPool) for other in before):
                raise InputError(f"{where} is a second pool; what is deployed is {_WHAT}")
            pads = module.padding if isinstance(module.padding, tuple) else (module.padding,)
            if module.ceil_mode or any(pads):
                raise InputError(f"{where} reaches beyond the image; a pool of bits has padding=0, ceil_mode=False")
        case _:
            raise InputError(f"{where} folds into no threshold; what is deployed is {_WHAT}")
