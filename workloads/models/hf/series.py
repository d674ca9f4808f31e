"""Inputs of models that continue time series: a configuration says all of their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..source import StepInputs

__all__ = ["reads_series", "series_inputs"]


def reads_series(config: Any, accepted: Mapping[str, Any]) -> bool:
    """Whether a model reads past values and its configuration says of how many steps."""
    channels = hasattr(config, "num_input_channels") or hasattr(config, "lags_sequence")
    return "past_values" in accepted and channels and isinstance(getattr(config, "context_length", None), int)


def series_inputs(
    batch: int | None, seq: int | None, *, config: Any, accepted: Mapping[str, Any], default: int
) -> StepInputs:
    """Past values of as many steps as the model looks back, the future to learn, and what goes with them."""
    if seq is not None:
        raise InputError(
            f"sequence length {seq} given, but model {config.model_type!r} reads {config.context_length} steps, as its "
            "context_length says"
        )
    count = batch or default
    kwargs = _lagged(config, count) if hasattr(config, "lags_sequence") else _patched(config, count)
    said = " x ".join(map(str, kwargs["past_values"].shape))
    known = {name: value for name, value in kwargs.items() if name in accepted}
    return StepInputs(args=(), kwargs=known, batch=count, shape=f"{said} steps")


def _patched(config: Any, count: int) -> dict[str, Tensor]:
    return {"past_values": torch.empty(count, config.context_length, config.num_input_channels)}


def _lagged(config: Any, count: int) -> dict[str, Tensor]:
    past, future = config.context_length + max(config.lags_sequence), config.prediction_length
    sizes = () if config.input_size == 1 else (config.input_size,)
    made: dict[str, Tensor] = {
        "past_values": torch.empty(count, past, *sizes),
        "past_observed_mask": torch.ones(count, past, *sizes, dtype=torch.bool),
        "past_time_features": torch.empty(count, past, config.num_time_features),
        "future_values": torch.empty(count, future, *sizes),
        "future_time_features": torch.empty(count, future, config.num_time_features),
    }
    if config.num_static_categorical_features:
        made["static_categorical_features"] = torch.zeros(
            count, config.num_static_categorical_features, dtype=torch.long
        )
    if config.num_static_real_features:
        made["static_real_features"] = torch.empty(count, config.num_static_real_features)
    return made
