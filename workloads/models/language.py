"""Language models defined here: the LSTM of Zaremba et al., and the loss of every model that scores a vocabulary."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import require_int
from .source import ModelSource, StepInputs
from .zoo import ZooModel

__all__ = ["LSTMLanguageModel", "logits_loss", "require_seq", "zoo_source"]

_LONGEST = 2**24


def require_seq(name: str, seq: int, longest: int = _LONGEST) -> None:
    """Refuse a sequence length that model ``name`` cannot take."""
    require_int(f"sequence length of model {name!r}", seq, 1, longest)


def logits_loss(output: Any, _: StepInputs) -> Tensor:
    """Mean cross-entropy, a float32 scalar, of all the scores, classes last, of a tensor or of an output with
    ``logits``."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    scores = logits.flatten(0, -2).float()
    return functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


class LSTMLanguageModel(nn.Module):
    """Embedding, stacked LSTM and a linear layer over the vocabulary; tokens are [steps, batch]."""

    def __init__(self, vocabulary: int = 10_000, width: int = 650, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores, of the dtype of the model, [steps, batch, vocabulary], of ``tokens``, int64 [steps, batch]."""
        hidden, _ = self.lstm(self.embedding(tokens))
        return self.head(hidden)  # type: ignore[no-any-return]


def _inputs(batch: int | None, seq: int | None, *, model: ZooModel, size: int) -> StepInputs:
    count = batch or model.batch
    steps = size if seq is None else seq
    # nn.LSTM becomes one product per time step, so the trace grows with the sequence.
    require_seq(model.name, steps, 4096)
    return StepInputs(args=(torch.empty(steps, count, dtype=torch.long),), batch=count, shape=f"{steps} x {count}")


def zoo_source(model: ZooModel, size: int) -> ModelSource:
    """The source of the LSTM language model at a default sequence length of ``size``."""
    return ModelSource(
        name=model.name,
        title=model.title,
        build=LSTMLanguageModel,
        inputs=partial(_inputs, model=model, size=size),
        loss=logits_loss,
    )
