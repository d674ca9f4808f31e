"""Configurations of Hugging Face transformers, shrunk: a layer or two of each kind, a few channels."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from .oracles import Case

_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size"), 32),
    "word_embed_proj_dim": 32,
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("layerdrop", "encoder_layerdrop", "decoder_layerdrop", "mask_time_prob"), 0.0),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "head_dim": 8,
    "d_kv": 8,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "num_labels": 5,
    "image_size": 32,
    "patch_size": 8,
}
"""What is set wherever a configuration has it, as one number."""


def _build(name: str, settings: Mapping[str, Any], dtype: torch.dtype | None) -> nn.Module:
    import transformers

    model_class = getattr(transformers, name)
    config_class = model_class.config_class
    default = config_class()
    known = default.to_dict()
    sizes = {
        key: value
        for key, value in _SIZES.items()
        if isinstance(getattr(default, key, ""), int | float) or (key in known and getattr(default, key, "") is None)
    }
    own = {key for key in sizes if isinstance(getattr(config_class, key, None), property)}
    config = config_class(**{key: value for key, value in {**sizes, **settings}.items() if key not in own})
    config._attn_implementation = "eager"
    model: nn.Module = model_class(config)
    return model if dtype is None else model.to(dtype)


def _tokens(length: int = 16) -> torch.Tensor:
    return torch.zeros(2, length, dtype=torch.long)


_INPUTS: dict[str, Any] = {
    "text": lambda: {"input_ids": _tokens()},
    "pair": lambda: {"input_ids": _tokens(), "decoder_input_ids": _tokens(12)},
    "image": lambda: {"pixel_values": torch.zeros(2, 3, 32, 32)},
    "wave": lambda: {"input_values": torch.zeros(2, 800)},
    "both": lambda: {"input_ids": _tokens(), "pixel_values": torch.zeros(2, 3, 32, 32)},
}


def _case(
    name: str,
    kind: str,
    live: tuple[str, ...] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
    dtype: torch.dtype | None = None,
) -> Case:
    return Case(build=lambda: _build(name, settings, dtype), inputs=lambda: ((), _INPUTS[kind]()), live=live)


def routed_config(name: str, kind: str = "text", **settings: Any) -> Case:
    """A mixture whose experts are a loop over what was routed to them, on real tensors."""

    def build() -> nn.Module:
        model = _build(name, settings, None)
        model.config._experts_implementation = "eager"
        return model

    return Case(build=build, inputs=lambda: ((), _INPUTS[kind]()), routed=True)


_TEXT = """
    AlbertForMaskedLM BertForMaskedLM BigBirdForMaskedLM CamembertForMaskedLM CanineForSequenceClassification
    ConvBertForMaskedLM DebertaForMaskedLM DebertaV2ForMaskedLM DistilBertForMaskedLM ElectraForMaskedLM
    ErnieForMaskedLM EsmForMaskedLM FNetForMaskedLM LayoutLMForMaskedLM LukeForMaskedLM MPNetForMaskedLM
    MegatronBertForMaskedLM ModernBertForMaskedLM NomicBertForMaskedLM NystromformerForMaskedLM RemBertForMaskedLM
    RoFormerForMaskedLM RobertaForMaskedLM SqueezeBertForMaskedLM YosoForMaskedLM
    ArceeForCausalLM BioGptForCausalLM BloomForCausalLM CTRLLMHeadModel CohereForCausalLM FalconForCausalLM
    GPT2LMHeadModel GPTBigCodeForCausalLM GPTNeoXForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM GemmaForCausalLM
    Glm4ForCausalLM GraniteForCausalLM HeliumForCausalLM LlamaForCausalLM MambaForCausalLM MistralForCausalLM
    MptForCausalLM NemotronForCausalLM OPTForCausalLM Olmo2ForCausalLM OlmoForCausalLM OpenAIGPTLMHeadModel
    PersimmonForCausalLM Phi3ForCausalLM PhiForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM SmolLM3ForCausalLM
    StableLmForCausalLM Starcoder2ForCausalLM XGLMForCausalLM
"""
_PAIRS = """
    BartForConditionalGeneration BigBirdPegasusForConditionalGeneration BlenderbotForConditionalGeneration
    LongT5ForConditionalGeneration M2M100ForConditionalGeneration MBartForConditionalGeneration
    MT5ForConditionalGeneration MarianMTModel PLBartForConditionalGeneration PegasusForConditionalGeneration
    T5ForConditionalGeneration UMT5ForConditionalGeneration
"""
_IMAGES = """
    BeitForImageClassification BlipVisionModel CLIPVisionModel Data2VecVisionForImageClassification
    DeiTForImageClassification Dinov2ForImageClassification Dinov2WithRegistersForImageClassification
    IJepaForImageClassification SamVisionModel ViTForImageClassification ViTMSNForImageClassification VitDetModel
"""
_EXPERTS = """
    GptOssForCausalLM GraniteMoeForCausalLM MixtralForCausalLM OlmoeForCausalLM Qwen2MoeForCausalLM
    Qwen3MoeForCausalLM
"""
_WAVES = """
    Data2VecAudioForCTC HubertForCTC SEWForCTC UniSpeechForCTC Wav2Vec2ConformerForCTC Wav2Vec2ForCTC WavLMForCTC
"""
_WAVE: dict[str, Any] = {
    "conv_dim": (32, 32),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "apply_spec_augment": False,
    "attention_dropout": 0.0,
}
_PERCEIVER: dict[str, Any] = {
    "num_latents": 8,
    "d_latents": 32,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 4,
}
_LATENTS = ("*latents", "*position_embeddings")
_STAGES: dict[str, Any] = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2}
_FOUR: dict[str, Any] = {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
_WINDOWS: dict[str, Any] = {"embed_dim": 16, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 4}
_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "image_size": 32,
    "patch_size": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_DETR: dict[str, Any] = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "num_queries": 6,
    "backbone_config": {
        "model_type": "resnet",
        "embedding_size": 16,
        "out_features": ["stage4"],
        "hidden_sizes": [16, 16, 32, 32],
        "depths": [1, 1, 1, 1],
    },
}
_QUERIES = ("*query_position_embeddings.weight",)

# Class, input, activations among its parameters, settings.
_SPECIAL: tuple[tuple[str, str, tuple[str, ...], dict[str, Any]], ...] = (
    (
        "PerceiverForMaskedLM",
        "text",
        _LATENTS,
        {**_PERCEIVER, "d_model": 24, "qk_channels": 32, "v_channels": 32, "max_position_embeddings": 16},
    ),
    ("PerceiverForSequenceClassification", "text", _LATENTS, {**_PERCEIVER, "max_position_embeddings": 16}),
    ("PerceiverForImageClassificationLearned", "image", _LATENTS, _PERCEIVER),
    ("SiglipVisionModel", "image", ("*probe",), {}),
    ("SiglipModel", "both", ("*probe",), {"vision_config": _TOWER, "text_config": _TOWER}),
    ("CLIPModel", "both", (), {"vision_config": _TOWER, "text_config": _TOWER}),
    ("BlipForImageTextRetrieval", "both", (), {"vision_config": _TOWER, "text_config": _TOWER}),
    ("DetrForObjectDetection", "image", _QUERIES, _DETR),
    ("ConditionalDetrForObjectDetection", "image", _QUERIES, _DETR),
    ("TableTransformerForObjectDetection", "image", _QUERIES, _DETR),
    ("MaskFormerForInstanceSegmentation", "image", ("*queries_embedder.weight",), {}),
    ("GPTNeoForCausalLM", "text", (), {"attention_types": [[["global", "local"], 1]]}),
    ("GPTJForCausalLM", "text", (), {"rotary_dim": 4}),
    ("CodeGenForCausalLM", "text", (), {"rotary_dim": 4}),
    ("SwinForImageClassification", "image", (), _WINDOWS),
    ("Swinv2ForImageClassification", "image", (), _WINDOWS),
    ("Swin2SRForImageSuperResolution", "image", (), {**_WINDOWS, "patch_size": 1}),
    ("ConvNextForImageClassification", "image", (), _STAGES),
    ("ConvNextV2ForImageClassification", "image", (), _STAGES),
    ("ResNetForImageClassification", "image", (), {**_FOUR, "embedding_size": 16}),
    ("RegNetForImageClassification", "image", (), {**_FOUR, "embedding_size": 16, "groups_width": 8}),
    (
        "BitForImageClassification",
        "image",
        (),
        {"hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1], "embedding_size": 32, "num_groups": 4},
    ),
    ("PvtForImageClassification", "image", (), _FOUR),
    ("PvtV2ForImageClassification", "image", (), _FOUR),
    ("SegformerForImageClassification", "image", (), _FOUR),
    ("SegformerForSemanticSegmentation", "image", (), _FOUR),
    ("PoolFormerForImageClassification", "image", (), {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}),
    (
        "FocalNetForImageClassification",
        "image",
        (),
        {
            "embed_dim": 16,
            "depths": [1, 1],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
            "hidden_sizes": [16, 32],
            "patch_size": 4,
        },
    ),
    (
        "HieraForImageClassification",
        "image",
        (),
        {"image_size": [32, 32], "depths": [1, 1], "num_heads": [1, 2], "embed_dim": 16, "num_query_pool": 1},
    ),
    ("YolosForObjectDetection", "image", (), {"image_size": [32, 32]}),
    ("MobileNetV1ForImageClassification", "image", (), {"depth_multiplier": 0.25}),
    ("MobileNetV2ForImageClassification", "image", (), {"depth_multiplier": 0.35}),
    (
        "MobileViTForImageClassification",
        "image",
        (),
        {
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48],
            "num_attention_heads": 2,
            "patch_size": 2,
        },
    ),
    ("SwiftFormerForImageClassification", "image", (), {"depths": [1, 1, 1, 1], "embed_dims": [16, 16, 32, 32]}),
    ("TextNetForImageClassification", "image", (), {}),
    (
        "ViTMAEForPreTraining",
        "image",
        (),
        {
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
        },
    ),
)

CONFIGS: dict[str, Case] = {
    **{name: _case(name, "text") for name in _TEXT.split()},
    **{name: _case(name, "pair") for name in _PAIRS.split()},
    **{name: _case(name, "image") for name in _IMAGES.split()},
    **{name: _case(name, "wave", settings=_WAVE) for name in _WAVES.split()},
    # The FLOP counter's own rule for grouped products refuses every other format.
    **{name: _case(name, "text", dtype=torch.bfloat16) for name in _EXPERTS.split()},
    **{name: _case(name, kind, live, settings) for name, kind, live, settings in _SPECIAL},
}
