"""A loss for the output of any head: cross-entropy of scores over classes, else the mean of what the head makes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...errors import InputError
from ..language import logits_loss
from ..source import StepInputs

__all__ = ["loss_of"]

_SCORES = ("logits", "class_queries_logits")
"""Scores over classes, classes last; of images (segmentation) in the second axis."""
_BESIDE = (
    "pred_boxes",
    "pred_masks",
    "masks_queries_logits",
    "start_logits",
    "end_logits",
    "prediction_logits",
    "seq_relationship_logits",
    "logits_per_image",
    "logits_per_text",
    "predicted_depth",
    "reconstruction",
    "spectrogram",
    "auxiliary_outputs_logits",
    "text_embeds",
    "image_embeds",
    "iou_scores",
    "logits_per_audio",
    "audio_values",
    "prediction_outputs",
    "regression_outputs",
)
"""What heads return besides or instead of scores; each counts by its mean."""


def loss_of(name: str, output: Any, inputs: StepInputs) -> Tensor:
    """Cross-entropy of the scores of ``name``, the mean of what else its head returns, of hidden states, or its own; a
    scalar of any float dtype."""
    scores = [found for key in _SCORES if isinstance(found := getattr(output, key, None), Tensor)]
    beside = [
        found for key in _BESIDE if isinstance(found := getattr(output, key, None), Tensor) and found.requires_grad
    ]
    if scores and scores[0].dim() > 1:
        loss = logits_loss(_classes_last(scores[0]), inputs)
        return sum((extra.float().mean() for extra in beside), loss)
    if scores or beside:
        first, *others = (extra.float().mean() for extra in (*scores, *beside))
        return sum(others, first)
    for key in ("last_hidden_state", "pooler_output"):
        hidden = getattr(output, key, None)
        if isinstance(hidden, Tensor):
            return hidden.float().mean()
    own = getattr(output, "loss", None)
    if isinstance(own, Tensor):
        # A likelihood, or what a model was to fill in.
        return own
    held = [key for key, value in dict(output).items() if isinstance(value, Tensor)] if hasattr(output, "items") else []
    raise InputError(
        f"{name} returns neither logits nor last_hidden_state, so there is no loss to differentiate; it returns "
        f"{', '.join(held) or type(output).__name__}. Give a loss of your own: file.py:function"
    )


def _classes_last(scores: Tensor) -> Tensor:
    return scores.movedim(1, -1) if scores.dim() == 4 else scores
