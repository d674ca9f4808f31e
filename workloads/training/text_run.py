"""A training of the model of characters, which can be killed and resumed, and looked at on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoint import load_checkpoint, save_checkpoint
from ..data.text import TextData
from ..errors import InputError, reading, require_int
from ..files import alone, remove_parts
from ..strict import dump_json
from .control import controlled
from .experts import unlike
from .run import CHECKPOINT
from .state import require_text_state
from .text_spec import TextSpec

__all__ = ["LENGTH", "SAVE_EVERY", "TextRun", "text_loss"]

LENGTH = 64
"""Characters of a piece that are read."""
SAVE_EVERY = 100
"""Steps after which a checkpoint is written."""
_BATCH = 32
_SHARED = 5e-2
"""Of the loss that has tokens in a row share experts, for each network (the factor of BlockFFN's repository)."""
_VERSION = 1
_PATIENCE = 5.0
"""Seconds: a process that was killed ends a moment later."""

Progress = Callable[[int, int], None]


def text_loss(model: nn.Module, read: Tensor) -> Tensor:
    """Of ``model`` on ``read``, int64 [pieces, characters], each from its second character on: nats, a scalar."""
    scores = model(input_ids=read[:, :-1]).logits
    return functional.cross_entropy(scores.flatten(0, 1), read[:, 1:].flatten())


class TextRun:
    """The training of ``spec`` on ``text``, behind ``step`` steps; ``model`` is what it has made of it.

    With a ``folder``, a checkpoint is kept there, and a training that is there goes on: it ends in the same bits as one
    that was never interrupted.
    """

    def __init__(self, spec: TextSpec, text: TextData, folder: Path | None = None) -> None:
        self.spec, self.text, self.folder, self.step = spec, text, folder, 0
        with controlled(1, torch.device("cpu")):
            torch.manual_seed(spec.seed)
            self.model, self._routed = spec.build()
            self._random = torch.get_rng_state()
        self._optimizer = torch.optim.AdamW(self.model.parameters(), spec.rate(0))
        # What is there and no file is refused, not trained over.
        if folder is not None and os.path.lexists(folder / CHECKPOINT):
            with self._alone():
                remove_parts(folder / CHECKPOINT)
                self._load(folder / CHECKPOINT)

    def until(self, step: int, progress: Progress | None = None) -> nn.Module:
        """The model behind ``step`` steps. SIGINT ends the current step, writes the checkpoint and raises
        KeyboardInterrupt."""
        require_int("step", step, self.step, self.spec.steps)
        if step > self.step:
            with self._alone(), controlled(1, torch.device("cpu")) as stop:
                torch.set_rng_state(self._random)
                self.model.train()
                while self.step < step:
                    self._advance()
                    if progress is not None:
                        progress(self.step, self.spec.steps)
                    stopping = stop() and self.step < self.spec.steps
                    if stopping or self.step == step or self.step % SAVE_EVERY == 0:
                        self._random = torch.get_rng_state()
                        self._save()
                    if stopping:
                        raise KeyboardInterrupt
        return self.model.eval()

    def _alone(self) -> AbstractContextManager[None]:
        return nullcontext() if self.folder is None else alone(self.folder, "training", _PATIENCE)

    def _advance(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.spec.rate(self.step)
        begins = torch.randint(len(self.text.train) - LENGTH - 1, (_BATCH, 1))
        loss = text_loss(self.model, self.text.train[begins + torch.arange(LENGTH + 1)])
        for network in self._routed:
            loss = loss + _SHARED * unlike(network.scores)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        self.step += 1

    def _state(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "spec": dump_json(TextSpec, self.spec).decode(),
            "data": self.text.fingerprint,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": self._random,
        }

    def _save(self) -> None:
        if not all(bool(torch.isfinite(held).all()) for held in self.model.state_dict().values()):
            raise InputError(f"step {self.step}: a weight is not finite after it; the last checkpoint stays")
        if self.folder is not None:
            save_checkpoint(self.folder / CHECKPOINT, self._state())

    def _load(self, path: Path) -> None:
        state, own = load_checkpoint(path, _VERSION), self._state()
        for name, what in (("spec", "another training"), ("data", "a training on another text")):
            if state.get(name) != own[name]:
                told = str(state.get(name))[:300]
                raise InputError(f"{path}: is of {what}: {told}, not {own[name]}; name another folder")
        try:
            require_text_state(state, own, self._optimizer, self.spec.rate, self.spec.steps)
        except InputError as error:
            raise InputError(f"{path}: is no checkpoint of this training: {error}") from error
        with reading(str(path), "a checkpoint of this training"):
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
        self.step, self._random = state["step"], state["random"]
