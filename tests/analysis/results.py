"""A folder with everything that a report shows: three runs, one with its ops overlapped, a study, and hostile names."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from weft.analysis.report.folder import Contents, Run
from weft.analysis.save import save_run
from weft.analysis.study_files import SavedStudy
from weft.analysis.study_rows import PhaseCost, StudyRow
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.simulator.system import simulate_system
from weft.workloads.gemm import Pass
from weft.workloads.host import Host
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload

from .conftest import layer, relu, step

HOSTILE = "</script><script>alert(1)</script>"
MODEL = f"toy{HOSTILE}"
SPARSE = NMPattern(keep=2, group=8)


def workload() -> Workload:
    """The toy step with a layer whose name is markup, and more ops than a table shows at first."""
    base = step()
    extra = (
        *layer(f'a.{HOSTILE}"onload="x', 16, 32, 32),
        *(relu(f"many.{i}.relu", 64 + i, Pass.FF) for i in range(120)),
    )
    return replace(base, model=MODEL, ops=(*extra, *base.ops))


def write_results(folder: Path) -> Path:
    """``folder`` with dense, bdwp, over/lapped and study.json."""
    spec = load_spec("tiny")
    for name in ("dense", "bdwp"):
        placed = schedule(annotate(workload(), name, SPARSE), spec)
        save_run(simulate(placed), folder / name, f"weft compare {HOSTILE}")
    overlapped = simulate_system(placed)
    save_run(overlapped, folder / "over" / "lapped", "weft run --level system")
    (folder / "study.json").write_text(json.dumps(asdict(study())))
    return folder


def contents() -> Contents:
    """What `read_folder` makes of such a folder, but for the places."""
    spec = load_spec("tiny")
    placed = [schedule(annotate(workload(), name, SPARSE), spec) for name in ("dense", "bdwp")]
    overlapped = simulate_system(placed[1])
    steps = [
        ("dense", simulate(placed[0]), None),
        ("bdwp 2:8", simulate(placed[1]), None),
        ("bdwp 2:8, level system", overlapped.step, overlapped),
    ]
    runs = [
        Run(place=label, label=label, name=label, result=result, system=system, command=HOSTILE, weft_version="0.1.0")
        for label, result, system in steps
    ]
    return Contents(runs=tuple(runs), study=study())


def study() -> SavedStudy:
    cost = PhaseCost(steps=42, scheme="dense", pattern=None, cycles=1000, joules=1e-6)
    dense = StudyRow(
        model=MODEL,
        scheme="dense",
        pattern=None,
        seeds=2,
        trained=2,
        failed={},
        validation=0.95,
        accuracy=0.95,
        accuracy_sd=0.01,
        loss=0.0,
        target=0.945,
        reached=2,
        steps=42.0,
        steps_to_target=21.0,
        cycles=1000.0,
        seconds=1e-5,
        joules=1e-6,
        speedup=1.0,
        cycles_to_target=21000.0,
        seconds_to_target=2.1e-4,
        time_speedup=1.0,
        phases=(cost,),
    )
    sparse = replace(
        dense,
        scheme="bdwp",
        pattern="2:8",
        validation=0.948,
        accuracy=0.946,
        loss=0.004,
        cycles=600.0,
        speedup=1.67,
        time_speedup=1.5,
        cycles_to_target=14000.0,
    )
    failed = StudyRow(model=MODEL, scheme="sdwp", pattern="2:8", seeds=2, trained=0, failed={0: HOSTILE, 1: "diverged"})
    host = Host(processor=HOSTILE, core="z80", vector="4 bits", torch="2.13.0", threads=1)
    return SavedStudy(
        weft_version="0.1.0",
        hosts=(host,),
        command="weft study",
        data="digits",
        images=(30, 20, 10),
        machine="sat-ecp5",
        machine_hash="0" * 12,
        clock_hz=10**8,
        seeds=2,
        below_dense=0.005,
        rows=(dense, sparse, failed),
    )
