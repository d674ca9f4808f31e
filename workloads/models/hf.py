"""Models built by Hugging Face transformers from a configuration: those of the zoo, and any ``config.json`` on disk.

Nothing is downloaded, no weight is read, and no code that a configuration names is ever run.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError, nearest, reading
from ..strict import read_text
from .language import logits_loss, require_seq
from .source import ModelSource, StepInputs
from .vision import image_inputs
from .zoo import ZooModel

__all__ = ["hf_config_source", "zoo_classifier", "zoo_source"]

# sdpa takes the math path on meta, which computes a bfloat16 model's attention in float32. Experts keep their default,
# grouped products: the others index with data or copy the weights once per token.
_EAGER = {"attn_implementation": "eager"}

_RESNET18 = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
_LLAMA2 = {"max_position_embeddings": 4096}
_LLAMA2_70B = {
    **_LLAMA2, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8,
}  # fmt: skip

_ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("ResNetForImageClassification", _RESNET18),
    "resnet50": ("ResNetForImageClassification", {}),
    "vit_b_16": ("ViTForImageClassification", {}),
    "swin_t": ("SwinForImageClassification", {}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", {}),
    "convnext_t": ("ConvNextForImageClassification", {}),
    "bert_base": ("BertForMaskedLM", {}),
    "gpt2": ("GPT2LMHeadModel", {}),
    "llama2_7b": ("LlamaForCausalLM", _LLAMA2),
    "llama2_70b": ("LlamaForCausalLM", _LLAMA2_70B),
    "mixtral_8x7b": ("MixtralForCausalLM", {}),
}
"""Class and departures from its default configuration, per zoo name."""

_BFLOAT16 = frozenset({"llama2_7b", "llama2_70b", "mixtral_8x7b"})

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

_IGNORED = frozenset({
    "auto_map", "trust_remote_code",  # code of others
    "attn_implementation", "experts_implementation",  # may name a kernel to download
    "return_dict", "use_return_dict", "torchscript", "output_attentions", "output_hidden_states",  # form of the output
    "quantization_config",  # training starts from the unquantised model
})  # fmt: skip
"""Keys of a ``config.json`` that do not reach transformers, like every key that starts with an underscore."""

_MAX_SEQ = 1024
_MAX_LAYERS = 4096
_IMAGE_BATCH = 64
_TEXT_BATCH = 8
_IMAGE_SIZE = 224


@cache
def _transformers() -> Any:
    """The library, imported so that it never looks at the network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    return transformers


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' advice (generation defaults, missing image libraries) while a model is built."""
    log = _transformers().utils.logging
    before = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(before)


def _construct(model_class: Any, config: Any, dtype: torch.dtype | None) -> nn.Module:
    with _quiet():
        model: nn.Module = model_class(config)
    return model if dtype is None else model.to(dtype)


def _longest(config: Any) -> int | None:
    """Positions the model has rows for; None where positions are computed."""
    if hasattr(config, "rope_parameters"):
        return None
    positions = getattr(config, "max_position_embeddings", None)
    if type(positions) is not int or positions <= 0:
        return None
    if "roberta" in config.model_type:
        # RoBERTa numbers its positions from behind the padding index.
        positions -= (config.pad_token_id or 0) + 1
    return positions


def _text_inputs(
    batch: int | None,
    seq: int | None,
    *,
    name: str,
    default: tuple[int, int],
    longest: int | None,
    names: tuple[str, ...],
) -> StepInputs:
    """Token ids for every one of ``names``, and a mask that keeps all where ``names`` asks for one."""
    count = batch or default[0]
    tokens = default[1] if seq is None else seq
    if longest is None:
        require_seq(name, tokens)
    else:
        require_seq(name, tokens, longest)
    kwargs = {
        key: torch.ones(count, tokens, dtype=torch.bool) if key.endswith("attention_mask")
        else torch.zeros(count, tokens, dtype=torch.long)
        for key in names
    }  # fmt: skip
    return StepInputs(args=(), kwargs=kwargs, batch=count, shape=f"{count} x {tokens}")


def _zoo_config(model: ZooModel, size: int, classes: int = 1000, channels: int = 3) -> tuple[Any, Any]:
    """Class and configuration of a zoo model."""
    class_name, changes = _ZOO[model.name]
    settings = {**_EAGER, **changes, "use_cache": False}
    if model.kind == "image":
        settings |= {"num_labels": classes, "image_size": size, "num_channels": channels}
    with _quiet():
        model_class = getattr(_transformers(), class_name)
        return model_class, model_class.config_class(**settings)


def _zoo_build(model: ZooModel, size: int, dtype: torch.dtype | None) -> nn.Module:
    model_class, config = _zoo_config(model, size)
    return _construct(model_class, config, dtype)


def zoo_source(model: ZooModel, size: int) -> ModelSource:
    """The source of a zoo model at an image side, or a default sequence length, of ``size``."""
    dtype = torch.bfloat16 if model.name in _BFLOAT16 else None
    inputs: Callable[[int | None, int | None], StepInputs]
    if model.kind == "image":
        inputs = partial(
            image_inputs, name=model.name, default=model.batch, shape=(3, size, size), keyword="pixel_values"
        )
    else:
        learned = size if model.name in ("bert_base", "gpt2") else None
        names = ("input_ids",) if model.name == "bert_base" else ("input_ids", "attention_mask")
        inputs = partial(_text_inputs, name=model.name, default=(model.batch, size), longest=learned, names=names)
    return ModelSource(
        name=model.name,
        title=model.title,
        build=partial(_zoo_build, model, size, dtype),
        inputs=inputs,
        loss=logits_loss,
        dtype=dtype,
    )


def zoo_classifier(model: ZooModel, size: int, classes: int, channels: int) -> nn.Module:
    """An image model of the zoo for images and classes of another number than ImageNet's."""
    model_class, config = _zoo_config(model, size, classes, channels)
    return _construct(model_class, config, None)


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
        inputs=_inputs_of(file, model, config),
        loss=partial(_loss, model_class.__name__),
        dtype=dtype,
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
    library = _transformers()
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
    mapping = _transformers().CONFIG_MAPPING
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
        with _quiet():
            config = config_class(**{**settings, **_EAGER})
    except Exception as error:
        raise InputError(f"{file}: {config_class.__name__} refuses it: {_first_lines(error)}") from error
    layers = getattr(config, "num_hidden_layers", None)
    if type(layers) is int and layers > _MAX_LAYERS:
        raise InputError(f"{file}: num_hidden_layers must be at most {_MAX_LAYERS}, not {layers}")
    if hasattr(config, "use_cache"):
        config.use_cache = False
    return config


def _near_type(kind: str) -> str:
    """A suggestion that stays on one screen: transformers knows hundreds of types."""
    advice = nearest(kind, _transformers().CONFIG_MAPPING)
    return advice if advice.startswith("did you mean") else "see the model types that transformers lists"


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__


def _model_class(file: Path, raw: Mapping[str, Any], config: Any, named: Any) -> Any:
    """The class ``architectures`` names, else the head the configuration supports."""
    if {"text_config", "vision_config"} <= set(raw) or {"text_config", "audio_config"} <= set(raw):
        raise InputError(f"{file}: {config.model_type} mixes modalities; write its text_config to a file of its own")
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
        f"{file}: transformers has no language, sequence-to-sequence or image-classification model of type "
        f"{config.model_type!r}; name a class in architectures"
    )


def _heads(config: Any) -> tuple[Any, ...]:
    """transformers' tables of model classes, the one that suits ``config`` best first."""
    library = _transformers()
    causal, masked = library.MODEL_FOR_CAUSAL_LM_MAPPING, library.MODEL_FOR_MASKED_LM_MAPPING
    image, translate = library.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, library.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    if getattr(config, "is_encoder_decoder", False):
        return (translate,)
    # Every masked-language model can also be had as a decoder, which is rarely meant.
    if getattr(config, "is_decoder", False):
        return causal, image, masked
    return masked, image, causal


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
        return _construct(model_class, config, dtype)
    except Exception as error:
        raise InputError(f"{file}: {model_class.__name__} cannot be built: {_first_lines(error)}") from error


def _inputs_of(file: Path, model: nn.Module, config: Any) -> Callable[[int | None, int | None], StepInputs]:
    """What to feed the model, by the input it names as its main one."""
    name = config.model_type
    main: Literal["input_ids", "pixel_values"] = model.main_input_name  # type: ignore[assignment]
    if main == "pixel_values":
        shape = _image_shape(file, config)
        return partial(
            image_inputs,
            name=name,
            default=_IMAGE_BATCH,
            shape=shape,
            keyword=main,
            resize="edit image_size in the file",
        )
    if main != "input_ids":
        raise InputError(f"{file}: {type(model).__name__} reads {main}; only text and image models can be traced")
    known = getattr(config, "max_position_embeddings", None)
    longest = _longest(config)
    seq = min(known if type(known) is int and known > 0 else _MAX_SEQ, longest or _MAX_SEQ, _MAX_SEQ)
    return partial(
        _text_inputs, name=name, default=(_TEXT_BATCH, seq), longest=longest, names=_text_names(model, config)
    )


def _text_names(model: nn.Module, config: Any) -> tuple[str, ...]:
    """The text inputs to give, and the mask that has to be given.

    Without a mask a causal model looks at the data for packed sequences; with one a bidirectional model looks whether
    it may drop it. On meta there is no data to look at.
    """
    library = _transformers()
    accepted = inspect.signature(model.forward).parameters
    causal = (
        type(config) in library.MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in library.MODEL_FOR_MASKED_LM_MAPPING
    )
    names = ["input_ids"]
    mask = "attention_mask"
    if getattr(config, "is_encoder_decoder", False):
        names.append("decoder_input_ids")
        mask = "decoder_attention_mask"
        causal = True
    if (causal or getattr(config, "is_decoder", False)) and mask in accepted:
        names.append(mask)
    return tuple(names)


def _image_shape(file: Path, config: Any) -> tuple[int, int, int]:
    channels = getattr(config, "num_channels", None) or 3
    size = getattr(config, "image_size", None) or _IMAGE_SIZE
    sides = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    shape = (channels, *sides)
    if len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        raise InputError(f"{file}: num_channels {channels!r} and image_size {size!r} are not the shape of an image")
    return channels, sides[0], sides[1]


def _loss(name: str, output: Any, inputs: StepInputs) -> Tensor:
    """Cross-entropy of the scores, or the mean of the hidden states of a model without a head."""
    if isinstance(getattr(output, "logits", None), Tensor):
        return logits_loss(output, inputs)
    hidden = getattr(output, "last_hidden_state", None)
    if not isinstance(hidden, Tensor):
        raise InputError(f"{name} returns neither logits nor last_hidden_state, so there is no loss to differentiate")
    return hidden.float().mean()
