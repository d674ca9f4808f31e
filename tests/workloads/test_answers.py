"""What models ask of values on tensors without any: numbers, layer drop, finite activations, masks, autocast, types."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from weft.workloads.catalog import open_model
from weft.workloads.errors import InputError
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
    "are activations finite?": ("return self.l(x) if torch.isfinite(x).all() else x", ONE),
    "is nothing NaN?": ("return x if torch.isnan(x).any() or x.isinf().any() else self.l(x)", ONE),
    "a mask of ones": ("m = torch.ones(4, 64, dtype=torch.bool)\nreturn self.l(x) if m.all() else x", ONE),
    "the opposite of one": ("m = ~torch.ones(4, dtype=torch.bool)\nreturn x if m.any().item() else self.l(x)", ONE),
    "the type of a tensor": ("return self.l(x).type(x.type())", ONE),
    "a type by name": ("return self.l(x).type('torch.FloatTensor')", ONE),
    "a parameter made on the CPU": ("return self.l(x @ self.p)", TWO),
    "a list of a number": ("return self.l(x) if self.ready.tolist() else x", ONE),
}  # fmt: skip


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


def test_autocast_works_again_after_a_trace(tmp_path):
    traced(tmp_path, "return self.l(x)")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype is torch.bfloat16
    assert isinstance(torch.rand([]), Tensor)
