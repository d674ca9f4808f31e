"""Engines a layer: public foldings and what others publish of them, a loop that walks them, and all foldings tried."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import weft
from weft.dataflow.streaming import (
    Bits,
    Cost,
    Fabric,
    Folding,
    Pipeline,
    StreamingLayer,
    UnreachableError,
    at_rate,
    cheapest,
    fastest,
    legal_foldings,
    read_foldings,
    resolve,
    streaming_layers,
)
from weft.dataflow.streaming.engine import divisors
from weft.workloads.errors import InputError
from weft.workloads.im2col import Window
from weft.workloads.io import load_workload, save_workload
from weft.workloads.step import Workload

from ..strategies import small_layers

PYNQ = Fabric(name="XC7Z020", has=Cost(lut=53_200, bram=280))
LARGE = Fabric(name="a large FPGA", has=Cost(lut=1_000_000, bram=4_000))

CNV_W1A1 = ((16, 3), (32, 32), (16, 32), (16, 32), (4, 32), (1, 32), (1, 4), (1, 8), (5, 1))
"""PE and SIMD of finn-examples, build/bnn-pynq/folding_config/cnv-w1a1_folding_config.json."""


def pipeline(layers: tuple[StreamingLayer, ...], pairs: tuple[tuple[int, int], ...], ram: str = "block") -> Pipeline:
    foldings = tuple(Folding(pe=pe, simd=simd, ram=ram) for pe, simd in pairs)  # type: ignore[arg-type]
    return Pipeline(layers=layers, foldings=foldings)


def dense(*widths: int, weight_bits: int = 1, input_bits: int = 1, first: int = 1) -> tuple[StreamingLayer, ...]:
    """A perceptron."""
    return tuple(
        StreamingLayer(
            name=f"fc{i}", mw=inner, mh=outer, vectors=1, weight_bits=weight_bits, input_bits=input_bits if i else first
        )
        for i, (inner, outer) in enumerate(pairwise(widths))
    )


@pytest.fixture(scope="module")
def cnv() -> tuple[StreamingLayer, ...]:
    return streaming_layers(weft.trace("cnv"))


# --- what others publish


def test_cnv_takes_the_cycles_that_finn_takes(cnv: tuple[StreamingLayer, ...]) -> None:
    """The folding of FINN's CNV-W1A1: 3,052 frames/s at the 100 MHz of its PYNQ builds."""
    found = pipeline(cnv, CNV_W1A1)
    assert found.cycles == (32_400, 28_224, 20_736, 28_800, 20_736, 18_432, 32_768, 32_768, 1_024)
    assert round(found.rate(100_000_000)) == 3_052
    assert (found.interval, found.limits) == (32_768, cnv[6:8])
    assert all(window < cycles for window, cycles in zip(found.window_cycles, found.cycles, strict=True))


BNN_PYNQ = {
    "cnvW1A1": (
        (27, 64, 900, 16, 3, 36, 32_400),
        (576, 64, 784, 32, 32, 36, 28_224),
        (576, 128, 144, 16, 32, 144, 20_736),
        (1152, 128, 100, 16, 32, 288, 28_800),
        (1152, 256, 9, 4, 32, 2304, 20_736),
        (2304, 256, 1, 1, 32, 18_432, 18_432),
        (256, 512, 1, 1, 4, 32_768, 32_768),
        (512, 512, 1, 1, 8, 32_768, 32_768),
        (512, 64, 1, 4, 1, 8_192, 8_192),
    ),
    "lfcW1A1": (
        (832, 1024, 1, 32, 64, 416, 416),
        (1024, 1024, 1, 64, 32, 512, 512),
        (1024, 1024, 1, 32, 64, 512, 512),
        (1024, 64, 1, 16, 8, 512, 512),
    ),
}
"""bnn/src/network/*/hw/config.h of the public repository BNN-PYNQ: MW, MH and positions, PE and SIMD, and what it says
of each: words of weights (WMEM) and cycles (Ext Latency). It pads 784 inputs to 832 and 10 classes to 64."""


@pytest.mark.parametrize("network", BNN_PYNQ)
def test_words_and_cycles_are_those_of_bnn_pynq(network: str) -> None:
    for mw, mh, vectors, pe, simd, words, cycles in BNN_PYNQ[network]:
        layer = StreamingLayer(name=network, mw=mw, mh=mh, vectors=vectors)
        folding = Folding(pe=pe, simd=simd)
        layer.require_legal(folding)
        assert layer.memory(folding) == (words, pe * simd)
        assert layer.cycles(folding) == cycles


@pytest.mark.parametrize(
    ("model", "pairs", "cycles", "fps"),
    [
        # FINN, tests/benchmark/bnn-pynq/folding_config/lfc-w1a1_folding_config.json
        ("lfc", ((32, 49), (64, 32), (32, 64), (10, 8)), (512, 512, 512, 128), 195_312.5),
        # finn-examples, build/bnn-pynq/folding_config/tfc-w1a1_folding_config.json
        ("tfc", ((16, 49), (8, 8), (8, 8), (10, 8)), (64, 64, 64, 8), 1_562_500.0),
    ],
)
def test_foldings_of_finns_perceptrons_are_legal(
    model: str, pairs: tuple[tuple[int, int], ...], cycles: tuple[int, ...], fps: float
) -> None:
    found = pipeline(streaming_layers(weft.trace(model)), pairs)
    assert found.cycles == cycles
    assert found.rate(100_000_000) == fps


def vgg10() -> nn.Module:
    """The one-dimensional network for RadioML 2018 of finn-examples: 7 x (convolution, pool), 3 linear layers."""
    features: list[nn.Module] = []
    for i in range(7):
        features += [nn.Conv1d(32 if i else 2, 32, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool1d(2)]
    head = (nn.Linear(256, 128, bias=False), nn.Linear(128, 128, bias=False), nn.Linear(128, 24, bias=False))
    return nn.Sequential(*features, nn.Flatten(), *head)


def test_vgg10_comes_within_a_tenth_of_its_published_rate() -> None:
    """finn-examples publishes some 230,000 frames/s at 250 MHz with build/vgg10-radioml/folding_config."""
    layers = streaming_layers(weft.trace(vgg10(), torch.empty(4, 2, 1024)), Bits(weight=4, activation=4))
    pairs = ((32, 6), (16, 96), (8, 96), (4, 96), (2, 96), (1, 96), (1, 96), (2, 32), (1, 32), (1, 8))
    found = pipeline(layers, pairs)
    assert found.cycles == (1024,) * 6 + (512,) * 3 + (384,)
    # One dimension, a padded pixel a cycle, since SIMD takes whole windows.
    assert found.window_cycles[:2] == (1028, 516)
    assert 0.9 < 230_000 / found.rate(250_000_000) < 1


def test_estimates_are_those_of_a_run_of_finn() -> None:
    """FINN's cybersecurity example: a public report prints what FINN v0.10.1 estimated on its way to a PYNQ-Z2.

    Weights of two bits; inputs -1 or +1, then two bits. Rate and path are equal, and block RAM; LUTs are at most 3 %
    above, since FINN has seen the trained weights and takes accumulators no wider than they need.
    """
    layers = dense(600, 64, 64, 64, 1, weight_bits=2, input_bits=2, first=1)
    found = pipeline(layers, ((16, 40), (1, 64), (1, 64), (1, 1)))
    assert found.cycles == (60, 64, 64, 64)
    assert (found.rate(100_000_000), found.first_frame) == (1_562_500.0, 252)
    assert [cost.bram for cost in found.costs] == [36, 4, 4, 1]
    for cost, published in zip(found.costs, (6741, 1149, 1148, 316), strict=True):
        assert published <= cost.lut <= 1.03 * published
    # FINN looked for a million frames a second: the cheapest folding is cheaper than its own.
    ours = at_rate(layers, 1_000_000, 100_000_000, PYNQ)
    assert ours.interval <= 100
    assert PYNQ.share(ours.cost) < PYNQ.share(found.cost)


def test_costs_by_hand(cnv: tuple[StreamingLayer, ...]) -> None:
    """FINN's formulas on paper: 300 + 1.1 PE (multiply + add + accumulate), then the window's 300 and its buffer."""
    # 8-bit inputs: 3 lanes x 3 x 9 bits, 9 x 5, sums to 27 x 256; 67 pixels of 3 x 8 bits.
    assert cnv[0].cost(Folding(pe=16, simd=3)) == Cost(lut=300 + 11 * 16 * (81 + 45 + 14) // 10 + 300 + 24 * 2, bram=2)
    # 32 lanes x 2 bits, 2 x 63, sums to 576; 2 x 63 halves of a pixel, 32 lanes; 36 words of 1,024 bits.
    assert cnv[1].cost(Folding(pe=32, simd=32)) == Cost(
        lut=300 + 11 * 32 * (64 + 126 + 11) // 10 + 300 + 32 * 4, bram=29
    )
    # No window; 32,768 words of 4 bits, in LUTs 512 of 64 words each.
    assert cnv[6].cost(Folding(pe=1, simd=4)) == Cost(lut=300 + 11 * (8 + 14 + 10) // 10, bram=8)
    assert cnv[6].cost(Folding(pe=1, simd=4, ram="distributed")) == Cost(lut=335 + 4 * 512)


def test_a_stride_keeps_rows_that_come_early() -> None:
    """Three rows of 40 less the nine taps, beside the 83 pixels of a first window."""
    window = Window(image=(40, 40), kernel=(3, 3), stride=(4, 4), padding=(0, 0), dilation=(1, 1))
    strided = StreamingLayer(name="conv", mw=9, mh=1, vectors=100, window=window, channels=1)
    dense_ = replace(strided, window=replace(window, stride=(1, 1)))
    costs = [layer.cost(Folding(pe=1, simd=1)).lut for layer in (strided, dense_)]
    assert costs[0] - costs[1] == -(-(83 + 111) // 38) - -(-83 // 38)


def test_sfc_at_the_rate_of_the_paper_is_as_late_as_the_paper_says() -> None:
    """Umuroglu et al.: 12.3 million frames/s at 200 MHz on MNIST, after 0.31 us."""
    found = at_rate(streaming_layers(weft.trace("sfc")), 12.3e6, 200_000_000, LARGE)
    assert found.rate(200_000_000) >= 12.3e6
    bound = pipeline(dense(832, 256, 256, 256, 64), ((64, 208), (64, 64), (64, 64), (16, 64)))
    assert bound.interval == 16
    assert 0.31e-6 <= bound.first_frame / 200_000_000 <= 0.33e-6


# --- a loop that walks


def walked(layer: StreamingLayer, folding: Folding) -> int:
    """Cycles of an engine that takes each of its lanes' operands itself, and which weights it has used by then."""
    used = [[0] * layer.mw for _ in range(layer.mh)]
    cycles = 0
    for _ in range(layer.vectors):
        row = 0
        while row < layer.mh:
            column = 0
            while column < layer.mw:
                for pe, lane in product(range(folding.pe), range(folding.simd)):
                    used[row + pe][column + lane] += 1
                column += folding.simd
                cycles += 1
            row += folding.pe
    assert all(count == layer.vectors for row_ in used for count in row_)
    return cycles


@given(small_layers(), st.data())
def test_cycles_are_those_of_a_walk(layer: StreamingLayer, data: st.DataObject) -> None:
    folding = data.draw(st.sampled_from(list(legal_foldings(layer))))
    assert layer.cycles(folding) == walked(layer, folding)
    words, width = layer.memory(folding)
    assert words * layer.vectors == layer.cycles(folding)
    assert words * width == layer.mw * layer.mh * layer.weight_bits


@given(small_layers())
def test_foldings_are_legal_and_all_of_them(layer: StreamingLayer) -> None:
    legal = set()
    for pe, simd in product(range(1, layer.mh + 2), range(1, layer.mw + 2)):
        try:
            layer.require_legal(Folding(pe=pe, simd=simd))
        except InputError:
            continue
        legal.add((pe, simd))
    assert {(f.pe, f.simd) for f in legal_foldings(layer)} == legal
    assert legal == set(product(divisors(layer.mh), divisors(layer.mw)))


def test_divisors() -> None:
    for value in (1, 2, 12, 36, 97, 2304):
        assert divisors(value) == tuple(d for d in range(1, value + 1) if value % d == 0)


def windows_walked(window: Window, folds: int) -> int:
    """Cycles of a unit that waits for the first window, then writes rows of windows while it reads the next rows."""
    (high, broad), wide = window.kernel, window.padded[1]
    cycles = 0
    for row, column in product(range(high), range(wide)):
        cycles += folds * (row < high - 1 or column < broad)
    for _ in range(window.positions[0]):
        written = read = 0
        while written < window.positions[1] * window.taps * folds or read < window.stride[1] * wide * folds:
            written, read, cycles = written + 1, read + 1, cycles + 1
    return cycles


@given(small_layers().filter(lambda layer: layer.window is not None))
def test_windows_come_as_a_walk_writes_them(layer: StreamingLayer) -> None:
    assert layer.window is not None
    for folding in legal_foldings(layer):
        if layer.channels % folding.simd == 0:
            assert layer.window_cycles(folding) == windows_walked(layer.window, layer.channels // folding.simd)
        else:
            assert layer.window_cycles(folding) == layer.window.padded[0] * layer.window.padded[1] + 2


@given(small_layers())
def test_memories_hold_the_weights(layer: StreamingLayer) -> None:
    """18 kbit a RAMB18, and a width of at most 36; a LUT 64 words."""
    for folding in legal_foldings(layer):
        words, width = layer.memory(folding)
        bram, other = layer.cost(folding).bram, layer.cost(replace(folding, ram="distributed"))
        if folding.ram == "block":
            assert 18 * 1024 * bram >= words * width and 36 * bram >= width
            assert other.lut - layer.cost(folding).lut == width * -(-words // 64)
        assert other.bram == 0


@pytest.mark.parametrize(("weight", "inputs"), list(product((1, 2, 3), (1, 2, 4))))
def test_accumulators_hold_every_sum(weight: int, inputs: int) -> None:
    """Two's complement; an operand of one bit is -1 or +1, other activations are not negative."""
    weights = (-1, 1) if weight == 1 else (-(1 << weight - 1), (1 << weight - 1) - 1)
    values = (-1, 1) if inputs == 1 else (0, (1 << inputs) - 1)
    for mw in (1, 3, 64, 600):
        sums = [mw * w * x for w, x in product(weights, values)]
        bits = StreamingLayer(name="fc", mw=mw, mh=1, vectors=1, weight_bits=weight, input_bits=inputs).accumulator_bits
        assert -(1 << bits - 1) <= min(sums) and max(sums) < 1 << bits - 1


# --- the finder


NETWORK = st.lists(small_layers(), min_size=1, max_size=3).map(
    lambda layers: tuple(replace(layer, name=str(i)) for i, layer in enumerate(layers))
)


def tight_fabric(layers: tuple[StreamingLayer, ...], more: int, bram: int) -> Fabric:
    """With ``more`` LUTs than no folding can do without."""
    least = sum(min(layer.cost(f).lut for f in legal_foldings(layer)) for layer in layers)
    return Fabric(name="small", has=Cost(lut=least + more, bram=bram))


def brute(layers: tuple[StreamingLayer, ...], fabric: Fabric) -> dict[int, int]:
    """By interval the least share of all foldings that fit, folding by folding of layer by layer."""
    fronts = {(0, 0, 0): None}
    for layer in layers:
        each = {(layer.interval(f), layer.cost(f).lut, layer.cost(f).bram) for f in legal_foldings(layer)}
        fronts = {
            (max(a, i), b + lut, c + bram): None
            for (a, b, c), (i, lut, bram) in product(fronts, each)
            if b + lut <= fabric.has.lut and c + bram <= fabric.has.bram
        }
    found: dict[int, int] = {}
    for interval, lut, bram in fronts:
        share = fabric.share(Cost(lut=lut, bram=bram))
        found[interval] = min(share, found.get(interval, share))
    return found


@given(NETWORK, st.integers(-20, 1000), st.integers(1, 9), st.integers(1, 2000))
def test_the_finder_finds_what_trying_all_finds(
    layers: tuple[StreamingLayer, ...], more: int, bram: int, limit: int
) -> None:
    fabric = tight_fabric(layers, more, bram)
    tried = brute(layers, fabric)
    least = min((share for interval, share in tried.items() if interval <= limit), default=None)
    if least is None:
        with pytest.raises(UnreachableError):
            cheapest(layers, limit, fabric)
    else:
        found = cheapest(layers, limit, fabric)
        assert found.interval <= limit and fabric.holds(found.cost)
        assert fabric.share(found.cost) == least
    if not tried:
        with pytest.raises(UnreachableError, match="however slow"):
            fastest(layers, fabric)
        return
    quickest = fastest(layers, fabric)
    assert quickest.interval == min(tried)
    assert fabric.share(quickest.cost) == tried[quickest.interval]


def test_of_what_fits_the_least_share_is_taken() -> None:
    """Four memories of 4 RAMB18 or 1,024 LUTs: RAMB18 weigh less, but there are 14, so one layer goes without."""
    fabric = Fabric(name="small", has=Cost(lut=3400, bram=14))
    found = cheapest(dense(256, 256, 256, 256, 256), 65_536, fabric)
    assert sorted(folding.ram for folding in found.foldings) == ["block"] * 3 + ["distributed"]
    assert fabric.holds(found.cost)


@given(NETWORK, st.integers(1, 2000), st.integers(1, 2000))
def test_a_tighter_target_is_never_cheaper(layers: tuple[StreamingLayer, ...], one: int, other: int) -> None:
    tight, loose = sorted((one, other))
    try:
        strict = cheapest(layers, tight, LARGE)
    except UnreachableError:
        return
    assert LARGE.share(strict.cost) >= LARGE.share(cheapest(layers, loose, LARGE).cost)


def test_cnv_at_the_rate_of_finn_is_no_dearer_than_its_folding(cnv: tuple[StreamingLayer, ...]) -> None:
    theirs = pipeline(cnv, CNV_W1A1)
    ours = cheapest(cnv, theirs.interval, PYNQ)
    assert PYNQ.holds(ours.cost)
    assert PYNQ.share(ours.cost) < PYNQ.share(theirs.cost)


@pytest.mark.parametrize(
    ("fabric", "why"),
    [
        (LARGE, r"194,\d{3}\.\d frames/s, 1,026 cycles: layer '0' takes no fewer, for its sliding window"),
        (PYNQ, r"XC7Z020 has too few LUTs for [\d,]+ cycles"),
        (
            replace(LARGE, has=Cost(lut=60_000, bram=20)),
            r"cycles: a large FPGA has too few LUTs or RAMB18 for 16,384 c",
        ),
    ],
)
def test_what_cannot_be_reached_says_what_can(cnv: tuple[StreamingLayer, ...], fabric: Fabric, why: str) -> None:
    with pytest.raises(UnreachableError, match=why) as refused:
        at_rate(cnv, 1e9, 200_000_000, fabric)
    said = float(str(refused.value).split("the highest rate is ")[1].split()[0].replace(",", ""))
    assert at_rate(cnv, said, 200_000_000, fabric).interval == fastest(cnv, fabric).interval
    with pytest.raises(UnreachableError):
        at_rate(cnv, said + 1, 200_000_000, fabric)


def test_an_unfolded_layer_limits() -> None:
    with pytest.raises(UnreachableError, match="layer 'fc0' takes no fewer, unfolded"):
        at_rate((replace(dense(8, 4)[0], vectors=7),), 1e9, 100_000_000, LARGE)


# --- from a model


def test_rows_of_one_frame_whatever_the_batch(tmp_path: Path) -> None:
    one, many = (weft.trace(vgg10(), torch.empty(batch, 2, 1024)) for batch in (1, 6))
    save_workload(many, tmp_path / "step.json")
    assert streaming_layers(one) == streaming_layers(many) == streaming_layers(load_workload(tmp_path / "step.json"))


@pytest.mark.parametrize(
    ("sizes", "image"),
    [
        ({"kernel_size": 3}, (8, 8)),
        ({"kernel_size": 3, "padding": 1}, (8, 8)),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, (8, 8)),
        ({"kernel_size": 7, "padding": 3, "stride": 2}, (16, 16)),
        ({"kernel_size": 2, "stride": 2}, (8, 8)),
        ({"kernel_size": 5, "stride": 3}, (11, 11)),
    ],
)
def test_windows_are_told_from_sizes(sizes: dict[str, int], image: tuple[int, int]) -> None:
    conv = nn.Conv2d(4, 6, bias=False, **sizes)
    (layer,) = streaming_layers(weft.trace(conv, torch.empty(2, 4, *image)))
    assert layer.window is not None
    assert layer.window.image == image
    assert layer.window.kernel == conv.kernel_size
    assert layer.window.stride == conv.stride
    assert layer.window.positions == conv(torch.empty(1, 4, *image)).shape[2:]
    assert (layer.mw, layer.mh, layer.vectors) == (4 * layer.window.taps, 6, layer.window.positions[0] ** 2)


def test_groups_are_one_engine_without_a_known_window() -> None:
    """As FINN's unit for depthwise layers: taps along SIMD, channels along PE."""
    (layer,) = streaming_layers(weft.trace(nn.Conv2d(16, 16, 3, groups=16, bias=False), torch.empty(2, 16, 8, 8)))
    assert (layer.mw, layer.mh, layer.vectors) == (9, 16, 36)
    assert layer.unknown_window and layer.window_cycles(Folding(pe=1, simd=1)) == 0


def test_a_square_kernel_on_what_is_no_square_is_not_guessed() -> None:
    """Three by three on 8 x 16, or nine of one dimension: the buffers differ."""
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    (layer,) = streaming_layers(weft.trace(conv, torch.empty(2, 4, 8, 16)))
    assert (layer.mw, layer.vectors, layer.window, layer.unknown_window) == (36, 128, None, True)


def test_a_kernel_of_one_tap_has_no_window() -> None:
    (layer,) = streaming_layers(weft.trace(nn.Conv2d(16, 8, 1, bias=False), torch.empty(2, 16, 8, 8)))
    assert (layer.window, layer.unknown_window, layer.vectors) == (None, False, 64)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x))  # type: ignore[no-any-return]


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) @ x.transpose(-2, -1)


@pytest.mark.parametrize(
    ("module", "shape", "rule"),
    [
        (Twice(), (4, 8), "weight 'layer.weight' of .* is multiplied more than once a frame"),
        (Scores(), (4, 6, 8), "multiplies two activations"),
    ],
)
def test_what_is_no_pipeline_is_refused(module: nn.Module, shape: tuple[int, ...], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        streaming_layers(weft.trace(module, torch.empty(shape)))


def test_rows_that_are_no_whole_frames_are_refused() -> None:
    step = weft.trace(nn.Linear(8, 4), torch.empty(3, 8))
    with pytest.raises(InputError, match="multiplies 3 rows at batch 2: a frame has no whole number"):
        streaming_layers(replace(step, batch=2))


def test_a_step_without_a_forward_product_is_refused() -> None:
    step = weft.trace(nn.Linear(8, 4), torch.empty(3, 8))
    rest = Workload(model="updates", batch=3, ops=tuple(op for op in step.ops if op not in step.matrix_ops))
    with pytest.raises(InputError, match="no matrices in its forward pass"):
        streaming_layers(rest)


# --- foldings from a file


def reading_of(tmp_path: Path, found: object, layers: tuple[StreamingLayer, ...]) -> tuple[Folding, ...]:
    path = tmp_path / "folding.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return read_foldings(path, layers, PYNQ)


FINN_FILE = {
    "Defaults": {},
    "Thresholding_hls_0": {"PE": 49},
    "MVAU_hls_0": {"PE": 4, "SIMD": 8, "ram_style": "block", "resType": "lut"},
    "MVAU_hls_1": {"PE": 2, "SIMD": 1, "ram_style": "distributed"},
    "LabelSelect_hls_0": {"PE": 1},
}


def test_all_three_forms_say_the_same(tmp_path: Path) -> None:
    layers = dense(16, 4, 2)
    expected = (resolve(layers[0], 4, 8, PYNQ), resolve(layers[1], 2, 1, PYNQ))
    assert reading_of(tmp_path, [[4, 8], [2, 1]], layers) == expected
    assert reading_of(tmp_path, {"fc1": [2, 1], "fc0": {"PE": 4, "SIMD": 8}}, layers) == expected
    assert reading_of(tmp_path, FINN_FILE, layers) == (
        Folding(pe=4, simd=8, ram="block"),
        Folding(pe=2, simd=1, ram="distributed"),
    )


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        ("PE = 4", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        (f"[[{'9' * 5000}, 1], [1, 1]]", "is not valid JSON"),
        (7, "must hold a list .* not 7"),
        ([[4, 8]], "gives 1 foldings, but there are 2 layers: 'fc0', 'fc1'"),
        ([[4, 8], [2]], r"layer 'fc1': must be \[PE, SIMD\] .* not \[2\]"),
        ([[3, 8], [2, 1]], "layer 'fc0': PE 3 does not divide MH 4; the nearest legal PE is 2 or 4"),
        ([[4, 6], [2, 1]], "layer 'fc0': SIMD 6 does not divide MW 16; the nearest legal SIMD is 4 or 8"),
        ([[4, 0], [2, 1]], "SIMD must be an integer from 1 to 16, not 0"),
        ([[4, 32], [2, 1]], "SIMD must be an integer from 1 to 16, not 32; the nearest valid value is 16"),
        ([[4, 8.0], [2, 1]], "SIMD must be an integer"),
        ([[4, True], [2, 1]], "SIMD must be an integer"),
        ({"fc0": [4, 8]}, "gives no folding of layer 'fc1'"),
        ({"fc0": [4, 8], "fc2": [2, 1]}, "layer 'fc2' is unknown: did you mean"),
        ('{"fc0": [4, 8], "fc0": [4, 4], "fc1": [2, 1]}', "folding.json: key 'fc0' stands there twice"),
        ({"MVAU_hls_0": {"PE": 4, "SIMD": 8}}, "FINN's engines there are 1, .* but there are 2 layers"),
        ({"fc0": {"PE": 4}, "fc1": [2, 1]}, "has no SIMD; both are needed"),
        ({"fc0": {"PE": 4, "SIMD": 8, "ram_style": "ultra"}, "fc1": [2, 1]}, "ram_style is 'ultra'"),
        ({"fc0": {"PE": 4, "SIMD": 8, "mem_mode": "external"}, "fc1": [2, 1]}, "mem_mode is external"),
    ],
)
def test_other_foldings_are_refused(tmp_path: Path, found: object, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        reading_of(tmp_path, found, dense(16, 4, 2))


@pytest.mark.parametrize("side", ["weight_bits", "input_bits"])
@pytest.mark.parametrize("bits", [0, 17])
def test_bits_are_from_1_to_16(side: str, bits: int) -> None:
    with pytest.raises(InputError, match="must be an integer from 1 to 16"):
        replace(dense(8, 8)[0], **{side: bits})
