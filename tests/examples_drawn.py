"""How many examples a property test draws: a third of what the full tier draws, where that is many."""

from __future__ import annotations

import os

__all__ = ["FULL", "PROFILE", "examples"]

PROFILE = os.environ.get("WEFT_HYPOTHESIS", "weft")
FULL = PROFILE != "weft"
"""`make test-full`, new examples, and the hunt for mutants draw all."""

_FEW = 20


def examples(count: int) -> int:
    """``count`` in the full tier; in `make test` a third of it, but no fewer than `_FEW` unless ``count`` is."""
    return count if FULL else max(count // 3, min(count, _FEW))
