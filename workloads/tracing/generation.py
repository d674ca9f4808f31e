"""A step that writes text: how long it and what is before it are, and the keys and values that it leaves."""

from __future__ import annotations

from ..errors import InputError
from ..models.source import ModelSource, StepInputs
from ..phase import Cached, Use
from .traffic import dtype_name

__all__ = ["cached_of", "lengths_of"]


def lengths_of(source: ModelSource, use: Use, seq: int | None, context: int | None) -> tuple[int, int]:
    """Tokens of a sample before the step, and in it."""
    if source.generation is None:
        raise InputError(
            f"model {source.name!r} keeps no keys and values of earlier tokens, so there is no {use}: use infer, or a "
            "causal model of transformers, such as gpt2, llama2_7b or its config.json"
        )
    if seq is not None:
        raise InputError(f"sequence length {seq} is for train and infer; {use} takes the tokens of the prompt: context")
    longest = source.generation.longest
    asked = context if context is not None else min(longest - 1 if longest else 1024, 1024)
    most = (longest or 2**24) - (use == "decode")
    if not 1 <= asked <= most:
        room = "" if use == "prefill" else ", which leaves room for the token that is made"
        raise InputError(
            f"context {asked} of model {source.name!r} must be from 1 to {most:,}{room}: its positions end at "
            f"{longest or 2**24:,}"
        )
    return (asked, 1) if use == "decode" else (0, asked)


def cached_of(source: ModelSource, inputs: StepInputs) -> tuple[Cached, ...]:
    """What the step leaves in the cache."""
    found = []
    for number, layer in enumerate(inputs.kwargs["past_key_values"].layers):
        for what in ("keys", "values"):
            held = getattr(layer, what)
            if held is None:
                raise InputError(
                    f"model {source.name!r}: layer {number} keeps no {what} in the cache that it is given, so its "
                    "state between tokens is not known; use infer"
                )
            found.append(Cached(name=f"layers.{number}.{what}", dtype=dtype_name(held.dtype), elements=held.numel()))
    return tuple(found)
