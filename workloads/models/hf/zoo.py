"""Models of the zoo that transformers builds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..language import logits_loss
from ..source import ModelSource, StepInputs
from ..vision import image_inputs
from ..zoo import ZooModel
from .cache import generation_of
from .inputs import text_inputs
from .library import EAGER, construct, quiet, transformers

__all__ = ["zoo_classifier", "zoo_source"]

_RESNET18 = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
_LLAMA2 = {"max_position_embeddings": 4096}
_LLAMA2_70B = {
    **_LLAMA2,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}

_CHARACTERS = {
    "vocab_size": 97,
    "hidden_size": 128,
    "word_embed_proj_dim": 128,
    "ffn_dim": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "dropout": 0.0,
    "pad_token_id": None,
}
"""Of `data/text.py`; no letter is padding."""

_ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("ResNetForImageClassification", _RESNET18),
    "resnet50": ("ResNetForImageClassification", {}),
    "vit_b_16": ("ViTForImageClassification", {}),
    "swin_t": ("SwinForImageClassification", {}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", {}),
    "convnext_t": ("ConvNextForImageClassification", {}),
    "bert_base": ("BertForMaskedLM", {}),
    "gpt2": ("GPT2LMHeadModel", {}),
    "characters": ("OPTForCausalLM", _CHARACTERS),
    "llama2_7b": ("LlamaForCausalLM", _LLAMA2),
    "llama2_70b": ("LlamaForCausalLM", _LLAMA2_70B),
    "mixtral_8x7b": ("MixtralForCausalLM", {}),
}
"""Class and departures from its default configuration, per zoo name."""

_LEARNED = ("bert_base", "gpt2", "characters")
"""Models that learn a vector for each position."""
_BFLOAT16 = frozenset({"llama2_7b", "llama2_70b", "mixtral_8x7b"})


def _zoo_config(model: ZooModel, size: int, classes: int = 1000, channels: int = 3) -> tuple[Any, Any]:
    """Class and configuration of a zoo model."""
    class_name, changes = _ZOO[model.name]
    settings = {**EAGER, **changes, "use_cache": False}
    if model.kind == "image":
        settings |= {"num_labels": classes, "image_size": size, "num_channels": channels}
    elif model.name == "characters":
        settings["max_position_embeddings"] = size
    with quiet():
        model_class = getattr(transformers(), class_name)
        return model_class, model_class.config_class(**settings)


def _zoo_build(model: ZooModel, size: int, dtype: torch.dtype | None) -> nn.Module:
    model_class, config = _zoo_config(model, size)
    return construct(model_class, config, dtype)


def zoo_source(model: ZooModel, size: int) -> ModelSource:
    """The source of a zoo model at an image side, or a default sequence length, of ``size``."""
    dtype = torch.bfloat16 if model.name in _BFLOAT16 else None
    inputs: Callable[[int | None, int | None], StepInputs]
    generation = None
    if model.kind == "image":
        inputs = partial(
            image_inputs, name=model.name, default=model.batch, shape=(3, size, size), keyword="pixel_values"
        )
    else:
        learned = size if model.name in _LEARNED else None
        names = ("input_ids",) if model.name == "bert_base" else ("input_ids", "attention_mask")
        inputs = partial(text_inputs, name=model.name, default=(model.batch, size), longest=learned, names=names)
        model_class, config = _zoo_config(model, size)
        generation = generation_of(model_class, model.name, config)
    return ModelSource(
        name=model.name,
        title=model.title,
        build=partial(_zoo_build, model, size, dtype),
        inputs=inputs,
        loss=logits_loss,
        dtype=dtype,
        generation=generation,
    )


def zoo_classifier(model: ZooModel, size: int, classes: int, channels: int) -> nn.Module:
    """An image model of the zoo for images and classes of another number than ImageNet's."""
    model_class, config = _zoo_config(model, size, classes, channels)
    return construct(model_class, config, None)
