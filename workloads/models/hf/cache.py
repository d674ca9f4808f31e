"""Keys and values of the tokens before, as a causal model of transformers is given them: buffers written in place.

transformers' own cache concatenates, which moves all of it at every token; a machine adds one token's rows.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..source import Generation, StepInputs
from .library import transformers

__all__ = ["generation_of"]


@cache
def _layer() -> Any:
    """The cache of one layer; a class below one of transformers, which is imported late."""
    from transformers.cache_utils import DynamicLayer

    class Rows(DynamicLayer):  # type: ignore[misc]
        """Keys and values [batch, heads, tokens, width], each as wide and with as many heads as the model keeps."""

        def __init__(self, past: int) -> None:
            super().__init__()
            self.past = past

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            self.keys, self.values = (self._with(new) for new in (key_states, value_states))
            self.is_initialized = True
            return self.keys, self.values

        def _with(self, new: Tensor) -> Tensor:
            *outer, tokens, width = new.shape
            held = new.detach().new_empty(*outer, self.past + tokens, width)
            held.narrow(-2, self.past, tokens).copy_(new)
            return held

        def get_seq_length(self) -> int:
            return int(self.past if self.keys is None else self.keys.shape[-2])

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            return self.get_seq_length() + query_length, 0

    return Rows


def generation_of(model_class: type[nn.Module], name: str, config: Any) -> Generation | None:
    """How a model that writes text is used; None where it is no causal one that keeps keys and values."""
    if getattr(config, "is_encoder_decoder", False) or model_class not in _causal():
        return None
    longest = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    known = longest if type(longest) is int and longest > 0 else None
    return Generation(inputs=partial(_inputs, name=name), longest=known)


def _causal() -> set[type]:
    return set(transformers().MODEL_FOR_CAUSAL_LM_MAPPING.values())


def _inputs(model: Any, batch: int, past: int, tokens: int, *, name: str) -> StepInputs:
    """``tokens`` of each sample behind ``past`` others, and what is kept of those."""
    from transformers.cache_utils import Cache

    layers = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    if type(layers) is not int:
        raise InputError(f"model {name!r}: its configuration has no num_hidden_layers, so its KV cache is not known")
    kwargs = {
        "input_ids": torch.zeros(batch, tokens, dtype=torch.long),
        "attention_mask": torch.ones(batch, past + tokens, dtype=torch.bool),
        "past_key_values": Cache(layers=[_layer()(past) for _ in range(layers)]),
        "use_cache": True,
        # Only the last token's scores are asked for, as transformers' generate does.
        "logits_to_keep": 1,
    }
    behind = f" behind {past}" if past else ""
    return StepInputs(args=(), kwargs=kwargs, batch=batch, shape=f"{batch} x {tokens}{behind}")
