"""Forms in which a model shrinks, and what is asked of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import InputError, nearest

__all__ = ["FORMS", "Asked", "Form", "Kind"]

Kind = Literal["channels", "scales", "rank", "trp", "maestro", "tokens", "core", "slice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """``of``: what the share that is kept is a share of."""

    name: Kind
    title: str
    of: str
    paper: str


FORMS = {
    str(form.name): form
    for form in (
        Form(
            name="channels",
            title="channels with everything that depends on them, ranked in each group",
            of="channels of every group",
            paper="DepGraph, arXiv 2301.12900",
        ),
        Form(
            name="scales",
            title="the same, ranked among all layers of one size of feature map",
            of="channels of every size",
            paper="group channel pruning, arXiv 2306.01526",
        ),
        Form(name="rank", title="two factors by SVD", of="squares of every weight", paper="-"),
        Form(
            name="trp",
            title="two factors, of weights that were cut to their rank while they trained",
            of="squares of every weight",
            paper="trained rank pruning, arXiv 2004.14566",
        ),
        Form(
            name="maestro",
            title="two factors, trained as such, whose columns training orders",
            of="squares of every weight",
            paper="Maestro, arXiv 2308.14929",
        ),
        Form(
            name="tokens",
            title="tokens leave that attention says least of, or that are like another",
            of="tokens behind each of some blocks",
            paper="Zero-TPrune, arXiv 2305.17328",
        ),
        Form(
            name="core",
            title="tokens leave that share the fewest neurons with the others",
            of="tokens behind each of some blocks",
            paper="CoreMatching, arXiv 2505.19235",
        ),
        Form(
            name="slice",
            title="a residual stream rotated to its principal components, the last deleted",
            of="the residual stream",
            paper="SliceGPT, arXiv 2401.15024",
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A form, and the share that it keeps."""

    form: Form
    share: float

    @classmethod
    def read(cls, text: str) -> Asked:
        """Of ``channels@0.5``, ``rank@0.9`` and so on."""
        name, _, rest = text.partition("@")
        if name not in FORMS:
            raise InputError(f"form {name!r} of shrinking is unknown: {nearest(name, FORMS)}")
        try:
            share = float(rest)
        except ValueError:
            share = 0.0
        if not 0.0 < share < 1.0:
            raise InputError(f"{text!r} is not of the form {name}@0.5, with a share above 0 and below 1 that is kept")
        return cls(form=FORMS[name], share=share)

    def __str__(self) -> str:
        return f"{self.form.name}@{self.share:g}"
