"""A Hugging Face config.json on disk as a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.models.hf import hf_config_source
from weft.workloads.trace import trace_step

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}
T5 = {"model_type": "t5", "num_layers": 1, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "vocab_size": 100}
VIT = {
    "model_type": "vit",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 1,
}
BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 4}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(content: object) -> Path:
        path = tmp_path / "config.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return _write


def test_llama_from_disk(write: Any) -> None:
    path = write(LLAMA)
    source = hf_config_source(path)
    assert source.name == "llama" and source.title == f"LlamaForCausalLM of {path}"
    assert source.dtype is torch.bfloat16
    step = trace_step(source, batch=2, seq=8)
    assert step.input == "2 x 8"
    assert {op.a.dtype for op in step.matrix_ops if op.parameter is not None} == {"bfloat16"}
    projections = 2 * (64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 96) + 64 * 100
    weights = [op for op in step.matrix_ops if op.pass_ is Pass.FF and op.parameter is not None]
    assert sum(op.macs for op in weights) == 2 * 8 * projections


@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
def test_experts_count_the_same_in_every_format(write: Any, dtype: str | None) -> None:
    macs = trace_step(hf_config_source(write(MIXTRAL)), batch=2, seq=8).dense_macs
    step = trace_step(hf_config_source(write({**MIXTRAL, "torch_dtype": dtype})), batch=2, seq=8)
    assert step.dense_macs == macs
    experts = [op for op in step.matrix_ops if "experts" in op.name]
    assert {op.a.dtype for op in experts} == {dtype or "float32"}


def test_a_model_that_warns_of_padding_is_told_that_there_is_none(write: Any) -> None:
    config = {**BERT, "model_type": "convbert", "embedding_size": 32}
    assert trace_step(hf_config_source(write(config)), batch=2, seq=8).recomputed_macs == 0


def test_a_folder_and_the_default_lengths(write: Any) -> None:
    source = hf_config_source(write(LLAMA).parent)
    assert source.inputs(None, None).shape == "8 x 1024"
    short = hf_config_source(write({**LLAMA, "max_position_embeddings": 128}))
    assert short.inputs(None, None).shape == "8 x 128"


@pytest.mark.parametrize(
    ("config", "expected", "shape"),
    [
        ({**LLAMA, "architectures": None}, "LlamaForCausalLM", "2 x 8"),
        ({**LLAMA, "architectures": ["OfThisRepositoryOnly"]}, "LlamaForCausalLM", "2 x 8"),
        ({k: v for k, v in LLAMA.items() if k != "model_type"}, "LlamaForCausalLM", "2 x 8"),
        (MIXTRAL, "MixtralForCausalLM", "2 x 8"),
        (BERT, "BertForMaskedLM", "2 x 8"),
        ({**BERT, "architectures": ["BertModel"]}, "BertModel", "2 x 8"),
        ({**BERT, "is_decoder": True}, "BertLMHeadModel", "2 x 8"),
        (T5, "T5ForConditionalGeneration", "2 x 8"),
        (VIT, "ViTForImageClassification", "2 x 1 x 32 x 32"),
    ],
)
def test_class_and_inputs_follow_the_configuration(
    write: Any, config: dict[str, Any], expected: str, shape: str
) -> None:
    source = hf_config_source(write(config))
    assert source.title.startswith(expected + " of ")
    step = trace_step(source, batch=2, seq=None if "image_size" in config else 8)
    assert step.input == shape
    assert all(step.dense_macs.values())


def test_encoder_decoder_feeds_both_sides(write: Any) -> None:
    inputs = hf_config_source(write(T5)).inputs(2, 8)
    assert {"input_ids", "decoder_input_ids"} <= set(inputs.kwargs)


def test_code_and_kernels_named_in_the_file_are_ignored(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a connection was tried: {args}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    hostile = {
        **LLAMA,
        "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"},
        "trust_remote_code": True,
        "_attn_implementation": "someone/kernel",
        "attn_implementation": "someone/kernel",
        "experts_implementation": "someone/kernel",
        "return_dict": False,
    }
    plain = trace_step(hf_config_source(write(LLAMA)), batch=1, seq=4)
    assert trace_step(hf_config_source(write(hostile)), batch=1, seq=4) == plain


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "llama", ', r"config.json:1:\d+: not JSON"),
        ("\x00\x01", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "is a JSON object, not list"),
        ({}, "model_type is missing"),
        ({"model_type": "lama"}, "'lama' is unknown to transformers: did you mean .*'llama'"),
        ({"model_type": "zzzzzzzzz"}, "see the model types"),
        ({"model_type": ["llama"]}, "is unknown"),
        ({**LLAMA, "hidden_size": "wide"}, "LlamaConfig refuses it: .*hidden_size"),
        ({**LLAMA, "hidden_act": "nope"}, "LlamaForCausalLM cannot be built"),
        ({**LLAMA, "num_hidden_layers": 10**9}, "num_hidden_layers must be at most 4096"),
        ({**LLAMA, "torch_dtype": "int8"}, "dtype 'int8' cannot be trained"),
        ({**LLAMA, "torch_dtype": "load"}, "dtype 'load' cannot be trained"),
        ({**LLAMA, "model_type": "bert"}, "architectures names LlamaForCausalLM"),
        ({**VIT, "image_size": [32, 32, 32]}, "image_size|cannot be built"),
        (
            {"model_type": "clap", "audio_config": {"enable_fusion": True}},
            r"takes a text and a sound.*trace file\.py:model",
        ),
        ({"model_type": "decision_transformer"}, r"reads states.*trace file\.py:model"),
    ],
)
def test_bad_configurations_are_refused(write: Any, content: object, message: str) -> None:
    path = write(content)
    with pytest.raises(InputError, match=message) as caught:
        hf_config_source(path)
    assert "config.json" in str(caught.value)
    assert len(str(caught.value).replace(str(path), "config.json")) < 600


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        hf_config_source(tmp_path / "config.json")


def test_positions_that_do_not_exist_are_refused(write: Any) -> None:
    source = hf_config_source(write(BERT))
    with torch.device("meta"), pytest.raises(InputError, match="from 1 to 512"):
        source.inputs(1, 513)
    with torch.device("meta"), pytest.raises(InputError, match="edit image_size in the file"):
        hf_config_source(write(VIT)).inputs(1, 8)
