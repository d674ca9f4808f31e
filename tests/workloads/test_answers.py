"""What models ask of values on tensors without any: numbers, layer drop, finite activations, masks, autocast, types."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import weft
from weft.workloads.catalog import open_model
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.step import Workload

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(64, 64)
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("ready", torch.tensor(True))
        self.p = nn.Parameter(torch.FloatTensor(64, 64))

    def forward(self, x):
{body}


def net(batch: int = 4):
    return Net(), torch.zeros(batch, 64)
"""
ONE, TWO = 4 * 64 * 64, 8 * 64 * 64
"""Multiply-accumulates in FF of one and of two products of the layer."""

IDIOMS = {
    "autocast of the input's device": ("with torch.autocast(x.device.type):\n    return self.l(x)", ONE),
    "autocast of a GPU": ("with torch.autocast('cuda', dtype=torch.float16):\n    return self.l(x)", ONE),
    "a flag that is set": ("return self.l(self.l(x)) if self.ready else x", TWO),
    "a counter that is low": ("return x if self.steps > 10 else self.l(x)", ONE),
    "a counter that is raised": ("self.steps += 1\nreturn self.l(x) if self.steps == 1 else x", ONE),
    "a layer that may be dropped": ("return x if torch.rand([]) < 0.1 else self.l(x)", ONE),
    "a layer that may be dropped, by size": ("return x if torch.rand(size=()) < 0.1 else self.l(x)", ONE),
    "a layer that Python may drop": ("import random\nreturn x if random.random() < 0.1 else self.l(x)", ONE),
    "a layer that NumPy may drop": (
        "import numpy as np\nreturn x if np.random.uniform(0, 1) < 0.1 else self.l(x)",
        ONE,
    ),
    "a layer that a list of one number drops": ("return x if torch.rand(1, device=x.device) < 0.1 else self.l(x)", ONE),
    "a layer that a number filled in drops": (
        "return x if torch.empty(1).uniform_(0, 1).item() < 0.1 else self.l(x)",
        ONE,
    ),
    "how many layers": ("for _ in range(int(torch.randint(1, 4, (1,)))): x = self.l(x)\nreturn x", TWO),
    "are activations finite?": ("return self.l(x) if torch.isfinite(x).all() else x", ONE),
    "is nothing NaN?": ("return x if torch.isnan(x).any() or x.isinf().any() else self.l(x)", ONE),
    "a mask of ones": ("m = torch.ones(4, 64, dtype=torch.bool)\nreturn self.l(x) if m.all() else x", ONE),
    "the opposite of one": ("m = ~torch.ones(4, dtype=torch.bool)\nreturn x if m.any().item() else self.l(x)", ONE),
    "the type of a tensor": ("return self.l(x).type(x.type())", ONE),
    "a type by name": ("return self.l(x).type('torch.FloatTensor')", ONE),
    "a parameter made on the CPU": ("return self.l(x @ self.p)", TWO),
    "a list of some numbers": (
        "c = torch.tensor([1, 3])\nreturn torch.cat([self.l(p) for p in x.split(c.tolist())])",
        ONE,
    ),
    "numbers worked out of constants": (
        "s = (torch.arange(4) % 2 == 0).nonzero().squeeze(1)\nreturn self.l(x[s])",
        ONE // 2,
    ),
    "a mask that is written into": (
        "m = torch.ones(4, dtype=torch.bool)\nm[1:3][0] = False\nreturn self.l(x[m])",
        3 * ONE // 4,
    ),
    "how often a constant says": (
        "return self.l(x.repeat_interleave(torch.tensor([0, 2, 3, 1]), dim=0))",
        6 * ONE // 4,
    ),
    "what differs": ("return self.l(x[torch.tensor([0, 2, 2, 0]).unique()])", ONE // 2),
    "classes that are counted": (
        "n = nn.functional.one_hot(torch.tensor([0, 3])).shape[1]\nreturn self.l(x[:n - 1])",
        3 * ONE // 4,
    ),
    "two constants that are the same": (
        "a = torch.arange(3)\nreturn self.l(x) if torch.equal(a, a * 1) and torch.allclose(a * 1., a * 1.) else x",
        ONE,
    ),
    "a counter that is raised very often": (
        "c = torch.zeros(2)\nfor _ in range(3000): c += 1\nreturn self.l(x) if c.sum() == 6000 else x",
        ONE,
    ),
    "a list of a number": ("return self.l(x) if self.ready.tolist() else x", ONE),
}


def traced(tmp_path, body: str) -> Workload:
    path = tmp_path / "net.py"
    path.write_text(SOURCE.format(body="\n".join(f"        {line}" for line in body.splitlines())))
    return open_model(f"{path}:net")


@pytest.mark.parametrize("name", IDIOMS)
def test_ordinary_code_is_traced(tmp_path, name):
    body, macs = IDIOMS[name]
    assert traced(tmp_path, body).dense_macs["FF"] == macs


def test_what_was_answered_is_listed_with_its_line_and_kept(tmp_path):
    step = traced(tmp_path, "y = self.l(x)\nreturn y if torch.isfinite(y).all() else x")
    assert step.assumed == ("activations are finite (net.py:16)",)
    assert loads_workload(dumps_workload(step)) == step
    plain = traced(tmp_path, "return self.l(x)")
    assert plain.assumed == () and b"assumed" not in dumps_workload(plain)


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ("return self.l(x) if x.sum() > 0 else x", "the value of a tensor"),
        ("return self.l(x) if x.mean(1).tolist() else x", r"the values of a tensor of \[4\]"),
        ("m = torch.ones(4, dtype=torch.bool)\nm[0] = x[0, 0] > 0\nreturn self.l(x) if m.all() else x", "the value"),
        (
            "m = torch.zeros(4, dtype=torch.bool)\nm.logical_or_(x[:, 0] > 0)\nreturn self.l(x) if m.any() else x",
            "the value",
        ),
    ],
)
def test_what_depends_on_data_is_refused_in_the_users_own_line(tmp_path, body, asked):
    with pytest.raises(InputError, match=rf"net\.py:\d+ asks for {asked}.*without looking at data"):
        traced(tmp_path, body)


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ("m = x[:, 0] > 0\nreturn self.l(x[m])", r"which elements a mask keeps \(boolean indexing\)"),
        ("return self.l(x[torch.where(x[:, 0] > 0)[0]])", "nonzero"),
        ("return self.l(torch.masked_select(x, x > 0).view(-1, 64))", "masked_select"),
        ("return self.l(x) if x.argmax() == 0 else x", "the value of a tensor"),
        ("m = torch.randn(4) > 0\nreturn self.l(x[m])", "which elements a mask keeps"),
        ("m = torch.ones(4, dtype=torch.bool)\nm[0:1] = x[:1, 0] > 0\nreturn self.l(x[m])", "which elements"),
        ("c = torch.bincount(x[0].long(), minlength=4)\nreturn self.l(x) if c.tolist() else x", "bincount"),
    ],
)
def test_sizes_that_data_decide_are_refused_in_the_users_own_line(tmp_path, body, asked):
    with pytest.raises(InputError, match=rf"net\.py:\d+ asks for {asked}.*topk, argmax, sort and multinomial choose"):
        traced(tmp_path, body)


@pytest.mark.parametrize(
    ("tokens", "experts", "chosen", "shares"),
    [(8, 4, 2, [4, 4, 4, 4]), (9, 4, 2, [5, 5, 4, 4]), (3, 8, 1, [1, 1, 1, 0, 0, 0, 0, 0]), (7, 3, 3, [7, 7, 7])],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_chosen_is_shared_equally_the_first_get_the_rest(tmp_path, tokens, experts, chosen, shares, axis):
    body = (
        f"s = torch.zeros({tokens}, {experts}) + x.sum()\n"
        f"i = (s.t() if {axis} == 0 else s).topk({chosen}, dim={axis}).indices\n"
        f"assert torch.bincount(i.flatten(), minlength={experts}).tolist() == {shares}\n"
        f"assert i.sort({axis}).values.diff(dim={axis}).gt(0).all()\n"
        "return self.l(x)"
    )
    step = traced(tmp_path, body)
    assert step.assumed == (
        "what data choose (the experts of a token) is shared equally, the first ones get what is left over "
        "(net.py:17, net.py:18)",
    )


class Parted(nn.Module):
    """Rows of the input in parts whose sizes a buffer and a plain attribute keep."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.sizes = nn.Linear(8, 8), nn.Buffer(torch.tensor([3, 1]))
        self.kept, self.norm = torch.tensor([True, False, True, True]), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        assert self.sizes.tolist() == [3, 1]
        first, _ = self.norm(x)[self.kept].split([2, 1])
        if self.norm.running_mean.sum() == 0:
            return x
        return self.l(first)


def test_small_buffers_keep_their_values_until_a_layer_changes_them(tmp_path):
    module = Parted()
    with pytest.raises(InputError, match=r"test_answers\.py:\d+ asks for the value of a tensor"):
        weft.trace(module, inputs=torch.zeros(4, 8))
    module.norm = nn.Identity()
    module.norm.running_mean = torch.ones(8)
    assert weft.trace(module, inputs=torch.zeros(4, 8)).dense_macs["FF"] == 2 * 64


class Unsized(nn.Module):
    """A lazy layer in front of experts: its shapes are learnt from a first run, which asks for values too."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.gate = nn.LazyLinear(8), nn.Linear(8, 2)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x)
        chosen = self.gate(x).argmax(-1)
        return torch.cat([expert(x[chosen == number]) for number, expert in enumerate(self.experts)])


def test_a_lazy_layer_before_experts_is_sized() -> None:
    step = weft.trace(Unsized(), inputs=torch.zeros(6, 5))
    assert step.dense_macs["FF"] == 6 * (5 * 8 + 8 * 2 + 8 * 8)
    assert {op.gemm.m for op in step.matrix_ops if "experts" in op.name and op.pass_ == "FF"} == {3}


def test_distributions_take_their_parameters_for_right(tmp_path, monkeypatch):
    # Off for good once some library of an earlier test was imported.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
    step = traced(tmp_path, "return torch.distributions.Normal(self.l(x), self.l(x).exp()).rsample()")
    assert step.dense_macs["FF"] == TWO
    assert torch.distributions.Normal(0.0, 1.0)._validate_args


def test_inputs_keep_their_values_unless_they_hold_a_place(tmp_path):
    source = SOURCE.format(body="        return self.l(x[m])").replace("def forward(self, x", "def forward(self, x, m")
    path = tmp_path / "net.py"
    for mask, rows in (("[True, False, True, True]", 3), ("[True] * 4", 4), ("[0, 3]", 2)):
        path.write_text(source.replace("torch.zeros(batch, 64)", f"(torch.zeros(batch, 64), torch.tensor({mask}))"))
        assert open_model(f"{path}:net").dense_macs["FF"] == rows * 64 * 64
    asks = source.replace("x[m]", "x[m != 0]").replace(
        "torch.zeros(batch, 64)", "(torch.zeros(batch, 64), torch.zeros(4, dtype=torch.long))"
    )
    path.write_text(asks)
    with pytest.raises(InputError, match="which elements a mask keeps"):
        open_model(f"{path}:net")


def test_autocast_works_again_after_a_trace(tmp_path):
    traced(tmp_path, "return self.l(x)")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype is torch.bfloat16
    assert isinstance(torch.rand([]), Tensor)


def test_what_python_draws_is_the_same_every_time_and_goes_on_after(tmp_path: Path) -> None:
    """A bound function and a generator's list cannot be the middle of anything, but two traces draw alike."""
    body = "from random import random, sample\nfor _ in range(sum(sample(range(9), 2))): x = self.l(x)\n"
    body += "return self.l(x) if random() < 0.5 else x"
    random.seed(3)
    state = random.getstate()
    counts = {traced(tmp_path, body).dense_macs[Pass.FF] for _ in range(4)}
    assert len(counts) == 1
    assert random.getstate() == state


def test_packed_sequences_have_the_lengths_that_are_given(tmp_path: Path) -> None:
    """Five and three steps of a GRU: inputs of 8 rows at once, the state of 2, 2, 2, 1 and 1 rows."""
    path = tmp_path / "net.py"
    text = """
import torch
from torch import nn
from torch.nn.utils import rnn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.r = nn.GRU(16, 8, batch_first=True)

    def forward(self, x, lengths):
        packed = rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(self.r(packed)[0], batch_first=True)[0]

def net():
    return Net(), (torch.zeros(2, 5, 16), torch.tensor(LENGTHS))
"""
    path.write_text(text.replace("LENGTHS", "[3, 5]"))
    assert weft.trace(f"{path}:net").dense_macs[Pass.FF] == 8 * 16 * 24 + 8 * 8 * 24
    path.write_text(text.replace("LENGTHS", "[0, 0]"))
    with pytest.raises(weft.InputError, match=r"net\.py:12 asks for the lengths of sequences that are packed"):
        weft.trace(f"{path}:net")
