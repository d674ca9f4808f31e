"""Checkpoints: nested tensors and plain values in one file, written whole or not at all, read without running code."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import InputError, reading
from .files import write_atomically
from .strict import read_file

__all__ = ["digest", "load_checkpoint", "save_checkpoint"]


_DIGEST = "digest"
_MAX_BYTES = 2**36
"""Weights, momentum and masks of the largest model that one machine trains."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state``, dicts, lists and tuples of tensors, numbers, text and None, with its :func:`digest`."""
    buffer = io.BytesIO()
    torch.save({**state, _DIGEST: digest(state)}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, *versions: int) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote, with tensors on the CPU, if of one of ``versions``."""
    raw = read_file(path, _MAX_BYTES)
    with reading(str(path), "a whole checkpoint of Weft"):
        try:
            state: Any = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            # PyTorch's own words advise to load it with all that it names.
            raise InputError(
                f"{path}: is not a whole checkpoint of Weft: it is damaged, or names more than tensors and plain values"
            ) from None
        _require_plain(state)
    of_version = state.get("version") if isinstance(state, dict) else None
    if type(of_version) is not int or of_version not in versions:
        read = " or ".join(map(str, versions))
        raise InputError(f"{path}: is a checkpoint of version {of_version!r}; this Weft reads version {read}")
    told = state.pop(_DIGEST, None)
    with reading(str(path), "a checkpoint of Weft"):
        found = digest(state)
    if told != found:
        raise InputError(f"{path}: is damaged: its content has not the SHA-256 it was written with")
    return dict(state)


def _require_plain(value: Any) -> None:
    """Refuse tensors that say more than they hold: sparse, on no device, or expanded without end."""
    if isinstance(value, Tensor):
        size = value.numel() * value.element_size()
        if value.layout is not torch.strided or value.is_meta or size > value.untyped_storage().nbytes():
            raise ValueError(f"a tensor of {value.layout} {tuple(value.shape)} is not stored whole")
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _require_plain(item)


def digest(value: Any) -> str:
    """SHA-256 of nested tensors and plain values, equal when and only when all of them are, bit by bit."""
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: hashlib._Hash, value: Any) -> None:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous()
        found.update(f"tensor {flat.dtype} {tuple(flat.shape)}".encode())
        found.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        found.update(f"dict {len(value)}".encode())
        for key in sorted(value, key=lambda key: (type(key).__name__, key)):
            found.update(repr(key).encode())
            _feed(found, value[key])
    elif isinstance(value, list | tuple):
        found.update(f"list {len(value)}".encode())
        for item in value:
            _feed(found, item)
    else:
        found.update(f"{type(value).__name__} {value!r}".encode())
