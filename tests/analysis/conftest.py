"""Small steps on the tiny machine: two convolutions, a linear layer, activations, updates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from weft.analysis.energy_table import EnergyTable, load_table
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.result import SimResult
from weft.simulator.step import simulate
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import Operand, Role
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload

if TYPE_CHECKING:
    from .browser import Browser

ROLES = {
    Pass.FF: (Role.ACTIVATION, Role.WEIGHT, Role.ACTIVATION),
    Pass.BP: (Role.GRADIENT, Role.WEIGHT, Role.GRADIENT),
    Pass.WU: (Role.GRADIENT, Role.ACTIVATION, Role.GRADIENT),
}


def matrix(name: str, pass_: Pass, gemm: Gemm, *, convolution: bool = False) -> MatrixOp:
    a, b, c = ROLES[pass_]
    g = gemm.groups
    return MatrixOp(
        name=name,
        op="aten.mm",
        pass_=pass_,
        gemm=gemm,
        a=Operand(role=a, dtype="float16", bytes=2 * g * gemm.m * gemm.k),
        b=Operand(role=b, dtype="float16", bytes=2 * g * gemm.k * gemm.n),
        c=Operand(role=c, dtype="float16", bytes=2 * g * gemm.m * gemm.n),
        parameter=f"{name}.weight",
        convolution=convolution,
    )


def layer(name: str, rows: int, inputs: int, outputs: int, *, convolution: bool = False) -> tuple[MatrixOp, ...]:
    return (
        matrix(name, Pass.FF, Gemm(m=rows, k=inputs, n=outputs), convolution=convolution),
        matrix(name, Pass.BP, Gemm(m=rows, k=outputs, n=inputs), convolution=convolution),
        matrix(name, Pass.WU, Gemm(m=outputs, k=rows, n=inputs), convolution=convolution),
    )


def relu(name: str, elements: int, pass_: Pass = Pass.FF) -> VectorOp:
    size = 2 * elements
    return VectorOp(
        name=name, op="aten.relu", pass_=pass_, dtype="float16", elements=elements, read_bytes=size, write_bytes=size
    )


def step(optimizer: str = "sgd") -> Workload:
    """First convolution stays dense, runs of 4 too, and 20 is no multiple of a group of 8."""
    layers = {"net.0.conv": (50, 27, 16), "net.1.conv": (50, 20, 24), "net.2.conv": (30, 4, 4), "head": (10, 64, 33)}
    ops: list[Op] = []
    for name, (rows, inputs, outputs) in layers.items():
        ops += layer(name, rows, inputs, outputs, convolution="conv" in name)
        ops.append(relu(f"{name}.relu", rows * outputs))
    ops += [UpdateOp(name=f"{name}.weight", elements=i * o) for name, (_, i, o) in layers.items()]
    return Workload(model="toy", batch=10, input="10 x 3", optimizer=optimizer, ops=tuple(ops))


def run(scheme: str, pattern: str = "2:8", *, workload: Workload | None = None, machine: str = "tiny") -> SimResult:
    annotated = annotate(workload or step(), scheme, NMPattern.parse(pattern))
    return simulate(schedule(annotated, load_spec(machine)))


def chip(technology: str) -> EnergyTable:
    table = load_table(technology)
    assert isinstance(table, EnergyTable)
    return table


@pytest.fixture(scope="session")
def dense() -> SimResult:
    return run("dense")


@pytest.fixture(scope="session")
def bdwp() -> SimResult:
    return run("bdwp")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from .browser import Browser

    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


@pytest.fixture
def quiet(browser: Browser) -> Iterator[None]:
    """A test may leave no error in the console."""
    browser.complaints()
    yield
    assert not browser.complaints()
