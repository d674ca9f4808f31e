"""Fixtures that tests of training share, and those of attention."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import weft
from weft.workloads.step import Workload

GQA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "vocab_size": 64,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(scope="session")
def gqa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a small model of grouped heads."""
    file: Path = tmp_path_factory.mktemp("gqa") / "config.json"
    file.write_text(json.dumps(GQA))
    return file


@pytest.fixture(scope="session")
def steps(gqa: Path) -> dict[str, Workload]:
    """Of that model a prompt of 40 tokens, and a token behind 39 others."""
    return {"prefill": weft.trace(gqa, use="prefill", context=40), "decode": weft.trace(gqa, use="decode", context=39)}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Models this small run best on one thread: more wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
