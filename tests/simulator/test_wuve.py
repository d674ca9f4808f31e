"""WUVE: the stepped pipeline against vectorised NumPy, against plain Python, and in time."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec, WuveSpec
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.simulator.array import canonical
from weft.simulator.engines import run_wuve
from weft.simulator.operand import OPERAND_TYPES
from weft.simulator.reference import wuve_reference
from weft.simulator.update_settings import SETTINGS, Adam, AdamW, Nesterov, Sgd, UpdateSettings
from weft.workloads.errors import InputError
from weft.workloads.update_rule import UPDATE_RULES, UpdateRule

from ..examples_drawn import examples
from ..strategies import formats, halves, make_spec, singles, specs

Single = npt.NDArray[np.float32]
rates = st.floats(2.0**-20, 1.0)
scales = st.integers(0, 16).map(lambda e: 2.0**-e)
momentum = {"rate": rates, "momentum": st.floats(0, 1), "weight_decay": st.floats(0, 0.125), "inverse_scale": scales}
moments = {
    "rate": rates,
    "beta1": st.floats(0, 0.9375),
    "beta2": st.floats(0, 0.9375),
    "epsilon": st.floats(0, 2.0**-10),
    "step": st.integers(1, 1000),
    "inverse_scale": scales,
}
rules = st.one_of(
    st.builds(Sgd, **momentum),
    st.builds(Nesterov, **momentum),
    st.builds(Adam, **moments),
    st.builds(AdamW, **moments, weight_decay=st.floats(0, 0.125)),
)


def bits(x: Single) -> list[int]:
    found: list[int] = x.view(np.uint32).tolist()
    return found


def vectorised(
    rule: UpdateSettings, w: Single, g16: npt.NDArray[np.float16], state: tuple[Single, ...]
) -> list[Single]:
    """(weights, state...) by the page's formulas, NumPy rounding every operation to float32."""
    f = np.float32
    g = g16.astype(f) * f(rule.inverse_scale)
    if isinstance(rule, Sgd | Nesterov):
        g = g + f(rule.weight_decay) * w
        v = f(rule.momentum) * state[0] + g
        return [w - f(rule.rate) * (v if isinstance(rule, Sgd) else f(rule.momentum) * v + g), v]
    m = f(rule.beta1) * state[0] + f(1 - rule.beta1) * g
    v = f(rule.beta2) * state[1] + f(1 - rule.beta2) * (g * g)
    root = math.sqrt(1 - rule.beta2**rule.step)
    rate_t, epsilon_t = f(rule.rate * root / (1 - rule.beta1**rule.step)), f(rule.epsilon * root)
    kept = w * f(1 - rule.rate * rule.weight_decay) if isinstance(rule, AdamW) else w
    return [kept - rate_t * m / (np.sqrt(v) + epsilon_t), m, v]


def closed_form(spec: AcceleratorSpec, rule: UpdateSettings, parameters: int) -> int:
    Lm, La = spec.pe.multiply_latency, spec.pe.add_latency
    momentum = {"sgd": 4 * Lm + 3 * La, "nesterov": 5 * Lm + 4 * La}
    depth = momentum.get(rule.rule.name, 3 * Lm + 3 * La + 2 * 16)
    return -(-parameters // spec.wuve.lanes) + depth


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_every_bit_and_cycle_is_that_of_the_page(data: st.DataObject) -> None:
    format = data.draw(formats)
    spec, rule, n = data.draw(specs(format)), data.draw(rules), data.draw(st.integers(1, 70))
    master, gradient = data.draw(singles(n)), data.draw(halves(n, format=format))
    state = tuple(data.draw(singles(n)) for _ in rule.rule.state)
    found = run_wuve(spec, rule, master, gradient, state)
    with np.errstate(all="ignore"):
        expected = [bits(canonical(x)) for x in vectorised(rule, master, gradient, state)]
        weights16 = found.master.astype(gradient.dtype)
    rows, cycles = wuve_reference(spec, rule, master, gradient, state)
    in_python = [bits(canonical(np.array(column, np.float32))) for column in zip(*rows, strict=True)]
    assert [bits(found.master), *map(bits, found.state)] == expected == in_python
    assert found.cycles == cycles == closed_form(spec, rule, n)
    np.testing.assert_array_equal(found.weights16.astype(np.float32), weights16.astype(np.float32))


def test_the_inputs_stay_as_they_are() -> None:
    spec = make_spec(array=ArraySpec(rows=1, cols=1), wuve=WuveSpec(lanes=4))
    master, velocity = np.ones(5, np.float32), np.zeros(5, np.float32)
    found = run_wuve(spec, Sgd(rate=0.5, momentum=0.5), master, np.ones(5, np.float16), (velocity,))
    assert (master == 1).all() and (velocity == 0).all()
    assert found.master.tolist() == found.weights16.tolist() == [0.5] * 5
    assert found.state[0].tolist() == [1.0] * 5


def test_a_weight_beyond_fp16_becomes_infinity_and_nan_canonical() -> None:
    spec = make_spec(array=ArraySpec(rows=1, cols=1))
    master = np.array([1e6, np.nan, 1.0], np.float32)
    found = run_wuve(spec, Sgd(rate=0.1), master, np.array([0, 0, np.inf], np.float16), (np.zeros(3, np.float32),))
    assert found.weights16.view(np.uint16).tolist() == [0x7C00, 0x7E00, 0xFC00]
    assert found.master.view(np.uint32)[1] == 0x7FC00000


def test_a_weight_beyond_bf16_becomes_infinity_and_nan_canonical() -> None:
    spec = make_spec(array=ArraySpec(rows=1, cols=1), pe=PESpec(format="bf16"))
    master = np.array([0x7F7F8000, 0xFFC00001, 0x3F808000, 0x3F818000, 0x00008001], np.uint32).view(np.float32)
    gradient = np.zeros(5, OPERAND_TYPES["bf16"])
    found = run_wuve(spec, Sgd(rate=0.0), master, gradient, (np.zeros(5, np.float32),))
    assert found.weights16.view(np.uint16).tolist() == [0x7F80, 0x7FC0, 0x3F80, 0x3F82, 0x0001]
    assert found.master.view(np.uint32)[1] == 0x7FC00000


def test_one_beat_takes_the_depth_and_a_cycle() -> None:
    spec = make_spec(
        array=ArraySpec(rows=1, cols=1), pe=PESpec(multiply_latency=3, add_latency=5), wuve=WuveSpec(lanes=8)
    )
    master, gradient = np.zeros(8, np.float32), np.zeros(8, np.float16)
    assert run_wuve(spec, Sgd(rate=1.0), master, gradient, (master,)).cycles == 1 + 4 * 3 + 3 * 5
    assert run_wuve(spec, Nesterov(rate=1.0), master, gradient, (master,)).cycles == 1 + 5 * 3 + 4 * 5
    for adaptive in (Adam(rate=1.0, step=1), AdamW(rate=1.0, step=1)):
        assert run_wuve(spec, adaptive, master, gradient, (master, master)).cycles == 1 + 3 * 3 + 3 * 5 + 32


@pytest.mark.parametrize("rule", UPDATE_RULES.values(), ids=UPDATE_RULES)
def test_a_step_is_that_of_the_optimizer_that_trains(rule: UpdateRule) -> None:
    """PyTorch's own optimizer over four steps: the same weights and the same state, up to rounding."""
    spec = make_spec(array=ArraySpec(rows=1, cols=1), wuve=WuveSpec(lanes=4))
    random, n = np.random.default_rng(1), 64
    weight = torch.nn.Parameter(torch.from_numpy(random.standard_normal(n).astype(np.float32)))
    by, decay = rule.trained, 0.25 if rule.decays else 0.0
    optimizer = getattr(torch.optim, by.optimizer)([weight], lr=0.125, weight_decay=decay, **by.settings)
    group = optimizer.param_groups[0]
    master, state = weight.detach().numpy().copy(), tuple(np.zeros(n, np.float32) for _ in rule.state)
    for step in range(1, 5):
        gradient = random.standard_normal(n).astype(np.float16)
        weight.grad = torch.from_numpy(gradient.astype(np.float32))
        optimizer.step()
        beta1, beta2 = group.get("betas", (0.0, 0.0))
        told = {
            "rate": group["lr"],
            "momentum": group.get("momentum"),
            "weight_decay": decay,
            "beta1": beta1,
            "beta2": beta2,
            "epsilon": group.get("eps"),
            "step": step,
        }
        made = SETTINGS[rule.name]
        found = run_wuve(
            spec, made(**{f.name: told[f.name] for f in fields(made) if f.name in told}), master, gradient, state
        )
        master, state = found.master, found.state
        np.testing.assert_allclose(master, weight.detach().numpy(), rtol=2e-6, atol=2e-6)
        kept = optimizer.state[weight]
        assert set(kept) == {held.in_torch for held in rule.state} | ({"step"} if by.counts_steps else set())
        for array, held in zip(state, rule.state, strict=True):
            np.testing.assert_allclose(array, kept[held.in_torch].numpy(), rtol=2e-6, atol=2e-6)


def test_every_rule_has_settings() -> None:
    assert SETTINGS.keys() == UPDATE_RULES.keys()


def test_bad_input_is_refused_by_name() -> None:
    spec = make_spec(array=ArraySpec(rows=1, cols=1))
    master, gradient = np.zeros(4, np.float32), np.zeros(4, np.float16)
    with pytest.raises(InputError, match=r"state of Adam must be \(mean, square\), not 1 arrays"):
        run_wuve(spec, Adam(rate=1.0, step=1), master, gradient, (master,))
    with pytest.raises(InputError, match="gradient16 has 3 elements, but master has 4"):
        run_wuve(spec, Sgd(rate=1.0), master, gradient[:3], (master,))
    with pytest.raises(InputError, match="master must be a non-empty vector of float32, not float16"):
        run_wuve(spec, Sgd(rate=1.0), gradient, gradient, (master,))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="step of Adam must be an integer from 1"):
        Adam(rate=1.0, step=0)
    with pytest.raises(InputError, match="rate of Sgd must be a finite number, not nan"):
        Sgd(rate=math.nan)
    with pytest.raises(InputError, match="beta1 of Adam must be at least 0 and below 1"):
        Adam(rate=1.0, beta1=1.0, step=1)
