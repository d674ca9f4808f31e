"""Sweeps: every point what its own schedule has, the front that of all points, the same bytes however it came to be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from weft.analysis.area_by_shape import area_of_shape, areas
from weft.analysis.clocks import closes
from weft.analysis.energy import energy
from weft.analysis.explore import parts, plan
from weft.analysis.explore import sweep as module
from weft.analysis.explore.levels import LEFT_OUT, REFUSED, RUNS
from weft.analysis.explore.saved import read_explored
from weft.analysis.explore.space import Space
from weft.analysis.explore.sweep import sweep
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.simulator.system import simulate_system
from weft.workloads.errors import InputError
from weft.workloads.io import load_workload, save_workload
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern

from ...dataflow.problems import step_of_layers
from .spaces import held, space

SAT = load_spec("sat-ecp5")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a dozen points."""
    monkeypatch.setattr(plan, "_CHUNK", 12)


def witness(row: dict[str, object], model: str):
    """A point by nothing but `schedule` and `simulate`."""
    step, tiny = load_workload(Path(model)), load_spec("tiny")
    step = (
        annotate(step, "bdwp", NMPattern(keep=1, group=2)) if row["scheme"] == "bdwp" else annotate(step, "dense", None)
    )
    machine = replace(
        tiny,
        array=replace(tiny.array, rows=row["array.rows"], cols=row["array.cols"]),
        dram=replace(tiny.dram, bytes_per_second=row["dram.bytes_per_second"]),
        buffers=replace(tiny.buffers, w2e_bytes=row["buffers.w2e_bytes"]),
        pe=replace(tiny.pe, accumulators=row["pe.accumulators"]),
    )
    return schedule(step, machine, "cycles")


@pytest.mark.parametrize("asked", [["cycles", "pes"], ["edp", "pes"]])
def test_every_point_is_what_its_own_schedule_has(tmp_path, asked):
    given = space(tmp_path, objectives=asked)
    sweep(given, tmp_path / "out")
    frame = read_explored(tmp_path / "out").frame()

    assert frame["point"].tolist() == list(range(144))
    for row in frame.to_dict("records"):
        try:
            result = simulate(witness(row, given.model))
        except InputError:
            assert row["status"] != RUNS
            assert row["reason"]
            continue
        assert (row["status"], row["reason"]) == (RUNS, "")
        assert (row["cycles"], row["dram_bytes"]) == (result.cycles.total, result.counts.dram_bytes)
        assert row["bound_cycles"] <= row["cycles"]
        assert row["seconds"] == result.cycles.total / result.spec.clock_hz
        if "edp" in asked:
            assert row["joules"] == energy(result).joules
            assert row["edp"] == row["joules"] * row["seconds"]


def test_every_point_with_two_engines_is_what_its_own_schedule_has(tmp_path):
    """Binary and FP16 steps, machines with and without an XNOR engine, axes of either and of what both share."""
    step = replace(step_of_layers((8, 16, 24), (8, 24, 40), (8, 40, 16)), batch=8)
    save_workload(step, tmp_path / "three-layers.json")
    axes = {
        "arch": ["tiny", "bnn-ecp5"],
        "scheme": ["bireal", "dense"],
        "array.rows": [2, 4],
        "buffers.w2e_bytes": [512, 65536],
        "batch": [8],
    }
    given = space(tmp_path, model=str(tmp_path / "three-layers.json"), axes=axes, objectives=["cycles", "joules"])
    sweep(given, tmp_path / "out")
    more = {"arch": "bnn-ecp5", "scheme": "bireal", "batch": 8}
    sweep(
        space(
            tmp_path,
            model=given.model,
            objectives=["edp", "pes"],
            **more,
            axes={"xnor.rows": [1, 6], "xnor.word_bits": [32, 64]},
        ),
        tmp_path / "xnor",
    )

    rows = read_explored(tmp_path / "out").frame().to_dict("records")
    rows += [{**more, **row} for row in read_explored(tmp_path / "xnor").frame().to_dict("records")]
    engines = set()
    for row in rows:
        machine = load_spec(row["arch"])
        for table in ("array", "buffers", "xnor"):
            own = {name.partition(".")[2]: row[name] for name in row if name.startswith(f"{table}.")}
            machine = replace(machine, **({table: replace(getattr(machine, table), **own)} if own else {}))
        try:
            result = simulate(schedule(annotate(step, row["scheme"], None), machine, "cycles"))
        except InputError:
            assert row["status"] != RUNS
            continue
        assert (row["status"], row["reason"]) == (RUNS, "")
        assert (row["cycles"], row["dram_bytes"]) == (result.cycles.total, result.counts.dram_bytes)
        assert row["joules"] == energy(result).joules
        assert 0 < row["bound_cycles"] <= row["cycles"]
        engines.update(op.mapping.array.kind for op in result.ops if op.mapping is not None)
    assert engines == {"stce", "xnor"}


def best_of(frame, names: list[str]) -> list[int]:
    """The front by comparing all with all; of equals the first."""
    rows = frame[frame["status"] == RUNS]
    values, points = rows[names].to_numpy(float), rows["point"].tolist()
    return [
        point
        for i, point in enumerate(points)
        if not any(
            (values[j] <= values[i]).all() and ((values[j] < values[i]).any() or j < i) for j in range(len(points))
        )
    ]


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize(
    "objectives", [("cycles", "pes"), ("seconds", "pes", "buffer_bytes"), ("seconds", "dram.bytes_per_second")]
)
def test_the_front_is_that_of_all_points_whether_or_not_some_are_left_out(tmp_path, objectives, prune):
    sweep(space(tmp_path, objectives=objectives), tmp_path / "all")
    whole = read_explored(tmp_path / "all").frame()

    sweep(space(tmp_path, objectives=objectives, prune=prune), tmp_path / "out")
    found = read_explored(tmp_path / "out")

    assert found.front()["point"].tolist() == best_of(whole, list(objectives))
    frame = found.frame()
    left = frame["status"] == LEFT_OUT
    assert left.any() == prune
    # Whatever was left out is dominated: scheduled after all, another point is better.
    names = list(objectives)
    best = found.front()[names].to_numpy(float)
    for _, row in whole[left & (whole["status"] == RUNS)].iterrows():
        mine = row[names].to_numpy(float)
        assert ((best <= mine).all(1)).any()
    scheduled = frame[~left]
    same = whole.loc[scheduled.index]
    for name in ("status", "cycles", "dram_bytes"):
        assert scheduled[name].tolist() == same[name].tolist()


def test_the_front_is_simulated_again_with_ops_overlapped(tmp_path):
    given = space(tmp_path)
    sweep(given, tmp_path / "out")

    for row in read_explored(tmp_path / "out").front().to_dict("records"):
        system = simulate_system(witness(row, given.model))
        assert row["system_cycles"] == system.cycles
        assert row["system_gap"] == system.cycles / row["cycles"] - 1
        assert row["system_reason"] == ""


class Dies:
    """An executor that is interrupted after some tasks, and does them in an order of its own."""

    def __init__(self, after: int, seed: int) -> None:
        self.left, self.draw = after, Random(seed)

    def each(self, do, tasks) -> Iterator[tuple[int, bytes]]:
        tasks = list(tasks)
        self.draw.shuffle(tasks)
        for task in tasks:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield task, do(task)


@pytest.mark.parametrize("prune", [False, True])
def test_an_interrupted_sweep_goes_on_to_the_same_bytes(tmp_path, prune):
    given = space(tmp_path, prune=prune)
    sweep(given, tmp_path / "whole")
    expected = held(tmp_path / "whole")

    for after in range(1, 14):
        folder, seed = tmp_path / str(after), 0
        while True:
            try:
                sweep(given, folder, Dies(after, seed))
                break
            except KeyboardInterrupt:
                seed += 1
        assert held(folder) == expected


def test_a_finished_sweep_is_not_made_again(tmp_path):
    given = space(tmp_path)
    sweep(given, tmp_path / "out")
    before = held(tmp_path / "out")

    sweep(given, tmp_path / "out", Dies(0, 0))

    assert held(tmp_path / "out") == before


def test_a_point_that_fails_is_a_row_with_its_reason(tmp_path):
    limits = {"most": {"pes": 16, "cycles": 3000}}
    sweep(space(tmp_path, constraints=limits), tmp_path / "out")
    found = read_explored(tmp_path / "out")
    frame = found.frame()

    over = frame["array.rows"] * frame["array.cols"] > 16
    assert (frame["status"][over] == REFUSED).all()
    assert frame["reason"][over].str.startswith("pes: 32 PEs, over 16").all()
    slow = frame["reason"].str.startswith("cycles: ")
    assert slow.any()
    assert (frame["cycles"][slow] > 3000).all()
    assert (frame["cycles"][frame["status"] == RUNS] <= 3000).all()
    assert found.summary["refused_by"] == {"cycles": int(slow.sum()), "pes": int(over.sum())}
    assert sum(found.summary["statuses"].values()) == 144


def test_a_device_holds_what_it_holds(tmp_path):
    axes = {"array.rows": [2, 4, 200], "array.cols": [2], "pe.accumulators": [8], "batch": [8]}
    limits = {"device": "ecp5", "most": {"lut": 20_000}}
    given = space(tmp_path, arch="sat-ecp5", axes=axes, constraints=limits, objectives=["seconds", "lut"])
    sweep(given, tmp_path / "out")
    frame = read_explored(tmp_path / "out").frame()

    machines = [replace(SAT, array=replace(SAT.array, rows=rows, cols=2)) for rows in (2, 4, 200)]
    machines = [replace(m, pe=replace(m.pe, accumulators=8)) for m in machines]
    luts = [area_of_shape(machine, "ecp5").total["lut_sites"] for machine in machines]
    assert frame["lut"].tolist() == luts
    inferred = areas(
        SAT, {"array.rows": [2, 4, 200], "array.cols": [2] * 3, "pe.accumulators": [8] * 3}, "ecp5"
    ).inferred
    assert frame["area_inferred"].tolist() == inferred.tolist()
    assert frame["status"].tolist() == [RUNS if lut <= 20_000 else REFUSED for lut in luts]
    assert f"lut: {luts[2]:,}, over 83,640 of LFE5U-85F and over 20,000" in frame["reason"][2]
    assert frame["reason"][2].count("lut: ") == 1


def test_clocks_are_those_that_were_routed(tmp_path):
    """Of `tiny` on an ECP5, nobody has routed anything; on UltraScale+ nothing was placed at all."""
    for device, said in (("ecp5", "clock: "), ("xcup", "clock: nothing was placed on")):
        axes = {"array.rows": [4], "batch": [8]}
        given = space(tmp_path, arch="sat-ecp5", axes=axes, constraints={"device": device, "clock": True})
        sweep(given, tmp_path / device)
        row = read_explored(tmp_path / device).frame().iloc[0]

        machine = replace(SAT, array=replace(SAT.array, rows=4))
        assert (row["status"] == RUNS) == bool(closes(machine, device).verdict)
        assert row["status"] == RUNS or said in row["reason"]


def test_machines_that_are_none_are_rows_too(tmp_path):
    sweep(space(tmp_path, axes={"arch": ["tiny", "bnn-ecp5"], "xnor.rows": [8], "batch": [8]}), tmp_path / "out")
    frame = read_explored(tmp_path / "out").frame()

    assert frame["reason"].tolist()[0] == "machine: machine 'tiny' has no [xnor]"
    assert frame["status"].tolist() == [REFUSED, RUNS]


def test_what_dram_cannot_hold_is_refused_where_that_is_asked(tmp_path):
    axes = {"dram.capacity_bytes": [100, 10**9], "batch": [8]}
    sweep(space(tmp_path, axes=axes, constraints={"dram": True}), tmp_path / "out")
    frame = read_explored(tmp_path / "out").frame()

    assert frame["status"].tolist() == [REFUSED, RUNS]
    assert frame["reason"][0].startswith("dram: the step needs ")


def test_another_space_or_version_leaves_the_folder_as_it_is(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    sweep(space(tmp_path), folder)
    before = held(folder)

    def refused(given: Space) -> str:
        with pytest.raises(InputError) as error:
            sweep(given, folder)
        assert held(folder) == before
        return str(error.value)

    assert "holds another space, of objectives = " in refused(space(tmp_path, objectives=["cycles"]))
    with monkeypatch.context() as patch:
        patch.setattr(module, "SCHEMA", 2)
        assert "in form 1, and this is form 2" in refused(space(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(module, "sources", lambda: "other")
        assert "another state of weft's sources" in refused(space(tmp_path))
    other = space(tmp_path)
    Path(other.model).write_bytes(Path(other.model).read_bytes() + b"\n")
    assert "holds points of another model" in refused(other)
    with pytest.raises(InputError, match="is not empty and holds no exploration"):
        sweep(space(tmp_path), tmp_path)


def test_a_full_disk_keeps_what_is_there(tmp_path, monkeypatch):
    given, folder = space(tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sweep(given, folder, Dies(3, 1))
    before, write = held(folder), parts.write_atomically

    def full(path: Path, data: bytes) -> None:
        raise InputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(parts, "write_atomically", full)
    with pytest.raises(InputError, match="No space left on device"):
        sweep(given, folder)
    assert held(folder) == before

    monkeypatch.setattr(parts, "write_atomically", write)
    sweep(given, folder)
    assert json.loads((folder / "explore.json").read_text())["points"] == 144


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"objectives": ["cycle"]}, "objectives has 'cycle', which is no measure; did you mean 'cycles'"),
        ({"objectives": ["cycles", "cycles"]}, "names 'cycles' twice"),
        ({"objectives": ["lut"]}, "give constraints.device, one of ecp5, xcup"),
        ({"objectives": ["accuracy"]}, "give study = the folder of a `weft study`"),
        ({"constraints": {"most": {"seconds": 3}}, "prune": True}, "'seconds', which a constraint limits"),
        ({"objectives": ["edp"], "prune": True}, "it takes one objective of cycles, seconds"),
        ({"constraints": {"device": "xcvu9p"}}, "there is no area for 'xcvu9p'"),
        ({"constraints": {"most": {"watt": 3}}}, "constraints.most has 'watt'"),
        ({"axes": {"xnor.rows": [8]}}, "none of the machines tiny has a table [xnor]"),
        ({"arch": "tinny"}, "did you mean 'tiny'"),
        ({"model": "resnet51"}, "did you mean 'resnet50'"),
        ({"model": ""}, "the space names no model"),
        ({"study": "nowhere"}, "nowhere"),
    ],
)
def test_what_is_refused_before_the_work(tmp_path, fields, said):
    with pytest.raises(InputError) as refused:
        sweep(space(tmp_path, **fields), tmp_path / "out")

    assert said in str(refused.value)
    assert not list((tmp_path / "out").glob("points/*"))


def test_a_space_of_which_nothing_runs_ends_with_an_empty_front(tmp_path):
    sweep(space(tmp_path, constraints={"most": {"pes": 1}}), tmp_path / "out")
    found = read_explored(tmp_path / "out")

    assert len(found.front()) == 0
    assert found.summary["refused_by"] == {"pes": 144}
    assert found.summary["model"] == "two-layers.json"
    assert np.isnan(found.frame()["seconds"]).all()
