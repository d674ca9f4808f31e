"""N:M structured sparsity: at most `keep` non-zeros in every `group` consecutive contraction elements."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import InputError, require_int

__all__ = ["MAX_GROUP", "NMPattern"]

MAX_GROUP = 32
"""Longest group a pattern may name; a machine may hold less (`PESpec.max_group`)."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NMPattern:
    """At most ``keep`` non-zeros in every ``group`` consecutive elements along the contraction of the using pass.

    ``keep`` counts what stays (SR-STE, BDWP), not what is removed (Wanda, Hubara et al.).
    """

    __pydantic_config__ = {"extra": "forbid"}

    keep: int
    group: int

    def __post_init__(self) -> None:
        require_int("group of an N:M pattern", self.group, 1, MAX_GROUP)
        if type(self.keep) is not int or not 1 <= self.keep <= self.group:
            near = (
                f"; the nearest is {min(max(self.keep, 1), self.group)}:{self.group}" if type(self.keep) is int else ""
            )
            raise InputError(
                f"N:M pattern {self.keep}:{self.group} keeps {self.keep} of {self.group}: "
                f"keep must be an integer from 1 to the group{near}"
            )

    @classmethod
    def parse(cls, text: str) -> NMPattern:
        """Read ``"2:8"``."""
        match = re.fullmatch(r"\s*(\d{1,6})\s*:\s*(\d{1,6})\s*", text, re.ASCII)
        if match is None:
            raise InputError(f"N:M pattern {text!r} is not of the form keep:group, for example 2:8")
        return cls(keep=int(match[1]), group=int(match[2]))

    @property
    def density(self) -> float:
        """Share of the elements that stay."""
        return self.keep / self.group

    @property
    def index_bits(self) -> int:
        """Bits of the index stored beside every kept value."""
        return (self.group - 1).bit_length()

    def kept(self, length: int, run: int) -> int:
        """Kept elements of a contraction of ``length`` made of runs of ``run``.

        A group never crosses a run; the last, shorter group of a run keeps ``min(keep, its length)``.
        """
        full, rest = divmod(run, self.group)
        return (length // run) * (full * self.keep + min(self.keep, rest))

    def __str__(self) -> str:
        return f"{self.keep}:{self.group}"
