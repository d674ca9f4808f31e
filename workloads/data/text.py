"""Text that ships with Python: the topics of its help, which are its language reference, as numbers of characters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, nearest

__all__ = ["LETTERS", "TEXTS", "TextData", "open_text"]

_KNOWN = "\n" + "".join(map(chr, range(32, 127)))
LETTERS = len(_KNOWN) + 1
"""Characters that are told apart: printable ASCII, the end of a line, and all others as one."""

TEXTS = ("pydoc",)
_TENTH, _BLOCK = 10, 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextData:
    """Parts of a text to train on and to test on, int64 [characters]; ``fingerprint``: SHA-256 of both."""

    name: str
    train: Tensor
    test: Tensor
    fingerprint: str


def open_text(name: str) -> TextData:
    """The text of that name: its topics in the order of their names, of which every tenth block is there to test on."""
    if name not in TEXTS:
        raise InputError(f"text {name!r} is unknown: {nearest(name, TEXTS)}")
    from pydoc_data.topics import topics

    places = {letter: i for i, letter in enumerate(_KNOWN)}
    whole = "\n\n".join(topics[topic] for topic in sorted(topics))
    blocks = [whole[at : at + _BLOCK] for at in range(0, len(whole), _BLOCK)]
    parts = ["".join(b for i, b in enumerate(blocks) if (i % _TENTH == _TENTH - 1) is test) for test in (False, True)]
    train, test = (torch.tensor([places.get(c, LETTERS - 1) for c in part]) for part in parts)
    found = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return TextData(name=name, train=train, test=test, fingerprint=found)
