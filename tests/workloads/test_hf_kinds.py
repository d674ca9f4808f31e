"""Configurations of every kind of input that transformers has, each shrunk to milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.models.hf import hf_config_source
from weft.workloads.trace import trace_step

TEXT = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 500,
}  # fmt: skip
IMAGE = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 64,
}  # fmt: skip
TWO_SIDES = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 600,
}  # fmt: skip
BACKBONE = {
    "model_type": "resnet", "out_features": ["stage4"], "layer_type": "basic", "depths": [1, 1, 1, 1],
    "hidden_sizes": [16, 32, 48, 64], "embedding_size": 16,
}  # fmt: skip

KINDS: dict[str, dict[str, Any]] = {
    "speech, its sound": {**TEXT, "model_type": "wav2vec2", "vocab_size": 32},
    "speech behind normalised positions": {**TEXT, "model_type": "data2vec-audio", "vocab_size": 32},
    "speech, its class": {
        **TEXT, "model_type": "wav2vec2", "vocab_size": 32, "architectures": ["Wav2Vec2ForSequenceClassification"],
    },
    "speech, its features": {**TWO_SIDES, "model_type": "speech_to_text"},
    "a spectrogram": {**IMAGE, "model_type": "audio-spectrogram-transformer"},
    "a film": {**IMAGE, "model_type": "videomae"},
    "images and texts": {"model_type": "clip", "text_config": TEXT, "vision_config": IMAGE},
    "objects": {
        **TWO_SIDES, "model_type": "detr", "use_timm_backbone": False, "backbone": None, "backbone_config": BACKBONE,
    },
    "objects among patches": {**IMAGE, "model_type": "yolos", "image_size": [64, 96], "num_detection_tokens": 10},
    "pixels": {
        "model_type": "segformer", "architectures": ["SegformerForSemanticSegmentation"], "image_size": 64,
        "hidden_sizes": [16, 32, 32, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32,
    },
    "bytes": {
        "model_type": "perceiver", "architectures": ["PerceiverForMaskedLM"], "d_model": 64, "d_latents": 64,
        "num_latents": 16, "num_self_attends_per_block": 2, "vocab_size": 262, "max_position_embeddings": 128,
        "qk_channels": 32, "v_channels": 64, "num_self_attention_heads": 4, "num_cross_attention_heads": 4,
    },
    "text to text": {**TWO_SIDES, "model_type": "marian", "pad_token_id": 0},
    "an image to text": {
        "model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit", **IMAGE},
        "decoder": {"model_type": "trocr", **TWO_SIDES},
    },
    "questions": {**TEXT, "model_type": "bert", "architectures": ["BertForQuestionAnswering"]},
    "patches without registers": {**IMAGE, "model_type": "dinov3_vit", "num_register_tokens": 0, "patch_size": 16},
    "masked patches": {**IMAGE, "model_type": "vit_mae"},
}  # fmt: skip


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
    # What the images of a batch share (position biases, queries of a Perceiver) is worked out once.
    assert all(1.9 * one[of] <= two[of] <= 2 * one[of] for of in one)


@pytest.mark.parametrize(
    "content",
    [
        {"model_type": "time_series_transformer", "prediction_length": 24},
        {"model_type": "paligemma"},
    ],
    ids=lambda content: content["model_type"],
)
def test_what_cannot_be_fed_says_how_to_feed_it(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"trace file\.py:model"):
        trace_step(hf_config_source(_write(tmp_path, content)), batch=2)
