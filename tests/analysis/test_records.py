"""Throughput by hand, records, frames and the JSON of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from fractions import Fraction

import pytest

import weft
from weft.analysis.energy import energy
from weft.analysis.frames import causes_frame, energy_frame, layers_frame, ops_frame, passes_frame
from weft.analysis.records import dense_layers, layer_of, op_records, to_dict
from weft.analysis.roofline import roofline
from weft.analysis.throughput import throughput
from weft.dataflow.account import Cycles, declared_causes
from weft.dataflow.config_io import spec_hash
from weft.simulator.result import SimResult
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.step import MatrixOp, UpdateOp

KEYS = {
    "level",
    "weft_version",
    "command",
    "model",
    "batch",
    "scheme",
    "pattern",
    "objective",
    "spec",
    "spec_hash",
    "cycles",
    "seconds",
    "samples_per_s",
    "macs",
    "dense_macs",
    "utilization",
    "effective_gops",
    "dense_equivalent_gops",
    "energy_j",
    "energy_low_j",
    "energy_high_j",
    "dram_read_bytes",
    "dram_write_bytes",
    "passes",
    "dram_tensors",
    "stalls",
    "dense_layers",
    "ops",
}


def test_throughput_by_hand(bdwp: SimResult) -> None:
    speed, cycles = throughput(bdwp), bdwp.cycles
    seconds = cycles.total / 100_000_000

    assert speed.seconds == pytest.approx(seconds)
    assert speed.samples_per_s == pytest.approx(10 / seconds)
    assert speed.peak_gops == pytest.approx(2 * 16 * 0.1)
    assert speed.effective_gops == pytest.approx(2e-9 * bdwp.counts.macs / seconds)
    assert speed.dense_equivalent_gops == pytest.approx(2e-9 * bdwp.dense_macs / seconds)
    assert speed.effective_gops == pytest.approx(speed.utilization * speed.peak_gops)
    assert speed.array_busy == cycles.compute / cycles.total >= speed.utilization


def test_a_tied_parameter_belongs_to_the_first_module(dense: SimResult) -> None:
    tied = replace(dense.ops[-1], op=UpdateOp(name="model.embed.weight=head.weight", elements=1))

    assert layer_of(tied) == "model.embed"


def test_a_step_without_work_has_no_throughput(dense: SimResult) -> None:
    with pytest.raises(InputError, match="no work"):
        throughput(replace(dense, ops=()))


def test_an_op_record_tells_product_placement_and_cost(bdwp: SimResult) -> None:
    records = op_records(bdwp)
    matrix = [r for r in records if r["kind"] == "matrix"]

    assert [r["index"] for r in records] == list(range(len(bdwp.ops)))
    assert all(sum(r[c] for c in declared_causes(Cycles)) == r["cycles"] for r in records)
    assert all(0 < r["bound_share"] <= 1 and 0 < r["utilization"] <= 1 for r in matrix)
    assert matrix[0]["kept_dense"] == "first convolution" and matrix[0]["pattern"] is None
    assert (matrix[3]["pattern"], matrix[3]["operand"], matrix[3]["kept_dense"]) == ("2:8", "b", None)
    assert all(r["dataflow"] is None and r["m"] is None for r in records if r["kind"] != "matrix")


def test_the_json_has_its_keys_and_adds_up(bdwp: SimResult) -> None:
    found = json.loads(json.dumps(to_dict(bdwp, "weft run toy"), allow_nan=False))

    assert set(found) == KEYS
    assert found["cycles"] == bdwp.cycles.total == sum(p["cycles"] for p in found["passes"].values())
    assert sum(found["stalls"].values()) + bdwp.cycles.compute == found["cycles"]
    assert found["macs"] == sum(p["macs"] for p in found["passes"].values())
    assert found["energy_j"] == pytest.approx(sum(p["energy_j"] for p in found["passes"].values()))
    assert found["energy_j"] == pytest.approx(sum(op["energy_j"] for op in found["ops"]))
    assert list(found["passes"]) == ["FF", "BP", "WU", "OPT"]
    assert (found["command"], found["spec_hash"]) == ("weft run toy", spec_hash(bdwp.spec))


def test_dense_layers_name_the_reason_once(bdwp: SimResult, dense: SimResult) -> None:
    found = [(layer["name"], layer["reason"]) for layer in dense_layers(bdwp)]

    assert found == [
        ("net.0.conv", "first convolution"),
        ("net.2.conv", "contraction runs of 4 are shorter than a group of 8"),
    ]
    assert dense_layers(dense) == []


def test_the_ops_frame_has_a_row_an_op(bdwp: SimResult) -> None:
    frame = ops_frame(bdwp)

    assert len(frame) == len(bdwp.ops)
    assert set(frame.columns) | {"index"} == set(op_records(bdwp)[0])
    assert frame["cycles"].sum() == bdwp.cycles.total
    assert frame["energy_j"].sum() == pytest.approx(energy(bdwp).joules)
    assert str(frame["m"].dtype) == "Int64" and frame["m"].isna().sum() == len(bdwp.ops) - 12


def test_frames_by_pass_cause_and_layer_add_up(bdwp: SimResult) -> None:
    by_pass, by_cause, by_layer = passes_frame(bdwp), causes_frame(bdwp), layers_frame(bdwp)

    assert list(by_pass.index) == ["FF", "BP", "WU", "OPT"] and by_pass["share"].sum() == pytest.approx(1)
    assert by_cause["cycles"].to_dict() == asdict(bdwp.cycles)
    assert by_layer["cycles"].sum() == by_pass["cycles"].sum() == by_cause["cycles"].sum() == bdwp.cycles.total
    assert (by_layer[["FF", "BP", "WU", "OPT"]].sum(axis=1) == by_layer["cycles"]).all()
    assert list(by_layer.index[:2]) == ["net.0.conv", "net.0.conv.relu"]
    assert by_layer.loc["head", "OPT"] > 0


def test_the_energy_frame_is_the_ledger(bdwp: SimResult) -> None:
    frame = energy_frame(bdwp)

    assert (frame["count"] * frame["pj_each"] * 1e-12 - frame["joules"]).abs().max() < 1e-18
    assert {"source", "mark", "component", "unit"} <= set(frame.columns)


def test_no_op_is_above_its_roof(bdwp: SimResult) -> None:
    roofs = roofline(bdwp)

    assert len(roofs.points) == sum(isinstance(r.op, MatrixOp) for r in bdwp.ops)
    assert all(p.gmacs <= p.roof_gmacs * (1 + 1e-12) for p in roofs.points)
    assert roofs.sparse_gmacs > roofs.peak_gmacs == pytest.approx(1.6)
    assert roofs.roof(1e9) == roofs.peak_gmacs
    assert {p.pass_ for p in roofs.points} == {Pass.FF, Pass.BP, Pass.WU}


def test_numbers_need_neither_matplotlib_nor_pandas() -> None:
    code = (
        "import sys, weft.analysis.energy, weft.analysis.throughput, weft.analysis.records, weft.analysis.compare;"
        "sys.exit(bool({'matplotlib', 'pandas', 'torch'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_op_is_held_to_the_engine_that_it_is_on():
    """CNV under `xnor` on both engines: the roof, the peak and the ideal time of an op are its own engine's."""
    step = weft.simulate(weft.schedule(weft.sparsify(weft.trace("cnv", batch=2), "xnor"), "bnn-ecp5"))
    roofs, own = roofline(step), {True: 30 * 64, False: 16}
    products = [r for r in step.ops if r.mapping is not None]

    assert roofs.peak_gmacs == pytest.approx(30 * 64 * 0.06)
    assert roofs.others == (("STCE", pytest.approx(16 * 0.06)),)
    assert {step.peak(r) for r in products} == set(own.values())
    ideal = sum(Fraction(r.counts.macs, own[r.mapping.array.kind == "xnor"]) for r in products)
    assert step.ideal_cycles(step.ops) == ideal
    assert step.utilization == throughput(step).utilization == float(ideal / step.cycles.total)
    assert 0.8 < step.utilization < 1
