"""What to feed a model of transformers: by the input that it names as its main one and the others that it needs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError, require_int
from ...gemm import MAX_DIM
from ..language import require_seq
from ..source import StepInputs
from ..vision import image_inputs
from .library import transformers
from .mixed import image_token, mixed_inputs
from .series import reads_series, series_inputs

__all__ = ["inputs_of", "text_inputs"]

Inputs = Callable[[int | None, int | None], StepInputs]

_MAX_SEQ = 1024
_IMAGE_BATCH = 64
_TEXT_BATCH = 8
_MIXED_BATCH = 8
"""Of audio, of video, and of images with text."""
_SERIES_BATCH = 64
_IMAGE_SIZE = 224
_WAVE = 16_000
"""Samples of a second of speech at 16 kHz."""
_FRAMES = 1_000
"""Frames of spectrogram of ten seconds of speech, a frame each 10 ms."""

_EXAMPLE = """\
  import torch
  from transformers import AutoConfig, {name}
  def model(batch: int = 4):
      made = {name}(AutoConfig.from_pretrained({folder!r}))
      return made, dict({main}={given}), lambda output: output[0].mean()"""
_GIVEN = {"input_ids": "torch.ones(batch, 64, dtype=torch.long)"}
"""What an example gives, where it is not a picture; any input keeps the values that it is given."""


def inputs_of(file: Path, model: nn.Module, config: Any) -> Inputs:
    """The inputs of a model for a batch and perhaps a sequence length."""
    main, kind = str(model.main_input_name), type(model)
    accepted = inspect.signature(model.forward).parameters
    if _mixes_images_into_text(config) and "pixel_values" in accepted and "input_ids" in accepted:
        return _mixed(file, model, config, accepted)
    if reads_series(config, accepted):
        return partial(series_inputs, config=config, accepted=accepted, default=_SERIES_BATCH)
    if main == "pixel_values":
        return _pixels(file, model, config, accepted)
    if main == "input_ids" and "pixel_values" in accepted:
        vision = getattr(config, "vision_config", None)
        if vision is None:
            raise _own_function(file, kind, main, "takes images and text")
        text = _text(model, config.text_config, accepted)
        return partial(_both, text=text, key="pixel_values", shape=_image_shape(file, vision))
    if main == "input_ids" and "input_features" in accepted and hasattr(config, "audio_config"):
        return _heard(file, model, config, accepted)
    if main == "input_ids":
        return _text(model, config, accepted)
    if main in ("input_values", "input_features"):
        return _audio(file, model, config, main, accepted)
    if main == "inputs" and hasattr(config, "vocab_size") and "MaskedLM" in kind.__name__:
        return partial(_ids_as, _text(model, config, {"input_ids": None}), key="inputs")
    raise _own_function(file, kind, main, f"reads {main}")


def _mixed(file: Path, model: nn.Module, config: Any, accepted: Mapping[str, Any]) -> Inputs:
    """Images among the tokens of a text, where the model says how many tokens one is."""
    refusal = _own_function(file, type(model), "input_ids", "puts images among the tokens of a text")
    vision = getattr(config, "vision_config", None)
    if vision is None or image_token(config) is None or not hasattr(model, "get_image_features"):
        raise refusal
    return partial(
        mixed_inputs,
        model=model,
        config=config,
        accepted=accepted,
        shape=_image_shape(file, vision),
        default=(_MIXED_BATCH, _MAX_SEQ),
        refusal=refusal,
    )


def _heard(file: Path, model: nn.Module, config: Any, accepted: Mapping[str, Any]) -> Inputs:
    """A text and a spectrogram a sample (CLAP); of fused long sounds, what is long is drawn anew for every batch."""
    audio = config.audio_config
    if getattr(audio, "enable_fusion", False) or not hasattr(audio, "spec_size"):
        raise _own_function(file, type(model), "input_ids", "takes a text and a sound")
    shape = (1, audio.spec_size * (audio.spec_size // audio.num_mel_bins), audio.num_mel_bins)
    text = _text(model, config.text_config, accepted)
    return partial(_both, text=text, key="input_features", shape=shape)


def _mixes_images_into_text(config: Any) -> bool:
    return type(config) in transformers().MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def _own_function(file: Path, kind: type, main: str, what: str) -> InputError:
    given = _GIVEN.get(main, "torch.zeros(batch, 1, 64, 64)")
    example = _EXAMPLE.format(name=kind.__name__, folder=str(file.parent), main=main, given=given)
    return InputError(
        f"{file}: {kind.__name__} {what}, whose sizes a configuration does not say; write a function that gives model, "
        f"inputs (all that its processor gives) and loss, and trace file.py:model:\n{example}"
    )


def text_inputs(
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
        key: torch.ones(count, tokens, dtype=torch.bool)
        if key.endswith("attention_mask")
        else torch.zeros(count, tokens, dtype=torch.long)
        for key in names
    }
    return StepInputs(args=(), kwargs=kwargs, batch=count, shape=f"{count} x {tokens}")


def _text(model: nn.Module, config: Any, accepted: Mapping[str, Any]) -> Inputs:
    known = getattr(config, "max_position_embeddings", None)
    longest = _longest_of(config)
    seq = min(known if type(known) is int and known > 0 else _MAX_SEQ, longest or _MAX_SEQ, _MAX_SEQ)
    names = _text_names(config, accepted)
    books = getattr(getattr(config, "decoder", None), "num_codebooks", None)
    if books and "decoder_input_ids" in names:
        made: Inputs = partial(
            text_inputs, name=config.model_type, default=(_TEXT_BATCH, seq), longest=longest, names=names
        )
        return partial(_in_codebooks, text=made, books=books)
    return partial(text_inputs, name=config.model_type, default=(_TEXT_BATCH, seq), longest=longest, names=names)


def _longest_of(config: Any) -> int | None:
    """Positions the model has rows for; None where positions are computed."""
    if hasattr(config, "rope_parameters"):
        return None
    positions = getattr(config, "max_position_embeddings", None)
    if type(positions) is not int or positions <= 0:
        return None
    if "roberta" in config.model_type or config.model_type == "clap_text_model":
        # RoBERTa numbers its positions from behind the padding index.
        positions -= (config.pad_token_id or 0) + 1
    return positions


def _text_names(config: Any, accepted: Mapping[str, Any]) -> tuple[str, ...]:
    """The text inputs to give, and the mask that has to be given.

    Without a mask a causal model looks at the data for packed sequences; with one a bidirectional model looks whether
    it may drop it. On meta there is no data to look at.
    """
    library = transformers()
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


def _in_codebooks(batch: int | None, seq: int | None, *, text: Inputs, books: int) -> StepInputs:
    """Token ids whose decoder writes ``books`` of them at a time (MusicGen), a row each."""
    made = text(batch, seq)
    ids = torch.cat([made.kwargs["decoder_input_ids"]] * books)
    said = f"{made.shape} and {books} codebooks"
    return replace(made, kwargs={**made.kwargs, "decoder_input_ids": ids}, shape=said)


def _ids_as(text: Inputs, batch: int | None, seq: int | None, *, key: str) -> StepInputs:
    """The token ids under another name."""
    made = text(batch, seq)
    return StepInputs(args=(), kwargs={key: made.kwargs["input_ids"]}, batch=made.batch, shape=made.shape)


def _pixels(file: Path, model: nn.Module, config: Any, accepted: Mapping[str, Any]) -> Inputs:
    parts = (getattr(config, name, None) for name in ("vision_config", "encoder"))
    shape = _image_shape(file, next(filter(None, parts), config))
    frames = getattr(config, "num_frames", None)
    if type(frames) is int and frames > 0:
        return partial(_fixed, name=config.model_type, key="pixel_values", shape=(frames, *shape), what="video")
    images = partial(
        image_inputs,
        name=config.model_type,
        default=_IMAGE_BATCH,
        shape=shape,
        keyword="pixel_values",
        resize="edit image_size in the file",
    )
    if "input_ids" in accepted or "decoder_input_ids" in accepted:
        text = getattr(config, "text_config", None) or getattr(config, "decoder", None)
        if text is None:
            raise _own_function(file, type(model), "pixel_values", "takes images and text")
        key = "decoder_input_ids" if "decoder_input_ids" in accepted else "input_ids"
        ids = partial(_ids_as, _text(model, text, {"input_ids": None}), key=key)
        return partial(_both, text=ids, key="pixel_values", shape=shape)
    return images


def _audio(file: Path, model: nn.Module, config: Any, main: str, accepted: Mapping[str, Any]) -> Inputs:
    shape, longest = _audio_shape(file, type(model), config, main)
    if longest:
        sound: Inputs = partial(_fixed, name=config.model_type, key=main, shape=shape, what="spectrogram")
    else:
        sound = partial(_sound, name=config.model_type, key=main, shape=shape)
    if "decoder_input_ids" in accepted and getattr(config, "is_encoder_decoder", False):
        most = getattr(config, "max_target_positions", None) or _MAX_SEQ
        return partial(_with_decoder, sound=sound, name=config.model_type, longest=most)
    return sound


def _audio_shape(file: Path, kind: type, config: Any, main: str) -> tuple[tuple[int, ...], bool]:
    """One sample, and whether its length is fixed by the model."""
    bins, positions = getattr(config, "num_mel_bins", None), getattr(config, "max_source_positions", None)
    if main == "input_features" and bins and positions and config.model_type == "whisper":
        return (bins, 2 * positions), True  # the second convolution halves the frames
    if main == "input_values" and bins and getattr(config, "max_length", None):
        return (config.max_length, bins), True
    if main == "input_values":
        channels = getattr(config, "audio_channels", None)
        return ((_WAVE,) if channels is None else (channels, _WAVE)), False
    width = getattr(config, "feature_projection_input_dim", None) or getattr(config, "input_feat_per_channel", None)
    if width:
        return (_FRAMES, width), False
    raise _own_function(file, kind, main, "reads a spectrogram")


def _sized(name: str, count: int, shape: tuple[int, ...]) -> str:
    require_int(f"elements of the input of model {name!r}", count * math.prod(shape), 1, MAX_DIM)
    return " x ".join(map(str, (count, *shape)))


def _fixed(batch: int | None, seq: int | None, *, name: str, key: str, shape: tuple[int, ...], what: str) -> StepInputs:
    if seq is not None:
        raise InputError(f"sequence length {seq} given, but model {name!r} reads a {what} of one size: {shape}")
    count = batch or _MIXED_BATCH
    said = _sized(name, count, shape)
    return StepInputs(args=(), kwargs={key: torch.empty(count, *shape)}, batch=count, shape=said)


def _sound(batch: int | None, seq: int | None, *, name: str, key: str, shape: tuple[int, ...]) -> StepInputs:
    """A wave or a spectrogram, as long as ``seq`` says."""
    count, own = batch or _MIXED_BATCH, shape if seq is None else _as_long(shape, seq, key)
    said = _sized(name, count, own)
    return StepInputs(args=(), kwargs={key: torch.empty(count, *own)}, batch=count, shape=said)


def _as_long(shape: tuple[int, ...], seq: int, key: str) -> tuple[int, ...]:
    """The shape of one sample with another length: frames come first in a spectrogram, samples last in a wave."""
    return (*shape[:-1], seq) if key == "input_values" else (seq, *shape[1:])


def _with_decoder(batch: int | None, seq: int | None, *, sound: Inputs, name: str, longest: int) -> StepInputs:
    """Sound for the encoder and tokens, ``seq`` of them, for the decoder."""
    heard, tokens = sound(batch, None), min(longest, _MAX_SEQ) if seq is None else seq
    require_seq(name, tokens, longest)
    ids: dict[str, Tensor] = {"decoder_input_ids": torch.zeros(heard.batch, tokens, dtype=torch.long)}
    said = f"{heard.shape} and {tokens} tokens"
    return StepInputs(args=(), kwargs={**heard.kwargs, **ids}, batch=heard.batch, shape=said)


def _both(batch: int | None, seq: int | None, *, text: Inputs, key: str, shape: tuple[int, int, int]) -> StepInputs:
    """A text and an image a sample."""
    written = text(batch or _MIXED_BATCH, seq)
    pixels = torch.empty(written.batch, *shape)
    what = "images" if key == "pixel_values" else "spectrograms"
    said = f"{written.shape} tokens and {what} of {' x '.join(map(str, shape))}"
    return StepInputs(args=(), kwargs={**written.kwargs, key: pixels}, batch=written.batch, shape=said)


def _image_shape(file: Path, config: Any) -> tuple[int, int, int]:
    channels = getattr(config, "num_channels", None) or 3
    size = getattr(config, "image_size", None) or _IMAGE_SIZE
    sides = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    shape = (channels, *sides)
    if len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        raise InputError(f"{file}: num_channels {channels!r} and image_size {size!r} are not the shape of an image")
    return channels, sides[0], sides[1]
