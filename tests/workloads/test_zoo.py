"""The built-in models: catalogue, published sizes, and multiply-accumulates of the oracle."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from weft.workloads.errors import InputError
from weft.workloads.gemm import GEMM_PASSES, Pass
from weft.workloads.models import zoo
from weft.workloads.trace import trace_step

GOLDEN = Path(__file__).parents[1] / "golden" / "trace_macs.csv"

NAMES = (
    "resnet9",
    "resnet18",
    "resnet50",
    "vgg19",
    "vit_s",
    "vit_b_16",
    "swin_t",
    "mobilenet_v2",
    "convnext_t",
    "bert_base",
    "gpt2",
    "characters",
    "llama2_7b",
    "llama2_70b",
    "mixtral_8x7b",
    "lstm_lm",
    "unet_s",
    "cnv",
    "tfc",
    "sfc",
    "lfc",
    "birealnet",
    "supernet9",
    "snn",
    "snn_t4",
)

# Published by torchvision, the papers and the model cards; those of this project and FINN's by hand from their layers.
PARAMETERS = {
    "resnet9": 6_573_120,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "vgg19": 143_667_240,
    "vit_s": 21_376_996,
    "vit_b_16": 86_567_656,
    "swin_t": 28_288_354,
    "mobilenet_v2": 3_504_872,
    "convnext_t": 28_589_128,
    "bert_base": 109_514_298,
    "gpt2": 124_439_808,
    # four projections, two layers of 512 neurons and two norms a block; letters, positions (two are OPT's own), a norm
    "characters": 3 * (4 * 129 * 128 + 129 * 512 + 513 * 128 + 4 * 128) + 97 * 128 + 66 * 128 + 2 * 128,
    "llama2_7b": 6_738_415_616,
    "llama2_70b": 68_976_648_192,
    "mixtral_8x7b": 46_702_792_704,
    "lstm_lm": 19_780_400,
    # weights, as FINN's repositories list the layers, and two a channel of batch-norm
    "cnv": 1_542_848 + 2 * (2 * 64 + 2 * 128 + 2 * 256 + 2 * 512),
    "tfc": 59_008 + 2 * 3 * 64,
    "sfc": 334_336 + 2 * 3 * 256,
    "lfc": 2_910_208 + 2 * 3 * 1024,
    # 3 x 3 convolutions without bias, four of each width, two a channel of batch-norm, and a head of 10
    "birealnet": 9 * (3 * 64 + 64**2 * (4 + 2 + 3 * 4 + 8 + 3 * 16 + 32 + 3 * 64)) + 2 * (64 + 4 * 960) + 5130,
    # 3 x 3 convolutions without bias, three of each width, two a channel of batch-norm, and a head of 10
    "supernet9": 9 * (3 * 32 + 2 * 32**2 + 32 * 64 + 2 * 64**2 + 64 * 128 + 2 * 128**2) + 2 * 3 * 224 + 1290,
    # three convolutions, a threshold a channel behind each, the head; time steps share all of them
    **dict.fromkeys(("snn", "snn_t4"), 9 * (64 + 64 * 64 + 64 * 128) + 64 + 64 + 128 + 10 * 128 * 7 * 7),
}

# Models the golden file leaves out: GMAC of FF, BP and WU by FlopCounterMode, corrected as that file is.
GMACS = {
    "swin_t": (2299.170, 2363.524, 2227.418),
    "mobilenet_v2": (153.996, 148.447, 153.996),
    "convnext_t": (2281.232, 2273.833, 2281.232),
    "llama2_70b": (1213757.758, 1301718.688, 1125796.828),
    "mixtral_8x7b": (226465.036, 244057.222, 208872.850),
    "unet_s": (147.539, 146.633, 147.539),
    "cnv": (5.946, 5.791, 5.946),
    "lfc": (0.291, 0.211, 0.291),
    "snn": (0.727, 0.698, 0.727),
    "snn_t4": (2.819, 2.791, 2.819),
}

IN_GOLDEN = ("resnet18", "resnet50", "vgg19", "vit_b_16", "bert_base", "gpt2", "llama2_7b", "lstm_lm")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_catalogue_is_complete_and_described() -> None:
    assert zoo.names() == NAMES
    for model in zoo.MODELS.values():
        assert model.title and model.batch > 0 and "\n" not in model.title
    assert zoo.MODELS["resnet50"].input == "3 x 224 x 224"
    assert zoo.MODELS["lfc"].input == "1 x 28 x 28"
    assert zoo.MODELS["llama2_7b"].input == "4096 tokens"


def test_catalogue_needs_no_torch() -> None:
    heavy = run_python(
        "import sys; from weft.workloads.models import zoo; zoo.names(); [m.input for m in zoo.MODELS.values()];"
        "print([m for m in ('torch', 'transformers', 'onnx') if m in sys.modules])"
    )
    assert heavy.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_builds_on_meta_with_published_size(name: str) -> None:
    source = zoo.source(name)
    assert (source.name, source.title) == (name, zoo.MODELS[name].title)
    with torch.device("meta"):
        model = source.build()
        inputs = source.inputs(None, None)
    assert inputs.batch == zoo.MODELS[name].batch
    tensors = [*model.parameters(), *model.buffers(), *inputs.args, *inputs.kwargs.values()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    if name in PARAMETERS:
        assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    if source.dtype is not None:
        assert {parameter.dtype for parameter in model.parameters()} == {source.dtype}


@pytest.mark.parametrize("name", IN_GOLDEN)
def test_macs_equal_the_oracle(name: str) -> None:
    with GOLDEN.open(newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        expected = {Pass(row["pass"]): int(row["macs"]) for row in rows if row["model"] == name}
    assert set(expected) == set(GEMM_PASSES)
    assert trace_step(zoo.source(name)).dense_macs == expected


@pytest.mark.parametrize("name", [name for name in GMACS if name != "llama2_70b"])
def test_macs_equal_the_flop_counter(name: str) -> None:
    traced = trace_step(zoo.source(name)).dense_macs
    assert tuple(round(traced[pass_] / 1e9, 3) for pass_ in GEMM_PASSES) == GMACS[name]


def test_the_largest_model_takes_less_than_300_megabytes() -> None:
    """Above what torch and transformers take, which depends on the build: that of CUDA loads 350 MB more."""
    out = run_python(
        "from pathlib import Path; from weft.workloads.models import zoo; from weft.workloads.trace import trace_step;"
        # Not getrusage: a child starts with the peak of the process that forked it.
        "peak = lambda: Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0];"
        "trace_step(zoo.source('gpt2')); print(peak());"
        "step = trace_step(zoo.source('llama2_70b'));"
        "print(*[round(m / 1e9, 3) for m in step.dense_macs.values()]); print(peak())"
    )
    before, macs, after = out.splitlines()
    assert tuple(map(float, macs.split())) == GMACS["llama2_70b"]
    assert int(after) - int(before) < 300 * 1024


def test_experts_have_equal_shares() -> None:
    """The closed form of the experts: tokens x 2 experts x 3 matrices x 4096 x 14336 x 32 layers, once per pass."""
    with_experts = trace_step(zoo.source("mixtral_8x7b"), batch=1, seq=64)
    grouped = [op for op in with_experts.matrix_ops if op.gemm.groups == 8 and op.parameter is not None]
    for pass_ in GEMM_PASSES:
        assert sum(op.macs for op in grouped if op.pass_ is pass_) == 64 * 2 * 3 * 4096 * 14336 * 32


def test_batch_and_sequence_override_the_defaults() -> None:
    shapes = {name: zoo.source(name).inputs(2, 16).shape for name in ("gpt2", "bert_base", "llama2_7b", "lstm_lm")}
    assert shapes == {"gpt2": "2 x 16", "bert_base": "2 x 16", "llama2_7b": "2 x 16", "lstm_lm": "16 x 2"}
    assert zoo.source("llama2_7b").inputs(1, 8192).shape == "1 x 8192"


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        # Convolutions shrink with the area, (64 / 224)^2 = 4 / 49 and (32 / 224)^2 = 1 / 49; the linear layers do not.
        ("resnet18@64", (928_805_552_128 // 512 - 512_000) * 4 // 49 + 512_000),
        ("vgg19@32", (10_051_615_981_568 // 512 - 123_633_664) // 49 + 123_633_664),
    ],
)
def test_input_size_suffix(name: str, macs: int) -> None:
    source = zoo.source(name)
    assert source.name == name.partition("@")[0]
    step = trace_step(source, batch=1)
    side = name.partition("@")[2]
    assert step.input == f"1 x 3 x {side} x {side}"
    assert step.dense_macs[Pass.FF] == macs


def test_default_size_is_the_suffix() -> None:
    plain, sized = trace_step(zoo.source("vit_b_16"), batch=2), trace_step(zoo.source("vit_b_16@224"), batch=2)
    assert plain == sized


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "model 'resnet81' is unknown: did you mean 'resnet18'"),
        ("", "choose one of"),
        ("gpt2@64", "reads tokens"),
        ("resnet18@", "must be an integer from 32 to 8192"),
        ("resnet18@16", "must be an integer from 32 to 8192"),
        ("resnet18@-64", "must be an integer"),
        ("resnet18@²", "must be an integer"),
        ("vit_b_16@100", "a multiple of 16"),
        ("unet_s@999999999999", "a multiple of 8"),
    ],
)
def test_bad_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        zoo.source(name)


@pytest.mark.parametrize(
    ("name", "seq", "message"),
    [
        ("resnet18", 7, "reads images; set the input size, as resnet18@64"),
        ("gpt2", 1025, "from 1 to 1024"),
        ("bert_base", 513, "from 1 to 512"),
        ("llama2_7b", 0, "from 1"),
        ("lstm_lm", 10**6, "from 1 to 4096"),
    ],
)
def test_bad_sequence_lengths_are_refused(name: str, seq: int, message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        zoo.source(name).inputs(1, seq)
