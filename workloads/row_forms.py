"""Forms in which tokens choose the rows of weights that they read, and what is said of a step in such a form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import InputError, nearest
from .recorded import Recorded
from .rows import Alike, alike_of
from .step import MatrixOp

__all__ = ["FORMS", "AskedRows", "Form"]

Skips = Literal["inputs", "down", "ffn"]
Predictor = Literal["", "gate", "first inputs", "low rank", "signs", "router"]
Rest = Literal["", "low rank", "state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How tokens choose lines. ``skips``: the inputs of every linear layer; those of layers behind a ReLU, or of the
    second layers of feed-forward networks (``down``); or the neurons of such a network, in its first layers, too
    (``ffn``). ``predictor``: what scores neurons before their layer is done, "" where the value itself is looked at.
    ``looks``: how often every score is worked on by the vector unit; ``beside``: whether each has a number of its own,
    a norm or a threshold. ``rest``: what stands for the lines that are left out: nothing, a product of low rank of
    them, or what they gave the sums of the token before, which are kept, as its inputs are."""

    name: str
    title: str
    skips: Skips
    predictor: Predictor = ""
    looks: int = 1
    beside: bool = False
    rest: Rest = ""
    paper: str = ""


FORMS = {
    form.name: form
    for form in (
        Form(name="relu", title="zeros behind a ReLU", skips="down", paper="lazy neuron, arXiv 2210.06313"),
        Form(name="teal", title="inputs above a threshold a tensor", skips="inputs", paper="FasterDecoding/TEAL"),
        Form(
            name="wina",
            title="inputs times norms of their weights, above a threshold",
            skips="inputs",
            looks=2,
            beside=True,
            paper="microsoft/wina",
        ),
        Form(
            name="rsparse",
            title="inputs above a threshold a tensor, a product of low rank for the others",
            skips="inputs",
            rest="low rank",
            paper="R-Sparse, arXiv 2504.19449",
        ),
        Form(
            name="delta",
            title="inputs that have changed by more than a threshold since the token before",
            skips="inputs",
            looks=2,
            rest="state",
            paper="delta activations, arXiv 2107.07305",
        ),
        Form(name="cats", title="gate above a threshold a layer", skips="ffn", predictor="gate"),
        Form(
            name="chess",
            title="gate above a threshold a channel",
            skips="ffn",
            predictor="gate",
            beside=True,
            paper="arXiv 2409.01366",
        ),
        Form(
            name="spark",
            title="statistical top-k of the product of the first inputs",
            skips="ffn",
            predictor="first inputs",
            looks=3,
            paper="Spark Transformer, arXiv 2506.06644",
        ),
        Form(
            name="blockffn",
            title="neurons of the experts that a router with a ReLU lets pass",
            skips="ffn",
            predictor="router",
            paper="BlockFFN, arXiv 2507.08771",
        ),
        Form(name="lowrank", title="scores of a product of low rank", skips="ffn", predictor="low rank"),
        Form(name="sign", title="scores of a product of signs", skips="ffn", predictor="signs"),
    )
}
"""By name. `spark` looks three times: mean and variance of the scores, and the threshold that is made of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRows:
    """A form, and what tokens keep: one ``alike`` for all layers, or by layer as it was ``recorded``."""

    form: Form
    alike: Alike | None = None
    recorded: Recorded | None = None

    @classmethod
    def read(cls, text: str) -> AskedRows:
        """Of ``teal@0.5``, ``teal@0.5:0.2`` with a correlation of tokens, or ``relu@rows.npz``, a file of
        `weft record`."""
        name, at, rest = text.partition("@")
        if name not in FORMS:
            raise InputError(f"rows {text!r}: form {name!r} is unknown: {nearest(name, FORMS)}")
        form = FORMS[name]
        if not at or not rest:
            raise InputError(f"rows {text!r} is not of the form {name}@0.5, {name}@0.5:0.2 or {name}@FILE.npz")
        if rest.endswith(".npz"):
            found = Recorded.read(Path(rest))
            if found.about.said.partition("@")[0] != name:
                raise InputError(f"rows {text!r}: the file was recorded as {found.about.said}, not as {name}")
            return cls(form=form, recorded=found)
        try:
            numbers = [float(number) for number in rest.split(":")]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 2:
            raise InputError(f"rows {text!r} is not of the form {name}@0.5, {name}@0.5:0.2 or {name}@FILE.npz")
        return cls(form=form, alike=Alike(density=numbers[0], correlation=(*numbers, 0.0)[1]))

    def of(self, op: MatrixOp, inputs: int) -> Alike:
        """What tokens keep of the ``inputs`` of a layer."""
        if self.alike is not None:
            return self.alike
        assert self.recorded is not None, "one of both is given"
        mask = self.recorded.inputs.get(op.name)
        if mask is None:
            hint = nearest(op.name, self.recorded.inputs)
            raise InputError(f"the record of {self.recorded.about.model!r} has no input of layer {op.name!r}: {hint}")
        if mask.shape[1] != inputs:
            raise InputError(
                f"the mask of the input of {op.name!r} is {mask.shape[1]} wide, but its layer has {inputs}"
            )
        return alike_of(mask)
