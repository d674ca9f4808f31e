"""A step of FP8: E4M3 forward, E5M2 gradients, against loops over single numbers rounded by ml_dtypes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from weft._cli.inputs import machine
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.simulator.machine.numerics import machine_numerics, numerics_of
from weft.simulator.machine.step import Execution
from weft.simulator.reference.engines import wuve_reference
from weft.simulator.reference.machine import (
    Places,
    convolve_back_reference,
    convolve_reference,
    in_order,
    product_reference,
    weight_gradient_reference,
)
from weft.simulator.update_settings import Sgd
from weft.workloads.errors import InputError
from weft.workloads.graph import Graph
from weft.workloads.tracing.graph import step_graph
from weft.workloads.training import plan, train
from weft.workloads.update_rule import UPDATE_RULES

from ...strategies import make_spec

Single = npt.NDArray[np.float32]
FIRST, SECOND = Places(3, 1, 1, 1), Places(3, 2, 1, 1)


def forward(x: Any) -> Any:
    """E4M3, which ml_dtypes does not saturate."""
    return np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn)


def gradient(x: Any) -> Any:
    return np.asarray(x, np.float32).astype(ml_dtypes.float8_e5m2)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


@cache
def graph() -> Graph:
    return step_graph(network(), torch.zeros(2, 1, 4, 4), name="small")


def last(images: Any) -> Any:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def first(images: Any) -> Any:
    return images.transpose(0, 3, 1, 2)


def every(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    return np.ones(shape, np.bool_)


def product(a: Any, b: Any) -> Single:
    return product_reference(a, b, every((*a.shape, b.shape[1])))


def totals(g: Any) -> Any:
    """The gradient of a bias: in order of positions, of [..., outputs]."""
    columns = g.astype(np.float32).reshape(-1, g.shape[-1]).T
    return gradient([in_order(column) for column in columns])


def step_by_hand(held: dict[str, Single], pixels: Single, of_scores: Single) -> tuple[Any, dict[str, Any]]:
    """Scores, E4M3, and the gradients of the parameters, E5M2."""
    w0, w2, w4 = last(forward(held["0.weight"])), last(forward(held["2.weight"])), forward(held["4.weight"])
    x = last(forward(pixels))
    y0 = forward(convolve_reference(x, w0, FIRST, 1, every(w0.shape)) + held["0.bias"])
    y1 = np.where(y0.astype(np.float32) > 0, y0, forward(np.float32(0)))
    y2 = forward(convolve_reference(y1, w2, SECOND, 1, every(w2.shape)) + held["2.bias"])
    flat = np.ascontiguousarray(first(y2)).reshape(2, -1)
    scores = forward(product(flat, np.ascontiguousarray(w4.T)) + held["4.bias"])

    g4 = gradient(of_scores)
    g2 = last(gradient(product(g4, w4)).reshape(first(y2).shape))
    back = convolve_back_reference(g2, w2, SECOND, 1, every(w2.shape), every(g2.shape), (4, 4))
    g0 = np.where(y1.astype(np.float32) > 0, gradient(back), gradient(0))
    made = {
        "4.weight": gradient(product(np.ascontiguousarray(g4.T), flat)),
        "4.bias": totals(g4),
        "2.weight": first(gradient(weight_gradient_reference(y1, g2, SECOND, 1, every(g2.shape)))),
        "2.bias": totals(g2),
        "0.weight": first(gradient(weight_gradient_reference(x, g0, FIRST, 1, every(g0.shape)))),
        "0.bias": totals(g0),
    }
    return scores, made


def same(found: Any, wanted: Any) -> bool:
    """Every bit, of a NaN that it is one."""
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    one, two = (np.ascontiguousarray(x).view(np.uint8) for x in (found, wanted))
    nan = np.isnan(found.astype(np.float32))
    return bool(((one == two) | (nan & np.isnan(wanted.astype(np.float32)))).all())


@pytest.mark.parametrize(("seed", "scale"), [(0, 1.0), (1, 64.0), (2, 2.0**17)])
def test_a_step_is_that_of_loops_over_single_numbers(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    model = network()
    held = {name: x.detach().numpy().copy() for name, x in model.named_parameters()}
    drawn = np.random.default_rng(seed)
    pixels = drawn.normal(0, 2, (2, 1, 4, 4)).astype(np.float32)
    of_scores = (scale * drawn.normal(0, 1, (2, 4))).astype(np.float32)
    run = Execution(graph(), held, pixels, "fp8")
    scores, (gradients, _) = run.forward(), run.backward(of_scores)
    with np.errstate(all="ignore"):
        wanted, made = step_by_hand(held, pixels, of_scores)

    assert same(scores, wanted)
    assert gradients.keys() == made.keys()
    for name, value in made.items():
        assert same(gradients[name], value), name
    # What is too large is infinite, which loss scaling sees; what is too large forward is not.
    infinite = any(np.isinf(g.astype(np.float32)).any() for g in gradients.values())
    assert infinite is (scale > 1000)
    assert np.isfinite(scores.astype(np.float32)).all()


def test_the_update_is_wuves() -> None:
    drawn = np.random.default_rng(5)
    master, momentum = drawn.normal(0, 1, (2, 7)).astype(np.float32)
    g = gradient(drawn.normal(0, 9, 7))
    own = Sgd(rate=0.1, momentum=0.9, weight_decay=1e-4, inverse_scale=0.25)
    spec = make_spec(array=ArraySpec(rows=2, cols=2), pe=PESpec(format="fp8"))
    wanted, _ = wuve_reference(spec, own, master, g, (momentum,))
    named = {"rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "inverse_scale": 0.25}
    found = machine_numerics("machine-fp8").update(UPDATE_RULES["sgd"], named, master, g, (momentum,))
    assert [x.tobytes() for x in found] == [np.array(x).tobytes() for x in zip(*wanted, strict=True)]


def test_gradients_are_what_is_made_of_that_of_the_scores() -> None:
    own, step = graph().gradients, graph()
    made = {node.op: set(node.makes) <= own for node in step.nodes if node.op.startswith("aten.convolution")}
    assert made == {"aten.convolution": False, "aten.convolution_backward": True}
    assert {port.tensor for port in step.outputs if port.kind == "output"}.isdisjoint(own)


def test_a_machine_says_what_trains(tmp_path: Path) -> None:
    tiny = machine("tiny")
    for format, name in (("fp16", "machine"), ("bf16", "machine-bf16"), ("fp8", "machine-fp8")):
        assert numerics_of(replace(tiny, pe=replace(tiny.pe, format=format))) == name  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'int8', of which WUVE makes no weights: a training runs in fp16, bf16 or f"):
        numerics_of(replace(tiny, pe=replace(tiny.pe, format="int8")))


def test_a_network_learns_in_eight_bits() -> None:
    spec = plan("mlp", scheme="bdwp", epochs=2, numerics="machine-fp8")
    found = train(spec, numerics=machine_numerics)
    assert found.log[-1].loss < 0.9 * found.log[0].loss
    assert found.log[-1].density_ff == pytest.approx(0.25, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["dense", "bdwp"])
def test_it_learns_as_well_as_pytorch_with_scales(scheme: str) -> None:
    def accuracy(**changes: Any) -> float:
        asked = [plan("mlp", scheme=scheme, epochs=20, seed=seed, **changes) for seed in range(3)]
        return float(np.mean([train(spec, numerics=machine_numerics).accuracy for spec in asked]))

    found, scaled = accuracy(numerics="machine-fp8"), accuracy(amp="fp8")
    assert found > 0.9 and found > scaled - 0.03, (found, scaled)
