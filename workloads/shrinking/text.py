"""The language model of characters, trained and sliced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from ..data.text import open_text
from ..errors import InputError
from ..models.zoo import source
from ..one_line import OneLine
from ..phase import Use
from ..sliced import sliced_width
from ..step import Workload
from ..trace import trace_use
from ..training.characters import bits, pieces, trained_characters
from ..training.control import controlled
from ..training.text_spec import MODEL, STEPS
from .factors import parameter_count
from .form import Asked
from .slicing import sliced_opt

__all__ = ["SlicedText", "slice_characters", "sliced_to"]

_CALIBRATED = 256
"""Pieces of the training text that rotations are made of."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SlicedText(OneLine):
    """A sliced language model: bits a character of the test text as it was ``trained`` and ``cut``, ``parameters`` and
    the ``width`` of its stream before and after; no training follows."""

    asked: Asked
    data: str
    steps: int
    seed: int
    trained: float
    cut: float
    parameters: tuple[int, int]
    width: tuple[int, int]
    module: nn.Module = field(repr=False, compare=False)

    def step(self, use: Use = "decode", batch: int | None = None, context: int | None = None) -> Workload:
        """What the sliced model does in one step of use, as `trace_use` has it."""
        whole = source(MODEL)
        shapes = replace(whole, build=lambda: sliced_opt(whole.build(), None, self.asked.share))
        return replace(trace_use(shapes, use, batch=batch, context=context), model=f"{MODEL} {self.asked}")

    def _said(self) -> str:
        before, after = self.parameters
        return (
            f"{MODEL} on {self.data}, {self.asked}: {before:,} to {after:,} parameters, a stream of {self.width[1]} of "
            f"{self.width[0]}, {self.trained:.3f} bits a character as trained, {self.cut:.3f} cut"
        )


def slice_characters(
    by: Asked | str, *, data: str = "pydoc", steps: int = STEPS, seed: int = 0, progress: Progress | None = None
) -> SlicedText:
    """Train `characters` and slice it ``by`` ``slice@0.75`` and the like. SIGINT raises KeyboardInterrupt."""
    asked = Asked.read(by) if isinstance(by, str) else by
    if asked.form.name != "slice":
        raise InputError(f"{asked} is of classifiers of images; {MODEL}, a model of text, takes slice@0.75")
    model = trained_characters(open_text(data), steps=steps, seed=seed, progress=progress)
    return sliced_to(model, asked, data=data, steps=steps, seed=seed)


@torch.no_grad()
def sliced_to(model: nn.Module, asked: Asked, *, data: str = "pydoc", steps: int = STEPS, seed: int = 0) -> SlicedText:
    """The same of a model that is trained already, so many ``steps`` from ``seed``."""
    text = open_text(data)
    with controlled(1, torch.device("cpu")):
        small = sliced_opt(model, pieces(text.train, _CALIBRATED)[:, :-1], asked.share)
        scores = bits(model, text), bits(small, text)
    whole = model.config.hidden_size  # type: ignore[union-attr]
    return SlicedText(
        asked=asked,
        data=data,
        steps=steps,
        seed=seed,
        trained=scores[0],
        cut=scores[1],
        parameters=(parameter_count(model), parameter_count(small)),
        width=(int(whole), sliced_width(int(whole), asked.share)),  # type: ignore[arg-type]
        module=small,
    )
