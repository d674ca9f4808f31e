"""Commands killed anywhere: nothing of the user's is lost, nothing is there twice, no results of two runs are mixed."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from weft.analysis.publish import MANIFEST, read_published
from weft.analysis.saved import saved_run
from weft.analysis.study_files import read_study
from weft.workloads.io import save_workload

from .killing import Ended, Job, Warm, warm_process
from .test_cli import tiny_step

pytestmark = pytest.mark.slow

KILLS = 100
UNDRAWN = """
from matplotlib.figure import Figure
from weft.analysis import figures, save
save._FIGURES = {"layers": lambda result, theme: Figure((1, 1))}  # drawing takes longer than all else
figures.comparison_figure = figures.study_figure = figures.cost_figure = lambda of, theme: Figure((1, 1))
"""

SPACE = """
model = "{model}"
arch = "tiny"
nm = "1:2"
objectives = ["cycles", "pes"]
{how}
[axes]
"array.rows" = [2, 4, 8]
"array.cols" = [2, 4]
"buffers.w2e_bytes" = [64, 128, 2048]
scheme = ["dense", "bdwp"]
"""
HOW = {
    "grid": "",
    "pruned": "prune = true",
    "search": 'sampler = "search"\npoints = 36\nsearch = {by = "nsga2", batch = 6}',
}
SMALL_PARTS = "from weft.analysis.explore import plan; plan._CHUNK = 6"
OPTUNAS = {"optuna.journal"}
"""Has the time of day."""


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with warm_process() as process:
        yield process


@pytest.fixture
def steps(tmp_path: Path) -> tuple[Path, Path]:
    """Two workloads whose results differ in every file."""
    made = []
    for model, batch in (("first", 8), ("second", 8)):
        path = tmp_path / f"{model}.json"
        save_workload(replace(tiny_step(), model=model, batch=batch), path)
        made.append(path)
    return made[0], made[1]


def instants(whole: Ended, seed: int) -> Iterator[dict[str, float | int]]:
    """When to kill: mostly before one of the operations that the ``whole`` command does, else at any time."""
    draw = random.Random(seed)
    # Some come when all is done; how many depends on what else the machine does.
    for number in range(3 * KILLS):
        late = number % 5 == 4
        yield {"after": draw.uniform(0, whole.seconds)} if late else {"at": draw.randint(1, whole.operations)}


def finished(warm: Warm, job: Job) -> Ended:
    (ended,) = warm.run(job)
    assert ended.code == 0, ended.said
    assert ended.operations > 3
    return ended


def warmed(warm: Warm, job: Job) -> None:
    (ended,) = warm.run(replace(job, warms=True))
    assert ended.code == 0, ended.said


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def killed_while_replacing(
    warm: Warm, folder: Path, make: Callable[[str], Job], state: Callable[[], str], seed: int, least: int = 5
) -> None:
    """``make`` gives the command of a state; kill it again and again while it replaces the other one's files.

    ``state`` reads which of both the folder holds and fails if it is neither. At ``least`` so many kills must come late
    enough for the new results to stand, and early enough for the old ones: else they were in the middle of nothing.
    """
    warmed(warm, make("first"))
    finished(warm, make("first"))
    (folder / "mine.txt").write_text("mine")
    whole = finished(warm, make("second"))
    expected = names(folder)
    assert state() == "second"
    killed, changed = 0, 0
    for instant in instants(whole, seed):
        if killed == KILLS:
            break
        before = state()
        wanted = "first" if before == "second" else "second"
        (ended,) = warm.run(replace(make(wanted), **instant))  # type: ignore[arg-type]
        killed += ended.code is None
        after = state()
        changed += ended.code is None and after == wanted
        assert after in (before, wanted) and (ended.code is None or after == wanted), ended
        assert (folder / "mine.txt").read_text() == "mine"
        assert names(folder) >= expected
    finished(warm, make("first"))
    assert state() == "first" and names(folder) == expected
    assert killed == KILLS and least <= changed <= KILLS - 5, (killed, changed)
    # Two at once: one of them is killed, and the other's results stand.
    for instant in list(instants(whole, seed))[: KILLS // 5]:
        jobs = make("first"), replace(make("second"), **instant)  # type: ignore[arg-type]
        first, second = warm.run(*jobs)
        assert first.code == 0, first.said
        assert second.code in (0, None), second.said
        assert state() in ("first", "second")
    finished(warm, make("second"))
    assert state() == "second" and names(folder) == expected


def test_run(warm: Warm, steps: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def make(which: str) -> Job:
        step = steps[which == "second"]
        return Job(args=("run", str(step), "--arch", "tiny", "-o", str(folder)), watched=str(folder), setup=UNDRAWN)

    killed_while_replacing(warm, folder, make, lambda: saved_run(folder).workload.model, seed=1)


@pytest.mark.parametrize("how", ["grid", "pruned", "search"])
def test_explore(warm: Warm, tmp_path: Path, how: str) -> None:
    """Killed until it is through, again and again: the same bytes as in one go."""
    save_workload(tiny_step(), tmp_path / "step.json")
    file, expected = tmp_path / "space.toml", tmp_path / "whole"
    file.write_text(SPACE.format(model=tmp_path / "step.json", how=HOW[how]))

    def job(folder: Path) -> Job:
        return Job(args=("explore", str(file), "-o", str(folder)), watched=str(folder), setup=SMALL_PARTS)

    warmed(warm, job(tmp_path / "first"))
    whole, killed, number = finished(warm, job(expected)), 0, 0
    moments = instants(whole, seed=7)
    while killed < KILLS // 2:
        folder, number = tmp_path / str(number), number + 1
        while True:
            (ended,) = warm.run(replace(job(folder), **next(moments)))  # type: ignore[arg-type]
            if ended.code is not None:
                assert ended.code == 0, ended.said
                break
            killed += 1
        assert {n: (folder / n).read_bytes() for n in names(folder) - OPTUNAS} == {
            n: (expected / n).read_bytes() for n in names(expected) - OPTUNAS
        }
        shutil.rmtree(folder)


def test_compare(warm: Warm, steps: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def make(which: str) -> Job:
        step = steps[which == "second"]
        asked = ("compare", str(step), "--arch", "tiny", "--schemes", "dense,bdwp", "-o", str(folder))
        return Job(args=asked, watched=str(folder), setup=UNDRAWN)

    def state() -> str:
        document = json.loads(read_published(folder, "comparison", ["comparison.json"])["comparison.json"])
        models = {saved_run(folder / scheme).workload.model for scheme in ("dense", "bdwp")}
        assert models == {document["model"]}
        return str(document["model"])

    killed_while_replacing(warm, folder, make, state, seed=2)


def test_report(warm: Warm, steps: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    finished(warm, Job(args=("run", str(steps[0]), "--arch", "tiny", "-o", str(folder)), watched=str(folder)))
    results = {path: path.read_bytes() for path in folder.iterdir()}

    def make(which: str) -> Job:
        return Job(args=("report", str(folder), "--title", which), watched=str(folder))

    def state() -> str:
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert page.rstrip().endswith("</html>")
        assert {path: path.read_bytes() for path in results} == results
        return page.partition("<title>")[2].partition("</title>")[0]

    killed_while_replacing(warm, folder, make, state, seed=3, least=0)  # a rename is the last that it does


def test_verilog(warm: Warm, tmp_path: Path) -> None:
    """Yosys is left out: the files of two seeds differ in their vectors alone."""
    folder = tmp_path / "out"
    kept = tmp_path / "kept.json"
    no_yosys = (
        "import json, pathlib; from weft.hdl.flow import emit\n"
        f"kept, real = pathlib.Path({str(kept)!r}), emit._through_yosys\n"
        "known = json.loads(kept.read_text()) if kept.exists() else {}\n"
        "def through(text, top):\n"
        "    if text not in known:\n"
        "        known[text] = real(text, top)\n"
        "        kept.write_text(json.dumps(known))\n"
        "    return known[text]\n"
        "emit._through_yosys = through\n"
    )

    def make(which: str) -> Job:
        seed = "1" if which == "first" else "2"
        asked = ("verilog", "--arch", "tiny", "--block", "sore", "--seed", seed, "-o", str(folder))
        return Job(args=asked, watched=str(folder), setup=no_yosys)

    texts: dict[str, dict[str, bytes]] = {}
    for which in ("first", "second"):
        finished(warm, make(which))
        listed = json.loads((folder / MANIFEST).read_text())["files"]["verilog"]
        texts[which] = {name: (folder / name).read_bytes() for name in listed}
    assert texts["first"].keys() == texts["second"].keys() and texts["first"] != texts["second"]
    shutil.rmtree(folder)

    def state() -> str:
        found = read_published(folder, "verilog", texts["first"])
        return next(which for which, files in texts.items() if files == found)

    killed_while_replacing(warm, folder, make, state, seed=4)


def test_train(warm: Warm, tmp_path: Path) -> None:
    """Killed between checkpoints and in them; every time it goes on, to the bits of a training left alone."""
    whole, broken, draw = tmp_path / "whole", tmp_path / "broken", random.Random(5)
    often = "from weft.workloads.training import loop; loop.SAVE_EVERY = 1\n"
    asked = ("train", "mlp", "--epochs", "2", "--data", "digits")
    job = Job(args=(*asked, "-o", str(whole)), watched=str(whole), setup=often)
    warmed(warm, job)
    shutil.rmtree(whole)
    alone = finished(warm, job)
    kills = 0
    while kills < KILLS:
        shutil.rmtree(broken, ignore_errors=True)
        code: int | None = None
        while code != 0:
            begun = (broken / "checkpoint.pt").exists()
            args = ("train", "--resume", str(broken)) if begun else (*asked, "-o", str(broken))
            when = {"at": draw.randint(1, 40)} if draw.random() < 0.8 else {"after": draw.uniform(0, alone.seconds)}
            (ended,) = warm.run(Job(args=args, watched=str(broken), setup=often, **when))  # type: ignore[arg-type]
            code, kills = ended.code, kills + (ended.code is None)
            assert code in (0, None), ended.said
        assert names(broken) == names(whole)
        assert logged(broken) == logged(whole)
        assert parameters(broken) == parameters(whole)
    job = Job(args=(*asked, "-o", str(tmp_path / "both")), watched=str(tmp_path), setup=often)
    ends = warm.run(job, job)
    assert sorted(end.code or 0 for end in ends) == [0, 2]
    assert (
        "another training is at work" in "".join(end.said for end in ends) or "already" in ends[1].said + ends[0].said
    )
    assert parameters(tmp_path / "both") == parameters(whole)


def logged(folder: Path) -> list[dict[str, str]]:
    """The log without its times."""
    with (folder / "log.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def parameters(folder: Path) -> str:
    from weft.workloads.checkpoint import digest, load_checkpoint
    from weft.workloads.training.run import VERSION

    return digest(load_checkpoint(folder / "checkpoint.pt", VERSION)["model"])


IN_THE_SAME_PROCESS_TREE = """
import multiprocessing
from weft.analysis import trainings
real = multiprocessing.get_context
multiprocessing.get_context = lambda how: real("fork")  # spawn would import torch for every worker
"""


def test_study(warm: Warm, tmp_path: Path) -> None:
    whole, broken, draw = tmp_path / "whole", tmp_path / "broken", random.Random(6)

    def make(folder: Path, **when: float) -> Job:
        asked = ("study", "--model", "mlp", "--schemes", "bdwp", "--seeds", "1", "--epochs", "1", "--jobs", "1")
        args = (*asked, "--arch", "tiny", "-o", str(folder))
        return Job(args=args, watched=str(folder), setup=UNDRAWN + IN_THE_SAME_PROCESS_TREE, **when)  # type: ignore[arg-type]

    warmed(warm, make(tmp_path / "warm"))
    alone = finished(warm, make(whole))
    expected, wanted, kills = names(whole), read_study(whole), 0
    assert wanted is not None
    while kills < KILLS:
        shutil.rmtree(broken, ignore_errors=True)
        broken.mkdir()
        (broken / "mine.txt").write_text("mine")
        found = None
        # A worker counts operations, too: one that is killed takes its own training with it, which is tried again.
        while found is None or any(row.failed for row in found.rows):
            late = draw.random() < 0.5
            when = {"after": draw.uniform(0, alone.seconds)} if late else {"at": draw.randint(1, alone.operations)}
            (ended,) = warm.run(make(broken, **when))
            kills += ended.code is None
            assert ended.code in (0, None), ended.said
            found = read_study(broken) if ended.code == 0 else None
        assert found.rows == wanted.rows
        assert {name for name in names(broken) if not name.startswith("running/")} == expected | {"mine.txt"}
    ends = warm.run(make(tmp_path / "both"), make(tmp_path / "both"))
    assert {end.code for end in ends} <= {0, 2} and 0 in {end.code for end in ends}, ends
    both = read_study(tmp_path / "both")
    assert both is not None and both.rows == wanted.rows


KEEPS_THE_COMPILED = """
import hashlib, pathlib, shutil
import weft.analysis.verify.blocks, weft.hdl.drivers.array, weft.hdl.drivers.engines
from weft.hdl.flow import cosim
kept = pathlib.Path({kept!r})
real_tool, real_command = cosim.run_tool, cosim.run_command
kept.mkdir(exist_ok=True)
def at(folder):
    return kept / hashlib.sha256((folder / "design.il").read_bytes() + (folder / "shim.cc").read_bytes()).hexdigest()
def run_tool(tool, arguments, folder, heard=None):
    if at(folder).exists():
        (folder / "design.cc").write_text("")
    else:
        real_tool(tool, arguments, folder, heard)
def run_command(name, command, folder, heard=None):
    if "--version" in command:
        return real_command(name, command, folder, heard)
    if not at(folder).exists():
        real_command(name, command, folder, heard)
        shutil.copy(folder / "design.so", at(folder))
        return
    whole = at(folder).read_bytes()
    with (folder / "design.so").open("wb") as file:  # in pieces, as a compiler writes
        for start in range(0, len(whole), 1 + len(whole) // 4):
            file.write(whole[start : start + 1 + len(whole) // 4])
            file.flush()
            (folder / "piece").touch()
cosim.run_tool, cosim.run_command = run_tool, run_command
for module in (weft.analysis.verify.blocks, weft.hdl.drivers.array, weft.hdl.drivers.engines):
    for made in list(vars(module).values()):
        if hasattr(made, "cache_clear"):
            made.cache_clear()  # what the process that warmed up holds in memory
"""


def test_verify_and_its_cached_builds(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Yosys and g++ work once; later builds take what they made, in pieces."""
    cache, draw = tmp_path / "cache", random.Random(7)
    setup = f"import os; os.environ['WEFT_CACHE'] = {str(cache)!r}\n" + KEEPS_THE_COMPILED.format(
        kept=str(tmp_path / "kept")
    )

    def make(**when: float) -> Job:
        args = ("verify", "--arch", "tiny", "--cases", "1")
        return Job(args=args, watched=str(cache), setup=setup, **when)  # type: ignore[arg-type]

    warmed(warm, make())
    expected = {path.name: path.read_bytes() for path in (cache / "cosim").iterdir()}
    shutil.rmtree(cache)
    whole, kills = finished(warm, make()), 0
    while kills < KILLS:
        shutil.rmtree(cache)
        code: int | None = None
        while code != 0:
            late = draw.random() < 0.2
            when = {"after": draw.uniform(0, whole.seconds)} if late else {"at": draw.randint(1, whole.operations)}
            (ended,) = warm.run(make(**when))
            code, kills = ended.code, kills + (ended.code is None)
            assert code in (0, None), ended.said
            for path in (cache / "cosim").glob("*.so"):
                assert path.read_bytes() == expected[path.name]
        assert {path.name: path.read_bytes() for path in (cache / "cosim").iterdir()} == expected
    shutil.rmtree(cache)
    for killed, other in [warm.run(make(at=draw.randint(1, whole.operations)), make()) for _ in range(KILLS // 10)]:
        assert other.code == 0 and killed.code in (0, None), other.said
    assert {path.name: path.read_bytes() for path in (cache / "cosim").iterdir()} == expected
