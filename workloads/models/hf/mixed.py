"""Inputs of models that put images among the tokens of a text (LLaVA, PaliGemma, Qwen-VL): one image a sample.

How many tokens an image becomes, the model itself says: its image part is asked for the features of one, without data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...gemm import MAX_DIM
from ...tracing.provenance import tensors_in
from ..language import require_seq
from ..source import StepInputs

__all__ = ["image_token", "mixed_inputs"]

_BEHIND = 512
"""Tokens of text where the image alone fills the default length."""


def image_token(config: Any) -> int | None:
    """The token that stands for a part of an image; None where a configuration names none."""
    for name in ("image_token_id", "image_token_index"):
        token = getattr(config, name, None)
        if type(token) is int and token >= 0:
            return token
    return None


def mixed_inputs(
    batch: int | None,
    seq: int | None,
    *,
    model: Any,
    config: Any,
    accepted: Mapping[str, Any],
    shape: tuple[int, int, int],
    default: tuple[int, int],
    refusal: InputError,
) -> StepInputs:
    """``seq`` tokens a sample, those of the image first; ``refusal`` is raised where the image part says no number."""
    token = image_token(config)
    found = _image(model, config, accepted, shape)
    if token is None or found is None:
        raise refusal
    pixels, tokens = found
    longest = getattr(config.get_text_config(), "max_position_embeddings", None) or MAX_DIM
    count, length = batch or default[0], seq or (default[1] if default[1] > tokens else tokens + _BEHIND)
    require_seq(config.model_type, length, longest)
    if length <= tokens:
        raise InputError(
            f"sequence length {length} leaves no room for text: an image of model {config.model_type!r} is {tokens} "
            f"tokens; ask for {tokens + 1} at least"
        )
    kwargs = {
        "input_ids": _ids(config, token, count, length, tokens),
        **{name: torch.cat([value] * count) for name, value in pixels.items()},
    }
    if "attention_mask" in accepted:
        kwargs["attention_mask"] = torch.ones(count, length, dtype=torch.bool)
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in accepted:
            kwargs[name] = (kwargs["input_ids"] == token).long()
    said = f"{count} x {length} tokens, {tokens} of them of an image of {' x '.join(map(str, shape))}"
    return StepInputs(args=(), kwargs=kwargs, batch=count, shape=said)


def _ids(config: Any, token: int, count: int, length: int, tokens: int) -> Tensor:
    """Token ids with values: those of the image first, then others that stand for nothing special."""
    special = {token, *(value for name, value in vars(config).items() if name.endswith(("_id", "_index")))}
    plain = next(number for number in range(1, len(special) + 2) if number not in special)
    ids = torch.full((count, length), plain, dtype=torch.long)
    ids[:, :tokens] = token
    return ids


def _image(
    model: Any, config: Any, accepted: Mapping[str, Any], shape: tuple[int, int, int]
) -> tuple[dict[str, Tensor], int] | None:
    """Pixels of one image as the model reads them, and the tokens that they become; None where it does not say."""
    width = config.get_text_config().hidden_size
    for pixels in _forms(config, accepted, shape):
        try:
            with torch.no_grad():
                features = model.get_image_features(**pixels)
        except (InputError, RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            continue
        elements = sum(tensor.numel() for tensor in tensors_in(getattr(features, "pooler_output", features)))
        if elements and elements % width == 0:
            return pixels, elements // width
    return None


def _forms(config: Any, accepted: Mapping[str, Any], shape: tuple[int, int, int]) -> list[dict[str, Tensor]]:
    """One image in the forms that models read: as it is, with its size, in patches with their grid."""
    if "image_grid_thw" in accepted:
        vision = config.vision_config
        patch, frames = vision.patch_size, vision.temporal_patch_size
        rows, columns = (side // patch // vision.spatial_merge_size * vision.spatial_merge_size for side in shape[1:])
        pixels = torch.empty(rows * columns, shape[0] * frames * patch * patch)
        return [{"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, rows, columns]])}]
    one = {"pixel_values": torch.empty(1, *shape)}
    return [one, {**one, "image_sizes": torch.tensor([shape[1:]])}] if "image_sizes" in accepted else [one]
