"""How far a figure can be trusted: the word that stands beside every number that is not ours."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Mark"]


class Mark(StrEnum):
    """How far a figure can be trusted, best first."""

    MEASURED = "measured"
    """By running the named public simulator."""
    PUBLISHED = "published"
    """Read in a paper's abstract, a vendor's page or a public repository."""
    SECOND_HAND = "second-hand"
    """Somebody's notes that quote the source."""
    INFERRED = "inferred"
    """Derived from other figures."""
    ASSUMED = "assumed"
    """Nobody's figure."""
