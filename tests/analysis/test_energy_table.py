"""The tables are sourced, scaled as they say, and read strictly."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import resources
from pathlib import Path

import pytest

from weft.analysis.energy_table import EnergyTable, Mark, load_table, parse_table, table_names
from weft.dataflow.config_io import load_spec, preset_names
from weft.workloads.errors import InputError

TEXT = (resources.files("weft.analysis") / "tables" / "asic-45nm.toml").read_text(encoding="utf-8")


def refused(text: str) -> str:
    with pytest.raises(InputError) as error:
        parse_table(text, "mine.toml")
    return str(error.value)


def test_the_tables_that_ship_are_complete() -> None:
    assert table_names() == ("asic-16nm", "asic-45nm")
    for name in table_names():
        table = load_table(name)
        assert table.name == name and table.not_counted
        assert set(table.dram) == {"ddr4-2400-x4", "ddr4-2400-x8", "hbm2", "lpddr4"}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_table_with_its_dram(name: str) -> None:
    spec = load_spec(name)

    load_table(spec.technology).dram_of(spec.dram.kind)


def test_arithmetic_at_16_nm_is_that_of_45_nm_by_stillmaker_and_baas() -> None:
    def polynomial(a: float, b: float, c: float, volt: float) -> float:
        return a * volt**2 + b * volt + c

    factor = polynomial(0.2958, -0.1241, 0.03024, 0.85) / polynomial(1.103, -0.362, 0.2767, 0.9)
    old, new = load_table("asic-45nm").operations, load_table("asic-16nm").operations
    for f in fields(old):
        assert getattr(new, f.name).value == pytest.approx(getattr(old, f.name).value * factor, rel=1e-3)


def test_dram_is_never_scaled() -> None:
    assert load_table("asic-45nm").dram == load_table("asic-16nm").dram


def test_no_scaled_figure_is_called_measured_or_published() -> None:
    table = load_table("asic-16nm")
    marks = {getattr(table.operations, f.name).mark for f in fields(table.operations)}
    marks |= {table.sram.read.mark, table.sram.write.mark}

    assert marks <= {Mark.INFERRED, Mark.ASSUMED}


def test_the_sram_figures_are_those_of_cacti() -> None:
    sram = load_table("asic-45nm").sram

    assert (64 * sram.read.value, 64 * sram.write.value) == (25.87, 19.65)


def test_a_missing_constant_is_named() -> None:
    text = re.sub(r"\nfp32_add = .*", "", TEXT)

    assert refused(text) == "mine.toml: key 'operations.fp32_add' is missing"


def test_a_wrong_unit_is_named() -> None:
    text = TEXT.replace('value = 1.1, unit = "pJ"', 'value = 1.1, unit = "nJ"')

    assert "mine.toml: operations.fp16_multiply.unit: " in refused(text) and "'nJ'" in refused(text)


def test_an_unknown_mark_is_named() -> None:
    text = TEXT.replace('mark = "second-hand"', 'mark = "certain"')

    assert "operations.fp16_multiply.mark: " in refused(text) and "'second-hand'" in refused(text)


def test_a_misspelt_key_gets_its_neighbour() -> None:
    text = TEXT.replace("fp32_add =", "fp32_ad =")

    assert "unknown key 'operations.fp32_ad'; did you mean 'fp32_add'" in refused(text)


@pytest.mark.parametrize("value", ["0", "-1.1", "nan", "inf", "true", '"1.1"'])
def test_a_value_that_is_no_energy_is_refused(value: str) -> None:
    text = TEXT.replace("value = 1.1,", f"value = {value},")

    assert "mine.toml" in refused(text)


def test_a_figure_without_a_source_is_refused() -> None:
    text = re.sub(r'source = "Horowitz[^"]*"', 'source = " "', TEXT, count=1)

    assert "must not be empty" in refused(text)


def test_a_table_of_ones_own_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace("asic-45nm", "mine"), encoding="utf-8")
    table = load_table(path)

    assert isinstance(table, EnergyTable) and table.name == "mine"


def test_an_unknown_technology_or_dram_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"technology 'asic-15nm' is neither .* did you mean 'asic-"):
        load_table("asic-15nm")
    with pytest.raises(InputError, match=r"dram\.kind 'hbm3' has no energy in table 'asic-16nm': did you mean 'hbm2'"):
        load_table("asic-16nm").dram_of("hbm3")


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_table(tmp_path / "none.toml")
