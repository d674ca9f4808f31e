"""Images that a function of the user's own file makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..user_code import importable, user_code, user_object
from .images import BROUGHT_EVERY, ImageData, InMemory, in_memory, parted, split

__all__ = ["own_data"]

_RULE = (
    "return (pixels, labels), or two or three of these for training, perhaps validation, and test: pixels uint8 "
    "[n, channels, height, width], labels integers [n] from 0 on"
)


def own_data(spec: str) -> ImageData:
    """The images that ``path/to/file.py:function`` returns, shifted by up to an eighth of their side, not mirrored."""
    path, _, make = user_object(spec, "data")
    with user_code(spec, path), importable(path.parent):
        returned = make()
    sets = [_set(spec, pair) for pair in (returned if _is_sets(returned) else (returned,))]
    match sets:
        case [whole]:
            parts = split(whole)
        case [train, test]:
            parts = (*parted(train, BROUGHT_EVERY), test)
        case [train, validation, test]:
            parts = train, validation, test
        case _:
            raise InputError(f"data {spec!r} returns {len(sets)} sets; {_RULE}")
    shapes = {part.pixels.shape[1:] for part in parts}
    if len(shapes) != 1:
        raise InputError(f"data {spec!r} has images of {' and '.join(str(tuple(s)) for s in shapes)}; {_RULE}")
    classes = 1 + max(int(part.labels.max()) if len(part.labels) else 0 for part in parts)
    return in_memory(spec, classes, *parts, pad=max(1, parts[0].pixels.shape[-1] // 8), flip=False)


def _is_sets(returned: Any) -> bool:
    """Whether these are sets of images rather than the pixels and labels of one."""
    return isinstance(returned, tuple | list) and all(isinstance(one, tuple | list) for one in returned)


def _set(spec: str, pair: Any) -> InMemory:
    try:
        given, classes = pair
        pixels, labels = torch.as_tensor(np.asarray(given)), torch.as_tensor(np.asarray(classes))
    except (TypeError, ValueError) as error:
        raise InputError(f"data {spec!r} returns {type(pair).__name__}; {_RULE}") from error
    wrong = pixels.dtype != torch.uint8 or pixels.dim() != 4 or labels.dim() != 1 or len(pixels) != len(labels)
    if wrong or labels.is_floating_point() or labels.is_complex() or (len(labels) and int(labels.min()) < 0):
        raise InputError(
            f"data {spec!r} returns pixels {pixels.dtype} {list(pixels.shape)} and labels {labels.dtype} "
            f"{list(labels.shape)}; {_RULE}"
        )
    return InMemory(pixels, labels.long())
