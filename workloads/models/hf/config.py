"""The model that a ``config.json`` describes: which class, in which type, and what is refused of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import InputError, nearest, reading
from ...strict import read_text
from ..source import ModelSource
from .cache import generation_of
from .inputs import inputs_of
from .library import EAGER, construct, first_lines, quiet, transformers
from .loss import loss_of

__all__ = ["hf_config_source"]

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

_IGNORED = frozenset(
    {
        "auto_map",
        "trust_remote_code",  # code of others
        "attn_implementation",
        "experts_implementation",  # may name a kernel to download
        "return_dict",
        "use_return_dict",
        "torchscript",
        "output_attentions",
        "output_hidden_states",  # form of the output
        "quantization_config",  # training starts from the unquantised model
    }
)
"""Keys of a ``config.json`` that do not reach transformers, like every key that starts with an underscore."""

_MAX_LAYERS = 4096


def hf_config_source(path: str | Path) -> ModelSource:
    """The model that a Hugging Face ``config.json`` (or the folder that holds one) describes, with fresh weights.

    Text models default to 8 sequences of ``min(max_position_embeddings, 1024)`` tokens, image models to 64 images of
    the configuration's own size. Anything that is not such a configuration is an :class:`InputError`.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    raw = _read(file)
    named = _named_class(raw)
    config = _config(file, raw, named)
    model_class = _model_class(file, raw, config, named)
    dtype = _dtype(file, raw, config)
    build = partial(_build, file, model_class, config, dtype)
    with torch.device("meta"):
        model = build()
    return ModelSource(
        name=config.model_type if file.stem == "config" else file.stem,
        title=f"{model_class.__name__} of {file}",
        build=build,
        inputs=inputs_of(file, model, config),
        loss=partial(loss_of, model_class.__name__),
        dtype=dtype,
        generation=generation_of(model_class, config.model_type, config),
    )


def _read(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``, less the keys that must not reach transformers."""
    text = read_text(file)
    with reading(str(file), "JSON text"):
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
        cleaned: dict[str, Any] = _clean(raw)
    if not isinstance(raw, dict):
        raise InputError(f"{file}: a model configuration is a JSON object, not {type(raw).__name__}")
    return cleaned


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items() if k not in _IGNORED and not k.startswith("_")}
    return value


def _named_class(raw: Mapping[str, Any]) -> Any:
    """The first class in ``architectures`` that transformers itself defines, or None."""
    library = transformers()
    named = raw.get("architectures")
    for name in named if isinstance(named, list) else []:
        if not isinstance(name, str) or not name.isidentifier():
            continue
        try:
            found = getattr(library, name, None)
        except (ImportError, RuntimeError):
            # Its module needs a library that is not installed.
            continue
        if isinstance(found, type) and issubclass(found, library.PreTrainedModel):
            return found
    return None


def _config(file: Path, raw: Mapping[str, Any], named: Any) -> Any:
    kind = raw.get("model_type")
    mapping = transformers().CONFIG_MAPPING
    if kind is None and named is not None:
        config_class = named.config_class
    elif kind is None:
        raise InputError(f"{file}: model_type is missing; it names the architecture, for example llama")
    elif not isinstance(kind, str) or kind not in mapping:
        raise InputError(f"{file}: model_type {kind!r} is unknown to transformers: {_near_type(str(kind))}")
    else:
        config_class = mapping[kind]
    settings = {k: v for k, v in raw.items() if k != "model_type"}
    try:
        with quiet():
            config = config_class(**{**settings, **EAGER})
    except Exception as error:
        raise InputError(f"{file}: {config_class.__name__} refuses it: {first_lines(error)}") from error
    layers = getattr(config, "num_hidden_layers", None)
    if type(layers) is int and layers > _MAX_LAYERS:
        raise InputError(f"{file}: num_hidden_layers must be at most {_MAX_LAYERS}, not {layers}")
    if hasattr(config, "apply_spec_augment"):
        config.apply_spec_augment = False  # it masks random frames, which multiplies nothing
    if hasattr(config, "use_cache"):
        config.use_cache = False
    return config


def _near_type(kind: str) -> str:
    """A suggestion that stays on one screen: transformers knows hundreds of types."""
    advice = nearest(kind, transformers().CONFIG_MAPPING)
    return advice if advice.startswith("did you mean") else "see the model types that transformers lists"


def _model_class(file: Path, raw: Mapping[str, Any], config: Any, named: Any) -> Any:
    """The class ``architectures`` names, else the head the configuration supports."""
    if named is not None:
        if not isinstance(config, named.config_class):
            raise InputError(
                f"{file}: architectures names {named.__name__}, which takes a {named.config_class.__name__}, "
                f"but model_type is {config.model_type!r}"
            )
        return named
    for mapping in _heads(config):
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    raise InputError(
        f"{file}: transformers has no model with a head of type {config.model_type!r}; name a class in architectures"
    )


def _heads(config: Any) -> tuple[Any, ...]:
    """transformers' tables of model classes, the one that suits ``config`` best first."""
    library = transformers()
    causal, masked = library.MODEL_FOR_CAUSAL_LM_MAPPING, library.MODEL_FOR_MASKED_LM_MAPPING
    image, translate = library.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, library.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    others = (
        library.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
        library.MODEL_FOR_CTC_MAPPING,
        library.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
        library.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING,
        library.MODEL_FOR_OBJECT_DETECTION_MAPPING,
        library.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
        library.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
        library.MODEL_FOR_DEPTH_ESTIMATION_MAPPING,
        library.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        library.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING,
        library.MODEL_FOR_TIME_SERIES_PREDICTION_MAPPING,
        library.MODEL_MAPPING,
    )
    if getattr(config, "is_encoder_decoder", False):
        return translate, *others
    # Every masked-language model can also be had as a decoder, which is rarely meant.
    if getattr(config, "is_decoder", False):
        return causal, image, masked, *others
    return masked, image, causal, *others


def _dtype(file: Path, raw: Mapping[str, Any], config: Any) -> torch.dtype | None:
    dtype = getattr(config, "dtype", None)
    if dtype is None:
        return None
    if dtype not in _DTYPES:
        shown = str(raw.get("dtype", raw.get("torch_dtype")))[:40]
        raise InputError(
            f"{file}: dtype {shown!r} cannot be trained: choose one of float64, float32, float16, bfloat16"
        )
    found: torch.dtype = dtype
    return found


def _build(file: Path, model_class: Any, config: Any, dtype: torch.dtype | None) -> nn.Module:
    try:
        return construct(model_class, config, dtype)
    except Exception as error:
        raise InputError(f"{file}: {model_class.__name__} cannot be built: {first_lines(error)}") from error
