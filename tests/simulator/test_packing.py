"""Packed bits in memory: they come back, take the bytes of the step, and are what the XNOR engine multiplies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.beside import update_work
from weft.dataflow.config_io import load_spec
from weft.dataflow.xnor.mapping import XnorMapping
from weft.simulator.packing import loaded, run_packed_update, stored
from weft.simulator.update_settings import Sgd
from weft.simulator.xnor import run_xnor
from weft.workloads.copies import PackedCopy
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.operand import Role
from weft.workloads.step import UpdateOp

from ..examples_drawn import examples

SPEC = load_spec("bnn-ecp5")


def _bits(value: int, levels: Levels) -> str:
    """As docs/design/xnor.md has a value, the first bit first."""
    match levels:
        case Levels.BINARY:
            return "01"[value < 0]
        case Levels.SPIKE:
            return str(value)
        case Levels.TERNARY:
            return {0: "00", 1: "10", -1: "11"}[value]
    return f"{value % 2**levels.bits:0{levels.bits}b}"[::-1]


@settings(max_examples=examples(60))
@given(st.data())
def test_bits_lie_as_the_contract_says(data: st.DataObject) -> None:
    """Against strings of bits, value by value; and back."""
    levels = data.draw(st.sampled_from(Levels))
    lines, runs, run = (data.draw(st.integers(1, n)) for n in (4, 3, 20))
    word = data.draw(st.sampled_from((0, 8, 16, 64)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).choice(np.array(levels.values), (lines, runs * run))
    text = ""
    for line in values.tolist():
        for start in range(0, runs * run, run):
            of_run = [_bits(v, levels) for v in line[start : start + run]]
            if not word:
                text += "".join(of_run)
                continue
            of_run += ["0" * levels.bits] * (-run % word)
            for first in range(0, len(of_run), word):
                for plane in range(levels.bits):
                    text += "".join(bits[plane] for bits in of_run[first : first + word])
    wanted = bytes(int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8))
    found = stored(values, levels, word, run)
    copy = PackedCopy(role=Role.WEIGHT, levels=levels, pass_=Pass.FF, elements=values.size, run=run, word_bits=word)

    assert found.tobytes() == wanted and len(found) == copy.bytes
    assert (loaded(found, values.shape, levels, word, run) == values).all()


def _ternary(weights: np.ndarray) -> np.ndarray:
    wide = weights.astype(np.float32)
    return (wide / np.abs(wide).mean()).round().clip(-1, 1).astype(np.int64)


@pytest.mark.parametrize(("levels", "looks"), [(Levels.BINARY, 0), (Levels.TERNARY, 1)])
def test_what_the_update_writes_is_what_the_engine_multiplies(levels: Levels, looks: int) -> None:
    """The new weights of PyTorch's SGD brought to few values, times X, are the sums of the engine."""
    outputs, taps, inputs, word = 12, 9, 20, 64
    rng, n = np.random.default_rng(3), 12 * 9 * 20
    master, momentum = (rng.standard_normal(n).astype(np.float32) for _ in range(2))
    gradient = rng.standard_normal(n).astype(np.float16)
    sides = {Pass.FF: inputs, Pass.BP: outputs}
    copies = [
        PackedCopy(role=Role.WEIGHT, levels=levels, pass_=p, elements=n, run=run, word_bits=word)
        for p, run in sides.items()
    ]
    plain = replace(copies[0], word_bits=0)

    def bring(weights: np.ndarray) -> np.ndarray:
        return np.where(weights >= 0, 1, -1) if levels is Levels.BINARY else _ternary(weights)

    ran = run_packed_update(
        SPEC, Sgd(rate=0.1, momentum=0.9), master, gradient, (momentum,), (outputs, taps, inputs),
        (*copies, plain), bring, looks,
    )  # fmt: skip
    weight = torch.nn.Parameter(torch.tensor(master))
    optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9)
    optimizer.state[weight]["momentum_buffer"] = torch.tensor(momentum)
    weight.grad = torch.tensor(gradient.astype(np.float32))
    optimizer.step()
    expected = bring(weight.detach().numpy().astype(np.float16)).reshape(outputs, taps * inputs)

    x = rng.choice(np.array((-1, 1)), (5, taps * inputs))
    b = loaded(ran.copies[0], expected.shape, levels, word, inputs)
    sums = run_xnor(SPEC, XnorMapping(dataflow="os", interleave=1), x, b.T, (Levels.BINARY, levels), run=inputs)
    assert (sums.result == x @ expected.T).all()
    across = loaded(ran.copies[1], (taps * inputs, outputs), levels, word, outputs)
    assert (across == expected.T).all()
    assert (loaded(ran.copies[2], expected.shape, levels) == expected).all()

    op = UpdateOp(name="w", elements=n, dense_copy=False, copies=(*copies, plain), looks=looks)
    work = update_work(op, SPEC, Sgd.rule)
    written = 8 * n + sum(copy.nbytes for copy in ran.copies) + (2 * n if looks else 0)
    assert (work.write, work.lanes) == (written, ran.cycles)


def test_a_weight_of_another_size_is_refused() -> None:
    half, single = np.zeros(6, np.float16), np.zeros(6, np.float32)
    with pytest.raises(InputError, match="master has 6 elements"):
        run_packed_update(SPEC, Sgd(rate=0.1), single, half, (single,), (2, 2, 2), (), lambda w: w.view(np.int16))
