"""Configurations of every kind of input that transformers has, each shrunk to milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weft
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.models.hf import hf_config_source
from weft.workloads.trace import trace_step
from weft.workloads.tracing.answers import Answers, Following

from .oracles import counter

TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 500,
}
IMAGE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 64,
}
TWO_SIDES = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "vocab_size": 600,
}
BACKBONE = {
    "model_type": "resnet",
    "out_features": ["stage4"],
    "layer_type": "basic",
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [16, 32, 48, 64],
    "embedding_size": 16,
}

WORDS = {**TEXT, "num_key_value_heads": 2, "head_dim": 16}
PICTURE = {**IMAGE, "patch_size": 16, "projection_dim": 64}
TURNED = {"type": "mrope", "mrope_section": [2, 3, 3], "rope_type": "default", "rope_theta": 10000.0}
SERIES = {"prediction_length": 24, "num_time_features": 2, "d_model": 32, "num_static_real_features": 1}
PATCHED = {"context_length": 64, "num_input_channels": 3, "d_model": 32}
MIXED: dict[str, dict[str, Any]] = {
    "images among tokens (LLaVA)": {
        "model_type": "llava",
        "text_config": {"model_type": "llama", **WORDS},
        "image_token_index": 499,
        "vision_config": {"model_type": "clip_vision_model", **PICTURE},
    },
    "images among tokens (PaliGemma)": {
        "model_type": "paligemma",
        "text_config": {"model_type": "gemma", **WORDS},
        "image_token_index": 499,
        "vision_config": {"model_type": "siglip_vision_model", **PICTURE},
        "hidden_size": 64,
        "projection_dim": 64,
    },
    "images among tokens (Gemma 3)": {
        "model_type": "gemma3",
        "text_config": WORDS,
        "vision_config": PICTURE,
        "mm_tokens_per_image": 4,
        "image_token_index": 499,
    },
    "images among tokens (BLIP-2)": {
        "model_type": "blip-2",
        "text_config": {"model_type": "opt", **WORDS, "ffn_dim": 64, "word_embed_proj_dim": 64},
        "vision_config": PICTURE,
        "qformer_config": {**TEXT, "encoder_hidden_size": 64},
        "num_query_tokens": 4,
        "image_token_index": 499,
    },
    "images of their own sizes among tokens (Mistral 3)": {
        "model_type": "mistral3",
        "text_config": {"model_type": "mistral", **WORDS},
        "image_token_index": 499,
        "vision_config": {"model_type": "pixtral", **PICTURE},
    },
    "images in patches among tokens (Qwen2-VL)": {
        "model_type": "qwen2_vl",
        "text_config": {**WORDS, "rope_parameters": TURNED},
        "image_token_id": 499,
        "video_token_id": 498,
        "vision_start_token_id": 497,
        "vision_config": {"depth": 2, "embed_dim": 64, "num_heads": 4, "hidden_size": 64},
    },
    "texts to codebooks (MusicGen)": {
        "model_type": "musicgen",
        "audio_encoder": {"model_type": "encodec", "num_filters": 4},
        "text_encoder": {"model_type": "t5", "d_model": 64, "d_ff": 64, "num_layers": 2, "num_heads": 4},
        "decoder": {
            "model_type": "musicgen_decoder",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "vocab_size": 100,
            "num_codebooks": 4,
        },
    },
    "sounds and texts (CLAP)": {
        "model_type": "clap",
        "text_config": TEXT,
        "audio_config": {
            "depths": [1, 1, 1, 1],
            "patch_embeds_hidden_size": 16,
            "num_attention_heads": [1, 1, 2, 2],
            "hidden_size": 128,
            "spec_size": 64,
            "num_mel_bins": 32,
            "window_size": 2,
        },
    },
    "sound to sound": {"model_type": "encodec", "num_filters": 4},
    "a time series": {
        **SERIES,
        "model_type": "time_series_transformer",
        "architectures": ["TimeSeriesTransformerForPrediction"],
    },
    "a time series of several values": {
        **SERIES,
        "model_type": "informer",
        "input_size": 2,
        "architectures": ["InformerForPrediction"],
        "num_static_categorical_features": 1,
        "cardinality": [5],
        "embedding_dimension": [3],
    },
    "a time series, decomposed": {**SERIES, "model_type": "autoformer"},
    "a time series in patches": {**PATCHED, "model_type": "patchtst", "architectures": ["PatchTSTForPrediction"]},
    "a time series, masked": {**PATCHED, "model_type": "patchtst", "architectures": ["PatchTSTForPretraining"]},
    "a time series, mixed": {**PATCHED, "model_type": "patchtsmixer"},
}
"""Those whose inputs have to fit each other: the same are run on the CPU, with data, below."""

KINDS: dict[str, dict[str, Any]] = {
    "speech, its sound": {**TEXT, "model_type": "wav2vec2", "vocab_size": 32},
    "speech behind normalised positions": {**TEXT, "model_type": "data2vec-audio", "vocab_size": 32},
    "speech, its class": {
        **TEXT,
        "model_type": "wav2vec2",
        "vocab_size": 32,
        "architectures": ["Wav2Vec2ForSequenceClassification"],
    },
    "speech, its features": {**TWO_SIDES, "model_type": "speech_to_text"},
    "a spectrogram": {**IMAGE, "model_type": "audio-spectrogram-transformer"},
    "a film": {**IMAGE, "model_type": "videomae"},
    "images and texts": {"model_type": "clip", "text_config": TEXT, "vision_config": IMAGE},
    "objects": {
        **TWO_SIDES,
        "model_type": "detr",
        "use_timm_backbone": False,
        "backbone": None,
        "backbone_config": BACKBONE,
    },
    "objects among patches": {**IMAGE, "model_type": "yolos", "image_size": [64, 96], "num_detection_tokens": 10},
    "pixels": {
        "model_type": "segformer",
        "architectures": ["SegformerForSemanticSegmentation"],
        "image_size": 64,
        "hidden_sizes": [16, 32, 32, 32],
        "depths": [1, 1, 1, 1],
        "decoder_hidden_size": 32,
    },
    "bytes": {
        "model_type": "perceiver",
        "architectures": ["PerceiverForMaskedLM"],
        "d_model": 64,
        "d_latents": 64,
        "num_latents": 16,
        "num_self_attends_per_block": 2,
        "vocab_size": 262,
        "max_position_embeddings": 128,
        "qk_channels": 32,
        "v_channels": 64,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
    },
    "text to text": {**TWO_SIDES, "model_type": "marian", "pad_token_id": 0},
    "an image to text": {
        "model_type": "vision-encoder-decoder",
        "encoder": {"model_type": "vit", **IMAGE},
        "decoder": {"model_type": "trocr", **TWO_SIDES},
    },
    "questions": {**TEXT, "model_type": "bert", "architectures": ["BertForQuestionAnswering"]},
    "patches without registers": {**IMAGE, "model_type": "dinov3_vit", "num_register_tokens": 0, "patch_size": 16},
    "masked patches": {**IMAGE, "model_type": "vit_mae"},
    **MIXED,
}


def _write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_of_every_kind_is_traced(tmp_path: Path, kind: str) -> None:
    """A sample is a sample: what grows with the batch grows by its factor."""
    source = hf_config_source(_write(tmp_path, KINDS[kind]))
    one, two = (trace_step(source, batch=batch).dense_macs for batch in (2, 4))

    assert all(one[of] for of in (Pass.FF, Pass.BP, Pass.WU))
    # What the images of a batch share (position biases, queries of a Perceiver) is worked out once; Pixtral puts all of
    # them into one sequence, and CLAP compares every sound with every text.
    most = 2.01 if "Mistral" in kind or "CLAP" in kind else 2
    assert all(1.9 * one[of] <= two[of] <= most * one[of] for of in one)


LENGTHS = {"sound to sound": 1600}


@pytest.mark.parametrize("kind", MIXED)
def test_inputs_that_fit_each_other_equal_a_flop_counter_on_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = hf_config_source(_write(tmp_path, MIXED[kind]))
    seq = None if "series" in kind else LENGTHS.get(kind, 80)
    step = trace_step(source, batch=2, seq=seq)
    answers = Answers()
    with torch.device("meta"), answers.listen(), Following(answers):
        inputs = source.inputs(2, seq)
    given = {name: on_cpu(value, answers) for name, value in inputs.kwargs.items()}
    with torch.device("cpu"):
        model = source.build().train()
    undrop(model)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # its recurrent layers are one operator, not counted
    with counter() as forward:
        loss = source.loss(model(**given), inputs)
    with counter() as backward:
        loss.backward()

    assert step.dense_macs[Pass.FF] == forward.get_total_flops() // 2
    assert step.dense_macs[Pass.BP] + step.dense_macs[Pass.WU] == backward.get_total_flops() // 2


def on_cpu(value: Tensor, answers: Answers) -> Tensor:
    """An input with the values that it was given, or some."""
    if value.is_floating_point():
        return torch.randn(value.shape, dtype=value.dtype)
    known = answers.values.of(value)
    assert known is not None
    return known.values.clone()


def undrop(model: nn.Module) -> None:
    """No layer is dropped in a trace."""
    for part in model.modules():
        for name in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop"):
            if hasattr(part, name):
                setattr(part, name, 0.0)


FUSED = MIXED["sounds and texts (CLAP)"]
REFUSED: dict[str, dict[str, Any]] = {
    "tiles of images": {**MIXED["images among tokens (LLaVA)"], "model_type": "llava_next"},
    "images that may be padding": {
        "model_type": "idefics3",
        "text_config": {"model_type": "llama", **WORDS},
        "vision_config": PICTURE,
    },
    "long sounds": {**FUSED, "audio_config": {**FUSED["audio_config"], "enable_fusion": True}},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_fed_says_how_to_feed_it_in_lines_that_work(tmp_path: Path, kind: str) -> None:
    path = _write(tmp_path, REFUSED[kind])
    with pytest.raises(InputError, match=r"trace file\.py:model") as caught:
        trace_step(hf_config_source(path), batch=2)
    example = str(caught.value).partition("file.py:model:\n")[2]
    (tmp_path / "own.py").write_text(dedent(example), encoding="utf-8")
    if kind != "long sounds":  # its sound has a size of its own
        assert weft.trace(f"{tmp_path}/own.py:model", batch=2).dense_macs["FF"]


def test_an_image_leaves_room_for_text(tmp_path: Path) -> None:
    source = hf_config_source(_write(tmp_path, MIXED["images among tokens (LLaVA)"]))
    with pytest.raises(InputError, match=r"sequence length 16 leaves no room for text.*16 tokens; ask for 17 at least"):
        trace_step(source, batch=2, seq=16)
    assert "2 x 17 tokens, 16 of them of an image of 3 x 64 x 64" in trace_step(source, batch=2, seq=17).input


def test_a_series_is_as_long_as_its_model_looks_back(tmp_path: Path) -> None:
    source = hf_config_source(_write(tmp_path, MIXED["a time series in patches"]))
    with pytest.raises(InputError, match=r"sequence length 32 given, but model 'patchtst' reads 64 steps"):
        trace_step(source, batch=2, seq=32)
