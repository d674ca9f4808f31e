"""The table of docs/results/program.md, made by compiling and simulating: `python -m weft.tests.program_page`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.compiler import compile_step
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.spaces import Target
from weft.dataflow.program.summary import summary
from weft.dataflow.schedule import schedule
from weft.simulator.machine.program_time import LATENCY, bus_bytes, program_time
from weft.simulator.system import simulate_system
from weft.workloads.training import plan
from weft.workloads.training.model import step_workload, training_graph
from weft.workloads.update_rule import UPDATE_RULES

PAGE = Path(__file__).parents[1] / "docs" / "results" / "program.md"
STEPS = (("mlp", 16, "tiny"), ("cnn", 8, "tiny"), ("cnn", 8, "sat-ecp5"), ("resnet9", 4, "sat-ecp5"))
"""Model on digits, batch, machine."""
ENGINES = {Unit.PRODUCT: "STCE", Unit.VECTOR: "vector", Unit.UPDATE: "WUVE"}
HEAD = ("step", "level", "cycles", "product", "vector", "update", "memory", "bytes")


def compared(model: str, batch: int, arch: str) -> Iterator[list[str]]:
    """The same step by its program and by the system level, and how many times as much the program takes."""
    training = plan(model, data="digits", scheme="dense", batch=batch)
    target = Target(spec=load_spec(arch), rule=UPDATE_RULES[training.optimizer])
    step = compile_step(training_graph(training), target)
    programs = (step.forward, step.backward)
    times = [program_time(program, target) for program in programs]
    moved = [summary(program, target) for program in programs]
    busy = {unit: sum(time.busy[unit] for time in times) for unit in Unit}
    by_program = [
        sum(time.cycles for time in times),
        *(busy[unit] for unit in ENGINES),
        busy[Unit.LOAD] + busy[Unit.STORE],
        sum(one.read + one.written for one in moved),
    ]
    system = simulate_system(schedule(step_workload(training), target.spec))
    uses = system.engines
    by_system = [
        system.cycles,
        *((uses[name].busy + uses[name].fill_drain) // system.rate for name in ENGINES.values()),
        uses["DRAM"].busy // system.rate,
        system.step.counts.dram_bytes,
    ]
    name = f"{model}, {batch} digits, {arch}, bus of {bus_bytes(target)} bytes"
    yield [name, "program", *(f"{n:,}" for n in by_program)]
    yield ["", "system", *(f"{n:,}" for n in by_system)]
    yield ["", "ratio", *(f"{a / b:.2f}" for a, b in zip(by_program, by_system, strict=True))]


def table() -> str:
    """All steps, as the page has them."""
    rows = [list(HEAD), ["---"] * len(HEAD), *(row for step in STEPS for row in compared(*step))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition("<!-- table -->\n")
    _, _, after = rest.partition("<!-- end -->")
    PAGE.write_text(f"{before}<!-- table -->\n{table()}\n<!-- end -->{after}")
assert LATENCY == 16, "docs/results/program.md says so"
