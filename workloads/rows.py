"""Lines of a weight that a step does not read, because what they would be multiplied by is zero, or is left out.

What a token leaves out is known when it is there; of a batch the lines that some token keeps are read, for all of it.
So what is left of a product is a smaller one, of whole lines, that any engine runs; only memory sees that they do not
lie side by side. Beside `SparseOperand`, whose zeros an engine must know of.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from .errors import InputError, require_choice, require_int
from .gemm import MAX_DIM, Gemm
from .mark import Mark

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Alike", "Along", "OptionalRows", "Rows", "alike_of"]

_STRICT = {"extra": "forbid"}
Along = Literal["inputs", "outputs"]
"""Which lines of a weight: those of an input, which the contraction runs over, or those of an output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Which lines tokens keep: each a share ``density`` of them, and two tokens the same ones as ``correlation`` says.

    A line is kept by a share of all tokens that differs from line to line as a beta distribution does; ``correlation``
    is that of whether two tokens keep a line: 0, each keeps its own by chance; 1, all keep the same.
    """

    __pydantic_config__ = _STRICT

    density: float
    correlation: float = 0.0
    mark: Mark = Mark.ASSUMED

    def __post_init__(self) -> None:
        for name, low in (("density", True), ("correlation", False)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1 or (low and value == 0):
                raise InputError(f"{name} of rows must be {'above' if low else 'from'} 0 to 1, not {value!r}")

    def union(self, tokens: int) -> float:
        """Share of the lines that one of ``tokens`` keeps, expected."""
        p, r = self.density, self.correlation
        left = 1.0
        if r == 1:
            return p
        for done in range(tokens):
            # Of lines that `done` tokens left out, the share that the next one leaves out, too (beta-binomial).
            left *= ((1 - p) * (1 - r) + done * r) / (1 - r + done * r)
            if left < 1e-12:
                return 1.0
        return 1 - left

    def lines(self, of: int, tokens: int) -> int:
        """Lines that one of ``tokens`` keeps, of ``of``: rounded up, one at least."""
        # What floats add is far below a billionth of a line.
        return min(max(ceil(of * self.union(tokens) - 1e-9 * of), 1), of)

    def __str__(self) -> str:
        return f"density {self.density:.4g}, correlation {self.correlation:.3g}, {self.mark}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Of the ``of`` lines of a weight ``along`` its inputs or outputs a step reads those of the product alone.

    ``form``: by which rule (`row_forms.FORMS`).
    """

    __pydantic_config__ = _STRICT

    along: Along
    of: int
    form: str
    alike: Alike

    def __post_init__(self) -> None:
        require_choice("rows along", self.along, ("inputs", "outputs"))
        require_int("lines of a weight", self.of, 1, MAX_DIM)

    def check(self, name: str, gemm: Gemm, weight: Literal["a", "b"], sparse: str) -> None:
        """Refuse a product of groups, or of more lines than there are, or one that is ``sparse`` besides."""
        if sparse:
            raise InputError(f"{name!r} is {sparse} and leaves out rows: one of both")
        if gemm.groups > 1:
            raise InputError(f"{name!r} has {gemm.groups} groups, whose lines are not told apart: it skips no rows")
        require_int(f"{self.along} of {name!r}, which keeps rows of {self.of},", self.kept(gemm, weight), 1, self.of)

    def kept(self, gemm: Gemm, weight: Literal["a", "b"]) -> int:
        """Lines that are read."""
        if self.along == "inputs":
            return gemm.k
        return gemm.n if weight == "b" else gemm.m

    def __str__(self) -> str:
        return f"{self.form}, {self.along} of {self.of:,} ({self.alike})"


OptionalRows = Annotated[Rows | None, Field(exclude_if=lambda rows: rows is None)]


def alike_of(mask: npt.NDArray[Any], mark: Mark = Mark.MEASURED) -> Alike:
    """Density and correlation of a mask, bool [tokens, lines]: over all pairs of tokens, so without what one token by
    itself says."""
    import numpy as np

    tokens, lines = mask.shape
    if tokens < 2 or not mask.any():
        raise InputError(f"a mask of {tokens} tokens x {lines}, {int(mask.sum())} of them kept, says nothing of rows")
    kept = np.count_nonzero(mask, axis=0).astype(np.float64)
    p = float(kept.sum()) / mask.size
    both = float((kept * (kept - 1)).sum()) / (tokens * (tokens - 1) * lines)
    spread = p * (1 - p)
    return Alike(density=p, correlation=min(max((both - p * p) / spread, 0.0), 1.0) if spread else 1.0, mark=mark)
