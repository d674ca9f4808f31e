"""Small networks whose training on the RTL takes seconds, and what trains them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from weft.dataflow.config_io import load_spec
from weft.dataflow.operand import FormatName
from weft.dataflow.program.spaces import Target
from weft.hdl.drivers.accelerator import Accelerator
from weft.workloads.sparsity import NMPattern
from weft.workloads.training.plan import plan
from weft.workloads.training.prepared import Prepared, prepared
from weft.workloads.update_rule import SGD

NETWORKS = """
from torch import nn
def mlp(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))
def cnn(classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, classes),
    )
"""
BATCH = {"mlp": 8, "cnn": 4}


@cache
def work_of(network: str, scheme: str = "dense", pattern: NMPattern | None = None) -> Prepared:
    """A training of digits."""
    path = Path(mkdtemp()) / "networks.py"
    path.write_text(NETWORKS)
    usual = {"data": "digits", "optimizer": SGD.name, "weight_decay": 0.0}
    return prepared(plan(f"{path}:{network}", scheme=scheme, pattern=pattern, batch=BATCH[network], **usual))


@cache
def machine_of(arch: str = "tiny", pattern: NMPattern | None = None, format: FormatName = "fp16") -> Accelerator:
    """The RTL, for all of them: to elaborate it takes ten seconds, and to compile it thirty."""
    return Accelerator(target_of(arch, pattern, format), 1 << 17, 1 << 11)


@cache
def target_of(arch: str = "tiny", pattern: NMPattern | None = None, format: FormatName = "fp16") -> Target:
    spec = load_spec(arch)
    return Target(spec=replace(spec, pe=replace(spec.pe, format=format)), rule=SGD, pattern=pattern)
