"""N:M structured sparsity: at most `keep` non-zeros in every `group` consecutive contraction elements, by layer.

The same rules say by layer of how many bits the integers of its weights are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .errors import InputError, require_int
from .levels import INTEGERS, Levels

__all__ = ["DENSE_WORD", "MAX_GROUP", "Asked", "LayerForm", "LayerPattern", "LayerPatterns", "NMPattern"]

DENSE_WORD = "dense"
"""What stands in the place of a pattern where a layer is not to be thinned out."""

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


LayerForm = NMPattern | Levels | None
"""What a rule makes of a layer: N:M, integers of so many bits, or nothing (None: dense, all bits)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPattern:
    """The pattern of the layers whose path matches ``layers`` (shell wildcards), or the integers of their weights;
    None: dense."""

    __pydantic_config__ = {"extra": "forbid"}

    layers: str
    pattern: LayerForm

    def __post_init__(self) -> None:
        if not self.layers.strip():
            raise InputError(f"a layer rule names the layers, as in layer4.*=1:8, not {str(self)!r}")
        if isinstance(self.pattern, Levels) and self.pattern not in INTEGERS.values():
            raise InputError(f"layer rule {self}: weights by layer are integers, {', '.join(INTEGERS)}")

    def matches(self, names: Iterable[str]) -> bool:
        """Whether a layer goes by a name of these."""
        return any(fnmatchcase(name, self.layers) for name in names)

    def __str__(self) -> str:
        return f"{self.layers}={self.pattern or DENSE_WORD}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPatterns:
    """``usual``, and rules for layers; of those that match a layer the last one holds, however special the others."""

    usual: NMPattern | None = None
    rules: tuple[LayerPattern, ...] = ()

    @classmethod
    def read(cls, asked: Asked) -> LayerPatterns:
        """Of ``"2:8"``, of ``["2:8", "layer4.*=1:8", "fc=dense"]``, or of ``{"*": "2:8", "layer4.*": "1:8"}``.

        A pattern without layers is the usual one wherever it stands; ``dense`` or integers such as ``int4`` without
        layers, the same as ``*=dense`` and ``*=int4``, go before all rules.
        """
        if isinstance(asked, LayerPatterns):
            return asked
        if asked is None or isinstance(asked, NMPattern):
            return cls(usual=asked)
        if isinstance(asked, Mapping):
            return cls(rules=tuple(LayerPattern(layers=str(k), pattern=_pattern(v)) for k, v in asked.items()))
        usual: NMPattern | None = None
        first, rules = list[LayerPattern](), list[LayerPattern]()
        for text in [asked] if isinstance(asked, str) else asked:
            layers, equals, pattern = text.rpartition("=")
            if equals:
                rules.append(LayerPattern(layers=layers.strip(), pattern=_pattern(pattern)))
                continue
            if usual is not None or first:
                raise InputError(
                    f"two N:M patterns are for all layers, {usual or DENSE_WORD} and {text}: name the layers of one, "
                    f"as in layer4.*={text.strip()}"
                )
            found = _pattern(text)
            usual = found if isinstance(found, NMPattern) else None
            first += [] if isinstance(found, NMPattern) else [LayerPattern(layers="*", pattern=found)]
        return cls(usual=usual, rules=(*first, *rules))

    def __str__(self) -> str:
        """As on the command line, "" where nothing is asked for."""
        return ", ".join(map(str, (*filter(None, [self.usual]), *self.rules)))

    @property
    def patterns(self) -> tuple[NMPattern, ...]:
        """All N:M patterns that are asked for."""
        every = (self.usual, *(rule.pattern for rule in self.rules))
        return tuple(dict.fromkeys(pattern for pattern in every if isinstance(pattern, NMPattern)))

    @property
    def integers(self) -> tuple[Levels, ...]:
        """All integers that are asked for."""
        return tuple(dict.fromkeys(rule.pattern for rule in self.rules if isinstance(rule.pattern, Levels)))

    def of(self, names: Iterable[str]) -> LayerForm:
        """What a layer that goes by these names is to be; None: dense."""
        rule = self.rule_of(names)
        return self.usual if rule is None else rule.pattern

    def rule_of(self, names: Iterable[str]) -> LayerPattern | None:
        """The rule that holds for a layer, None where none does."""
        known = tuple(names)
        return next((rule for rule in reversed(self.rules) if rule.matches(known)), None)


Asked = str | NMPattern | LayerPatterns | Sequence[str] | Mapping[str, "str | LayerForm"] | None
"""Ways to ask for patterns: `LayerPatterns.read`."""


def _pattern(text: str | LayerForm) -> LayerForm:
    if text is None or isinstance(text, NMPattern | Levels):
        return text
    word = text.strip().lower()
    return None if word == DENSE_WORD else INTEGERS.get(word) or NMPattern.parse(text)
