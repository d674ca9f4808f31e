"""Fields of a payload side by side in its port, as `Cosim` and benches carry it, and apart again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.lib import data

from ..blocks.payload import places_of

__all__ = ["integers", "pack", "unpack"]

Array = npt.NDArray[Any]
_WORD = 32


def pack(layout: data.Layout, fields: Mapping[str, Array], cycles: int) -> Array:
    """The port of a payload, as `Cosim` takes it, of ``fields`` of at most 32 bits by name, uint32 or
    less [cycles]; others are 0."""
    words = np.zeros((cycles, -(-layout.size // _WORD) + 1), np.uint64)
    for name, (first, width) in places_of(layout).items():
        if name in fields:
            word, shift = divmod(first, _WORD)
            value = np.asarray(fields[name]).astype(np.uint64) & np.uint64((1 << width) - 1)
            moved = value << np.uint64(shift)
            words[:, word] |= moved & np.uint64(0xFFFFFFFF)
            words[:, word + 1] |= moved >> np.uint64(_WORD)
    narrow = words[:, :-1].astype(np.uint32)
    if narrow.shape[1] == 2:
        return np.ascontiguousarray(narrow).view(np.uint64)[:, 0]
    return narrow[:, 0] if narrow.shape[1] == 1 else narrow


def unpack(layout: data.Layout, port: Array) -> dict[str, Array]:
    """The fields in a port of `Cosim`, uint32 [cycles]."""
    words = port[:, None] if port.ndim == 1 else port
    if words.dtype == np.uint64:
        words = np.ascontiguousarray(words).view(np.uint32)
    words = np.concatenate([words, np.zeros((len(words), 1), np.uint32)], axis=1).astype(np.uint64)
    found = {}
    for name, (first, width) in places_of(layout).items():
        word, shift = divmod(first, _WORD)
        both = words[:, word] | words[:, word + 1] << np.uint64(_WORD)
        found[name] = (both >> np.uint64(shift) & np.uint64((1 << width) - 1)).astype(np.uint32)
    return found


def integers(port: Array) -> list[int]:
    """The values of a port of `Cosim`, uint32 or uint64 [cycles], or uint32 [cycles, words], one a cycle."""
    if port.ndim == 1:
        return [int(value) for value in port]
    return [int.from_bytes(row.astype("<u4").tobytes(), "little") for row in port]
