"""The tables are sourced, scaled as they say, and read strictly."""

from __future__ import annotations

import csv
import re
from dataclasses import fields
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from weft.analysis.area import known_area
from weft.analysis.energy_table import EnergyTable, FpgaTable, Mark, load_table, parse_table, table_names, with_bank
from weft.analysis.scaling import NODES, area_factor, energy_factor
from weft.dataflow.config_io import load_spec, preset_names
from weft.simulator.dram import run_memory
from weft.simulator.dram_requests import pattern
from weft.simulator.dram_spec import load_memory, memory_names
from weft.workloads.errors import InputError

from .conftest import chip

GOLDEN = Path(__file__).parents[1] / "golden"
TEXT = (resources.files("weft.analysis") / "tables" / "asic-45nm.toml").read_text(encoding="utf-8")


def refused(text: str) -> str:
    with pytest.raises(InputError) as error:
        parse_table(text, "mine.toml")
    return str(error.value)


KINDS = {"ddr4-2400-x4", "ddr4-2400-x8", "hbm2", "lpddr4", "gddr5", "ddr3"}


@pytest.mark.parametrize("name", table_names())
def test_every_table_is_complete(name: str) -> None:
    table = load_table(name)

    assert table.name == name and table.not_counted and table.scaling
    assert set(table.dram) == KINDS


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_table_with_its_dram(name: str) -> None:
    spec = load_spec(name)

    load_table(spec.technology).dram_of(spec.dram.kind)


def test_16_nm_gives_what_its_own_file_gave() -> None:
    """Figures of the file that was once written down for 16 nm: 45 nm times a factor rounded to 0.164."""
    op, sram = chip("asic-16nm").operations, chip("asic-16nm").sram

    assert op.fp16_multiply.scaled == pytest.approx(0.1804, rel=1e-5)
    assert op.fp32_add.scaled == pytest.approx(0.1476, rel=1e-5)
    assert op.fp32_square_root.scaled == pytest.approx(4.2476, rel=1e-5)
    assert (64 * sram.read.scaled, 64 * sram.write.scaled) == pytest.approx((4.84, 3.78))


@pytest.mark.parametrize("node", NODES)
def test_every_figure_of_a_node_is_that_of_45_nm_by_one_factor(node: int) -> None:
    old, new = chip("asic-45nm"), chip(f"asic-{node}nm")
    for f in fields(old.operations):
        was, now = getattr(old.operations, f.name), getattr(new.operations, f.name)
        assert now.value == was.value and now.scaled == pytest.approx(was.value * energy_factor(node))
    for name, figure in old.spare.items():
        assert new.spare[name].scaled == pytest.approx(figure.value * energy_factor(node))
    for name, area in old.area.items():
        assert new.area[name].scaled == pytest.approx(area.value * area_factor(node))


def test_no_figure_grows_with_a_smaller_node() -> None:
    tables = [chip(f"asic-{node}nm") for node in NODES]
    for larger, smaller in pairwise(tables):
        for f in fields(larger.operations):
            assert getattr(smaller.operations, f.name).scaled < getattr(larger.operations, f.name).scaled
        assert smaller.sram.read.scaled < larger.sram.read.scaled
        assert smaller.sram.write.scaled < larger.sram.write.scaled
        assert all(smaller.area[name].scaled < figure.scaled for name, figure in larger.area.items())


def test_a_bf16_multiply_is_on_the_parabola_of_the_sourced_ones() -> None:
    op = chip("asic-45nm").operations
    slope = (op.fp32_multiply.value - op.fp16_multiply.value) / (24**2 - 11**2)

    assert op.bf16_multiply is not None
    assert op.bf16_multiply.value == pytest.approx(op.fp16_multiply.value - slope * (11**2 - 8**2), abs=5e-4)


@pytest.mark.parametrize("name", table_names())
def test_dram_is_never_scaled(name: str) -> None:
    assert load_table(name).dram == chip("asic-45nm").dram


@pytest.mark.parametrize("kind", ["ddr4-2400-x4", "ddr4-2400-x8"])
def test_ddr4_is_what_dramsim3_prints_by_its_cycle_and_what_our_model_finds(kind: str) -> None:
    entry, memory = chip("asic-45nm").dram_of(kind), load_memory(kind)
    names = {
        "read": "seq_read",
        "write": "seq_write",
        "random_read": "rand_read_64B",
        "training_mix": "train_3r1w_block64",
    }
    with (GOLDEN / "dram_ddr4_2400.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    for name, run in names.items():
        printed = next(
            float(row["pj_per_bit"])
            for row in rows
            if row["simulator"] == "DRAMsim3"
            and kind[-2:] in row["config"]
            and row["addr_map"] == "rochrabacobg"
            and row["pattern"] == run
        )
        figure = getattr(entry, name)
        assert figure.value == pytest.approx(0.83 * printed, rel=1e-3) and figure.mark == Mark.INFERRED
        ours = run_memory(memory, pattern(run, memory, 20_000), "bg-interleaved").pj_per_bit
        assert figure.value == pytest.approx(ours, rel=0.04)


@pytest.mark.parametrize("node", NODES[1:])
def test_no_scaled_figure_is_called_measured_or_published(node: int) -> None:
    table = chip(f"asic-{node}nm")
    figures = [getattr(table.operations, f.name) for f in fields(table.operations)]
    figures += [*table.spare.values(), *table.area.values()]

    assert {figure.mark for figure in figures} <= {Mark.INFERRED, Mark.ASSUMED}
    # CACTI ran at 22 nm and above.
    assert (table.sram.read.mark == Mark.MEASURED) == (node >= 22)
    assert table.sram.leakage is not None
    assert table.sram.leakage.mark == (Mark.MEASURED if node >= 22 else Mark.ASSUMED)


def test_the_disagreement_of_models_is_said() -> None:
    text = chip("asic-7nm").scaling

    assert "Stillmaker & Baas 2017" in text and "x 0.057" in text
    assert "DeepScaleTool from 28 nm on: x 0.151, 2.7 times as much" in text


def test_the_sram_figures_are_those_of_cacti() -> None:
    sram = chip("asic-45nm").sram

    assert (64 * sram.read.value, 64 * sram.write.value) == (25.87, 19.65)
    own = with_bank(chip("asic-45nm"), 45, 64).sram
    assert (own.read.value, own.write.value) == (sram.read.value, sram.write.value)
    assert own.leakage is not None and sram.leakage is not None and own.leakage.value == sram.leakage.value


def test_larger_banks_cost_more_a_bit_and_are_fewer() -> None:
    table = chip("asic-16nm")
    small, large = with_bank(table, 16, 16), with_bank(table, 16, 1024)

    assert small.sram.read.scaled < table.sram.read.scaled < large.sram.read.scaled
    assert "1024 KiB banks" in " ".join(large.not_counted)
    assert large.sram.read.mark == Mark.INFERRED and "off by" in large.sram.read.source


def test_an_ecp5_is_an_ultrascale_plus_at_another_node_and_supply() -> None:
    fast, slow = load_table("fpga-ultrascale-plus"), load_table("fpga-ecp5")
    assert isinstance(fast, FpgaTable) and isinstance(slow, FpgaTable)
    # Stillmaker & Baas at 45 nm, 1.1 V over 16 nm, 0.85 V.
    at_45, at_16 = 1.103 * 1.1**2 - 0.362 * 1.1 + 0.2767, 0.2958 * 0.85**2 - 0.1241 * 0.85 + 0.03024

    for name in ("lut", "routing", "register", "clock", "memory_bit"):
        other, own = getattr(fast.elements, name), getattr(slow.elements, name)
        assert own.value == pytest.approx(other.value * at_45 / at_16, rel=1e-3) and own.mark == Mark.INFERRED
    dsp = fast.elements.dsp.value * (18 * 18) / (27 * 18) * at_45 / at_16
    assert slow.elements.dsp.value == pytest.approx(dsp, rel=1e-3)


def test_a_dsp_lies_between_a_chip_s_multiplier_and_one_of_luts() -> None:
    table, base = load_table("fpga-ultrascale-plus"), chip("asic-45nm")
    assert isinstance(table, FpgaTable)
    dsp, bit = table.elements.dsp, base.spare["register_bit"].value
    multiply, add = base.spare["int32_multiply"].value * 27 * 18 / 1024, base.spare["int32_add"].value * 48 / 32
    logic = (multiply + add + 138 * bit) * energy_factor(16)
    in_luts = 121 * (table.elements.lut.value + table.elements.routing.value)

    assert dsp.value == pytest.approx((logic * in_luts) ** 0.5, rel=5e-3)
    assert dsp.value * dsp.own_band.low == pytest.approx(logic, rel=5e-3)
    assert dsp.value * dsp.own_band.high == pytest.approx(in_luts, rel=5e-3)


def test_what_a_pe_clocks_is_made_of_counted_registers_and_luts() -> None:
    op, bit = chip("asic-45nm").operations, chip("asic-45nm").spare["register_bit"].value
    counted = known_area(load_spec("sat-vcu1525"), "xcup")
    assert counted is not None
    items = {(item.block, item.name): item for item in counted.items}
    pe, lane = items["stce", "pe"], items["wuve", "wuve_lane"]
    logic = op.fp16_multiply.value + op.fp32_add.value
    array = [item for (block, _), item in items.items() if block == "stce"]
    around = sum(item.lut_sites * item.count for item in array if item is not pe)

    # Counts follow the RTL; the table follows when they have moved by a few percent.
    assert op.registers.value == pytest.approx(pe.ff * bit, rel=3e-2)
    assert op.clock_tree.value == pytest.approx((logic + op.registers.value) * 0.3 / 0.7, rel=2e-3)
    whole = logic + op.registers.value + op.clock_tree.value
    assert op.control.value == pytest.approx(whole * around / (pe.lut_sites * pe.count), rel=0.15)
    mean = (4 * op.fp32_multiply.value + 3 * op.fp32_add.value) / 7
    registers = lane.ff / 7 * bit
    assert op.update_pipeline.value == pytest.approx(registers + (registers + mean) * 0.3 / 0.7, rel=3e-2)


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

    assert "mine.toml: operations.fp16_multiply.value: " in refused(text)


def test_a_figure_without_a_source_is_refused() -> None:
    text = re.sub(r'source = "Horowitz[^"]*"', 'source = " "', TEXT, count=1)

    assert "must not be empty" in refused(text)


def test_a_table_of_ones_own_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace("asic-45nm", "mine"), encoding="utf-8")
    table = load_table(path)

    assert isinstance(table, EnergyTable) and table.name == "mine"


def test_a_memory_that_no_table_has_is_charged_by_its_own_figures(tmp_path: Path) -> None:
    table, shipped = load_table("asic-16nm"), load_table("asic-16nm").dram["ddr4-2400-x8"]
    mine = tmp_path / "mine.toml"
    text = (Path(__file__).parents[2] / "simulator" / "memories" / "ddr4-2400-x8.toml").read_text(encoding="utf-8")
    mine.write_text(text, encoding="utf-8")

    found = table.dram_of(str(mine))
    lpddr4 = table.dram_of("lpddr4-2400")

    # What the table has of DRAMsim3 for the same memory is the witness.
    assert found.read.value == pytest.approx(shipped.read.value, rel=0.01)
    assert found.write.value == pytest.approx(shipped.write.value, rel=0.01)
    assert found.read.mark == "inferred" and "DDR4_8Gb_x8_2400.ini" in found.read.source
    assert (lpddr4.read.value, lpddr4.read.mark) == (8.0, "published")


def test_every_memory_that_ships_has_an_energy() -> None:
    for name in table_names():
        for memory in memory_names():
            assert load_table(name).dram_of(memory).write.scaled > 0


def test_an_unknown_technology_or_dram_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"technology 'asic-15nm' is neither .* did you mean 'asic-"):
        load_table("asic-15nm")
    with pytest.raises(InputError, match=r"dram\.kind 'hbm3' has no energy in table 'asic-16nm': did you mean 'hbm2'"):
        load_table("asic-16nm").dram_of("hbm3")


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_table(tmp_path / "none.toml")
