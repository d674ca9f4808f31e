"""Energy by pass, tensor and part: exact, and as the ledger and the tensors have it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from weft.analysis.dram_tensors import TensorKind, dram_tensors
from weft.analysis.energy import energy
from weft.analysis.figures import energy_figure
from weft.analysis.tensor_energy import energy_by_tensor, part_words, sums_of_parts
from weft.analysis.theme import THEMES, part_key
from weft.dataflow.actions import Actions, Component
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.result import SimResult
from weft.simulator.system import simulate_system
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass

from .conftest import run, step


@pytest.mark.parametrize("scheme", ["dense", "srste", "bdwp"])
@pytest.mark.parametrize("machine", ["tiny", "sat-vcu1525"])
def test_every_zeptojoule_is_in_one_place(scheme: str, machine: str) -> None:
    alone = run(scheme, workload=step("adam"), machine=machine)
    for result in (alone, simulate_system(schedule(alone.workload, load_spec(machine)))):
        report = energy(result)
        found = energy_by_tensor(result, report)

        for p, parts in found.items():
            assert sum(parts.values()) / 10**21 == report.by_pass[p]
        assert sum(sum(parts.values()) for parts in found.values()) == report.zeptojoules
        sums = sums_of_parts(found.values())
        for component in Component:
            mine = list(TensorKind) if component is Component.DRAM else [component]
            rows = sum(row.zeptojoules for row in report.rows if row.component == component)
            assert sum(sums.get(part, 0) for part in mine) == rows


def test_a_tensor_pays_for_its_own_bytes(bdwp: SimResult) -> None:
    report = energy(bdwp)
    found = energy_by_tensor(bdwp, report)
    price = {row.action: Fraction(row.zeptojoules, row.count) for row in report.rows}
    rows = dram_tensors(bdwp)

    assert len(rows) > 8
    for row in rows:
        bits = 8 * (row.read_bytes * price[Actions.DRAM_READ] + row.write_bytes * price[Actions.DRAM_WRITE])
        assert found[row.pass_][row.kind] == bits
    masters = found[Pass.OPT][TensorKind.MASTER]
    assert masters == max(found[Pass.OPT].values())


def test_every_part_has_a_colour_of_its_own_and_a_name() -> None:
    parts = [*TensorKind, *Component]
    for theme in THEMES.values():
        assert len({theme.part(part) for part in parts}) == len(parts)
        assert theme.part("somebody's engine") not in theme.parts.values()
    assert len({part_words(part) for part in parts}) == len({part_key(part) for part in parts}) == len(parts)
    assert part_key("somebody's engine") == "other"


def test_the_figure_has_a_bar_a_pass(bdwp: SimResult) -> None:
    found = energy_by_tensor(bdwp, energy(bdwp))
    (ax,) = energy_figure(bdwp).axes
    every = [n for parts in found.values() for n in parts.values()]
    widths = [patch.get_width() for patch in ax.patches]

    assert widths == pytest.approx([n * widths[0] / every[0] for n in every])
    ends = [end for line in ax.lines for end in line.get_xdata()]
    bands = [
        end for p in found if found[p] for end in (energy(bdwp).pass_bands[p].low, energy(bdwp).pass_bands[p].high)
    ]
    assert ends == pytest.approx([end * 1e21 * widths[0] / every[0] for end in bands])
    with pytest.raises(InputError, match="no energy"):
        energy_figure(replace(bdwp, ops=()))
