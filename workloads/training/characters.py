"""A small language model of characters, trained and looked at under a form of `row_forms.FORMS`.

`characters` of the zoo is an OPT: its feed-forward networks have a ReLU. It is trained as it is, or with the
statistical top-k of Spark in the place of the ReLU, and then tested with what a form leaves out left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import digest
from ..data.text import TextData, open_text
from ..errors import InputError, require_int
from ..recorded import Recorded
from ..row_forms import FORMS, Form, Rest
from ..rows import Alike
from ..skip_rows import rank_of_rest
from .recording import hearing, inputs_seen, linear_layers
from .text_run import LENGTH, TextRun, text_loss
from .text_spec import MODEL, STEPS, TextSpec

__all__ = [
    "CALIBRATED",
    "Kept",
    "above",
    "bits",
    "pieces",
    "record_characters",
    "recorded_rows",
    "trained_characters",
    "weighed",
]

CALIBRATED = 64
"""Pieces of the training text that thresholds are made of."""
_HALVINGS = 20
_TESTED = 256
"""Pieces of the test text."""

Progress = Callable[[int, int], None]
Kept = Mapping[str, Callable[[Tensor], Tensor]]
"""By linear layer: which elements of its input [..., inputs] it keeps, bool of that shape."""


def trained_characters(
    text: TextData,
    *,
    top_k: float | None = None,
    experts: bool = False,
    steps: int = STEPS,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """The model after so many steps of AdamW, at a rate that falls along a cosine; ``top_k``: the density of the
    statistical top-k that stands for the ReLU, None for the ReLU itself; ``experts``: its networks are in experts that
    tokens in a row are taught to share. With a ``folder``, a checkpoint is kept there, and a training that is there
    goes on. SIGINT raises KeyboardInterrupt."""
    spec = TextSpec(top_k=top_k, experts=experts, steps=steps, seed=seed)
    return TextRun(spec, text, folder).until(steps, progress)


def pieces(part: Tensor, many: int) -> Tensor:
    """Pieces from all over a text ``part``, int64 [characters]: int64 [many, 65]."""
    begins = torch.linspace(0, len(part) - LENGTH - 2, many).long()[:, None]
    return part[begins + torch.arange(LENGTH + 1)]


@torch.no_grad()
def bits(model: nn.Module, text: TextData, kept: Kept | None = None, rest: Rest = "") -> float:
    """Bits a character of the test text, where linear layers read nothing of their input but what is ``kept``; for the
    others stands the ``rest`` of a form."""
    with _leaving_out(model, kept or {}, rest):
        return float(text_loss(model.eval(), pieces(text.test, _TESTED))) / math.log(2)


@contextmanager
def _leaving_out(model: nn.Module, kept: Kept, rest: Rest) -> Iterator[None]:
    whole: dict[nn.Module, Tensor] = {}

    def cut(name: str, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        whole[layer] = args[0]
        mask = kept[name](args[0])
        return (_held(args[0], mask) if rest == "state" else args[0] * mask, *args[1:])

    def add(low: Tensor, layer: nn.Module, args: tuple[Any, ...], made: Tensor) -> Tensor:
        found: Tensor = made + (whole[layer] - args[0]) @ low.T
        return found

    layers = [(name, module) for name, module in linear_layers(model) if name in kept]
    hooks = []
    if rest == "low rank":
        hooks = [layer.register_forward_hook(partial(add, _low_rank(layer.weight))) for _, layer in layers]
    try:
        with hearing(layers, cut):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _low_rank(weight: Tensor) -> Tensor:
    """The matrix nearest to ``weight`` of the rank that a step pays for."""
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    rank = rank_of_rest(*weight.shape)
    found: Tensor = (u[:, :rank] * s[:rank]) @ v[:rank]
    return found.to(weight.dtype)


def _held(x: Tensor, changed: Tensor) -> Tensor:
    """``x``, of pieces of `LENGTH` tokens, with the last value of every input that was read, at each token."""
    tokens, fresh = (each.reshape(-1, LENGTH, x.shape[-1]) for each in (x, changed))
    found, held = torch.empty_like(tokens), torch.zeros_like(tokens[:, 0])
    for t in range(LENGTH):
        held = torch.where(fresh[:, t], tokens[:, t], held)
        found[:, t] = held
    return found.reshape(x.shape)


def _changed(limit: float, x: Tensor) -> Tensor:
    """Which inputs differ by more than ``limit`` from what was last read of them, of pieces of `LENGTH` tokens."""
    tokens = x.reshape(-1, LENGTH, x.shape[-1])
    found, held = torch.empty_like(tokens, dtype=torch.bool), torch.zeros_like(tokens[:, 0])
    for t in range(LENGTH):
        found[:, t] = (tokens[:, t] - held).abs() > limit
        held = torch.where(found[:, t], tokens[:, t], held)
    return found.reshape(x.shape)


def _limit_of_changes(x: Tensor, density: float) -> float:
    """By bisection, the limit above which a share ``density`` of ``x`` changes."""
    low, high = 0.0, float(x.abs().max()) * 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        more = float(_changed(middle, x).float().mean()) > density
        low, high = (middle, high) if more else (low, middle)
    return high


@torch.no_grad()
def kept_under(model: nn.Module, text: TextData, form: Form, density: float | None) -> Kept:
    """What layers keep under ``form``: what is not zero; or what lies above a threshold a layer, which the training
    text gives so that a share ``density`` is kept."""
    layers = linear_layers(model)
    if form.skips == "down" or form.predictor in ("first inputs", "router"):
        return {name: lambda x: x != 0 for name, _ in layers if name.endswith("fc2")}
    assert density is not None, "asked for before"
    seen: dict[str, Tensor] = {}
    # The last layer scores the letters.
    inner = {name: module.weight.norm(dim=0) if form.beside else None for name, module in layers[:-1]}

    def note(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        seen[name] = weighed(args[0], inner[name]).flatten()

    def note_input(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        seen[name] = args[0]

    with hearing(layers[:-1], note_input if form.rest == "state" else note):
        model(input_ids=pieces(text.train, CALIBRATED)[:, :-1])
    if form.rest == "state":
        return {name: partial(_changed, _limit_of_changes(x, density)) for name, x in seen.items()}
    # torch.quantile takes 2^24 elements at most.
    limits = {
        name: float(values.kthvalue(max(round((1 - density) * len(values)), 1))[0]) for name, values in seen.items()
    }
    return {name: partial(above, inner[name], limit) for name, limit in limits.items()}


def weighed(x: Tensor, norms: Tensor | None) -> Tensor:
    """How much each input of ``x``, float32 [..., inputs], weighs, of that shape: its size, times that of its
    ``norms``, float32 [inputs]."""
    return x.abs() if norms is None else x.abs() * norms


def above(norms: Tensor | None, limit: float, x: Tensor) -> Tensor:
    """Which inputs of ``x``, float32 [..., inputs], weigh more than ``limit``: bool [..., inputs]."""
    return weighed(x, norms) > limit


_RECORDED = ("relu", "teal", "wina", "rsparse", "delta", "spark", "blockffn")


def asked_form(text: str) -> tuple[Form, float | None]:
    """Of ``relu``, ``teal@0.5``, ``wina@0.5`` or ``spark@0.08``."""
    name, at, rest = text.partition("@")
    if name not in _RECORDED:
        known = f"form {name!r} is not recorded of {MODEL}" if name in FORMS else f"form {name!r} is unknown"
        raise InputError(f"rows {text!r}: {known}; choose one of {', '.join(_RECORDED)}")
    if name in ("relu", "blockffn"):
        if at:
            raise InputError(f"rows {text!r}: what a ReLU leaves is measured; write {name}")
        return FORMS[name], None
    try:
        density = float(rest)
    except ValueError:
        raise InputError(f"rows {text!r} is not of the form {name}@0.5") from None
    return FORMS[name], Alike(density=density).density


def record_characters(
    rows: str = "relu",
    *,
    data: str = "pydoc",
    steps: int = STEPS,
    tokens: int = 256,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Recorded:
    """Train the model and keep which inputs of its layers ``tokens`` of the test text keep under the form ``rows``;
    ``folder`` as of :func:`trained_characters`."""
    form, density = asked_form(rows)
    require_int("tokens to record", tokens, 2, _TESTED * LENGTH)
    text = open_text(data)
    top_k = density if form.predictor == "first inputs" else None
    experts = form.predictor == "router"
    model = trained_characters(
        text, top_k=top_k, experts=experts, steps=steps, seed=seed, folder=folder, progress=progress
    )
    return recorded_rows(model, text, rows, tokens)


@torch.no_grad()
def recorded_rows(model: nn.Module, text: TextData, rows: str, tokens: int = 256) -> Recorded:
    """What layers of a trained ``model`` keep of ``tokens`` from all over the test text."""
    form, density = asked_form(rows)
    kept = kept_under(model, text, form, density)
    looked_at = pieces(text.test, -(-tokens // 4))[:, :-1]

    def seen_by(name: str, x: Tensor) -> Tensor:
        # A few tokens of a piece, late in it, so that they are of many texts.
        found = kept[name](x) if name in kept else torch.ones_like(x, dtype=torch.bool)
        return found.reshape(len(looked_at), -1, x.shape[-1])[:, -4:]

    with (
        _leaving_out(model, kept if form.skips == "inputs" else {}, form.rest),
        inputs_seen(model, seen_by, tokens) as seen,
    ):
        model(input_ids=looked_at)
    masks = [(name, "input", mask) for name, mask in seen.items() if name in kept]
    return Recorded.made(
        masks,  # type: ignore[arg-type]
        model=MODEL,
        data=text.name,
        scheme="dense",
        pattern=None,
        weights=digest(dict(model.state_dict())),
        examples=text.fingerprint,
        shape=(),
        classes=0,
        widen=1.0,
        said=rows,
        score=bits(model, text, kept, form.rest),
    )
