"""What a step is for: to train, or to use a model; and what use of it holds from one step to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from .errors import InputError, require_int
from .operand import DTYPE_BYTES, MAX_BYTES, require_dtype

__all__ = ["CACHING", "TRAINING", "USES", "Cached", "Phase", "Use"]

Use = Literal["train", "infer", "prefill", "decode"]
USES: Final[tuple[Use, ...]] = get_args(Use)
"""``infer``: one forward call. ``prefill``: one over a prompt, whose keys and values are kept. ``decode``: one of a
token a sample, which reads those of all tokens before it."""
CACHING: Final[tuple[Use, ...]] = ("prefill", "decode")
"""Those that leave keys and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """A tensor that a step adds to and later steps read, as it is after the step: keys or values of a layer.

    ``grows``: with the tokens, as all but a sum over them does, which is FP32 on every machine.
    """

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    dtype: str
    elements: int
    grows: Annotated[bool, Field(exclude_if=lambda grows: grows)] = True

    def __post_init__(self) -> None:
        require_dtype(f"cached tensor {self.name!r}", self.dtype)
        require_int(f"elements of cached tensor {self.name!r}", self.elements, 1, MAX_BYTES)

    @property
    def bytes(self) -> int:
        """Bytes as PyTorch stores it."""
        return self.elements * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What a step is for. ``context``: tokens of a sample that are in ``cached`` before it; ``tokens``: those that it
    adds."""

    __pydantic_config__ = {"extra": "forbid"}

    use: Use = "train"
    context: Annotated[int, Field(exclude_if=lambda context: not context)] = 0
    tokens: Annotated[int, Field(exclude_if=lambda tokens: not tokens)] = 0
    cached: Annotated[tuple[Cached, ...], Field(exclude_if=lambda cached: not cached)] = ()

    def __post_init__(self) -> None:
        require_int("context of a phase", self.context, 0, 2**31)
        require_int("tokens of a phase", self.tokens, int(bool(self.cached)), 2**31)
        if self.cached and self.use not in CACHING:
            raise InputError(f"a step to {self.use} keeps no keys and values; only prefill and decode do")

    @property
    def trains(self) -> bool:
        """Whether the step has a backward pass and updates."""
        return self.use == "train"

    @property
    def words(self) -> str:
        """As a title has it; empty of training."""
        if self.trains:
            return ""
        behind = f" behind {self.context:,} tokens" if self.context else ""
        return f"{self.use}{behind}"


TRAINING: Final = Phase()
