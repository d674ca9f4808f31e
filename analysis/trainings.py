"""The trainings of a study: one JSON file each, named by its content, made by processes that may be killed at any time.

The key of a training covers everything that decides its bits but the processor: its spec, its data, the versions of
PyTorch and NumPy, and the source of every module that a training under its scheme imports. A stale result is therefore
never read; one that no longer applies just lies there.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..workloads.errors import InputError, require_int
from ..workloads.files import alone, write_atomically
from ..workloads.gemm import Pass
from ..workloads.host import Host
from ..workloads.pool import attempt, run_each
from ..workloads.schemes.scheme import SCHEMES
from ..workloads.sigint import asked_to_stop
from ..workloads.sparsity import NMPattern
from ..workloads.strict import dump_json, read_json, read_text
from .executor import Executor, TasksLost
from .training_sources import WORKLOADS, closure

if TYPE_CHECKING:
    from ..workloads.training import TrainResult, TrainSpec

__all__ = ["LayerFindings", "Planned", "TrainedPhase", "Training", "holds", "planned", "require_jobs", "run_trainings"]

Progress = Callable[[int, int], None]

_STRICT = {"extra": "forbid"}
NICE = 10
"""Hours of work in the background: whoever sits at the machine comes first."""
_ONE_AT_A_TIME = Lock()
"""PyTorch's generator and its settings are a process's, and not a thread's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFindings:
    """One layer after the last step; see :class:`weft.workloads.schemes.technique.LayerMetrics`."""

    __pydantic_config__ = _STRICT

    density: dict[Pass, float]
    flip_rate: float
    sad: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedPhase:
    """A stretch of a training as it came: its steps, what annotates a step of it, and what it kept dense and why."""

    __pydantic_config__ = _STRICT

    steps: int
    scheme: str
    pattern: NMPattern | None
    kept_dense: dict[str, dict[Pass, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is kept of a finished training.

    ``steps`` and ``validation`` (accuracy on the validation set) have an entry per epoch; ``accuracy`` is of the test
    set after the last. ``images``: in the training, validation and test set. ``hosts``: where it ran. ``density`` and
    ``sad`` are those of the last step; there the learning rate is near zero and no mask moves, so ``flip_rate`` is the
    mean over the last steps of all epochs. ``corrupted``: accuracy of the test set by corruption, one for each of its
    strengths. ``data``: the fingerprint of what it was trained on.
    """

    __pydantic_config__ = _STRICT

    model: str
    scheme: str
    pattern: NMPattern | None
    seed: int
    spec: dict[str, Any]
    images: tuple[int, int, int]
    hosts: tuple[Host, ...]
    digest: str
    seconds: float
    steps: tuple[int, ...]
    validation: tuple[float, ...]
    accuracy: float
    density: dict[Pass, float]
    flip_rate: float
    sad: float
    phases: tuple[TrainedPhase, ...]
    layers: dict[str, LayerFindings]
    corrupted: dict[str, tuple[float, ...]] = field(default_factory=dict)
    data: str = ""

    def __post_init__(self) -> None:
        if not self.steps or len(self.steps) != len(self.validation):
            raise InputError("a training needs a validation accuracy for each of its epochs")
        if sum(phase.steps for phase in self.phases) != self.steps[-1]:
            raise InputError(
                f"phases of a training cover {sum(p.steps for p in self.phases)} of {self.steps[-1]} steps"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What comes from a worker: a training, or why there is none."""

    __pydantic_config__ = _STRICT

    training: Training | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One training of a study, its content key, and the fingerprint of its data."""

    spec: TrainSpec
    key: str = field(compare=False)
    data: str = field(compare=False)


def planned(specs: Iterable[TrainSpec]) -> list[Planned]:
    """Give every training its key; data that cannot be read and models that do not exist are refused here."""
    from ..workloads.data import open_data
    from ..workloads.models.classifier import image_side

    found: dict[tuple[str, int | None], str] = {}
    made = []
    for spec in specs:
        place = (spec.data, image_side(spec.model))
        if place not in found:
            found[place] = open_data(*place).fingerprint
        made.append(Planned(spec=spec, key=_key(spec, found[place]), data=found[place]))
    return made


def _key(spec: TrainSpec, data: str) -> str:
    from importlib.metadata import version

    from ..workloads.training import TrainSpec

    digest = hashlib.sha256(dump_json(TrainSpec, spec))
    for text in (data, version("torch"), version("numpy"), _user_source(spec.model), _user_source(spec.scheme)):
        digest.update(b"\0" + text.encode())
    held = _sources()
    for name in sorted(closure(spec.scheme)):
        digest.update(f"\0{name} {held[name]}".encode())
    return digest.hexdigest()[:32]


def _user_source(named: str) -> str:
    """Digest of the file of ``file.py:name``; what that file imports is not followed."""
    path, colon, _ = named.rpartition(":")
    return hashlib.sha256(read_text(Path(path)).encode()).hexdigest() if colon else ""


def _sources() -> dict[str, str]:
    """SHA-256 of every source a training might use, by path below ``workloads/``."""
    return {
        path.relative_to(WORKLOADS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(WORKLOADS.rglob("*.py"))
    }


def require_jobs(jobs: int) -> None:
    """Refuse a number of processes that is none."""
    require_int("jobs", jobs, 1, 1024)


def run_trainings(
    plans: Sequence[Planned],
    folder: Path,
    jobs: int,
    progress: Progress | None = None,
    *,
    keep: bool = False,
    executor: Executor | None = None,
) -> dict[str, Training | str]:
    """Do the trainings that ``folder`` does not hold, ``jobs`` at a time; by key, the training or why there is none.

    ``executor``: does them in place of ``jobs`` processes. Its workers need not see ``folder``, so a training that is
    cut off there has no checkpoint and begins anew.

    ``keep``: one of the same spec and data is held whatever sources, PyTorch and NumPy it was made by.

    A training that fails is tried again the next time. A process that is killed takes only its own training with it;
    when this process is killed the others follow, and the next call goes on at their checkpoints.
    """
    require_jobs(jobs)
    # Two studies in one folder would write the same checkpoints.
    with alone(folder, "study"):
        wanted = {plan.key: plan for plan in plans}
        done = {key: held for key in wanted if (held := _read(folder, key)) is not None}
        if keep:
            done |= _of_other_sources({k: plan for k, plan in wanted.items() if k not in done}, folder)
        return _trained(wanted, done, folder, executor or jobs, progress or (lambda done, total: None))


def holds(folder: Path, plan: Planned) -> bool:
    """Whether ``folder`` has a training that these very sources made."""
    return _file(folder, plan.key).exists()


def _of_other_sources(wanted: dict[str, Planned], folder: Path) -> dict[str, Training]:
    """The youngest training of the same spec and data for each that there is one of."""
    found: dict[str, Training] = {}
    for path in sorted((folder / "cells").glob("*.json"), key=lambda p: p.stat().st_mtime_ns) if wanted else ():
        try:
            held = read_json(Training, read_text(path), str(path))
        except InputError:
            continue  # of a version that kept other things
        found |= {key: held for key, plan in wanted.items() if _same(plan, held)}
    return found


def _same(plan: Planned, held: Training) -> bool:
    """Whether it was trained as planned; what its spec does not name had not been thought of and was as is usual."""
    unnamed = {f.name: f.default for f in fields(plan.spec) if f.default is not MISSING}
    unnamed |= {f.name: f.default_factory() for f in fields(plan.spec) if f.default_factory is not MISSING}
    return held.data == plan.data and {**unnamed, **held.spec} == _spec_document(plan.spec)


def _spec_document(spec: TrainSpec) -> dict[str, Any]:
    return {**asdict(spec), "pattern": None if spec.pattern is None else str(spec.pattern)}


def _trained(
    wanted: dict[str, Planned], held: Mapping[str, Training], folder: Path, by: Executor | int, tell: Progress
) -> dict[str, Training | str]:
    done: dict[str, Training | str] = dict(held)
    for key in done:
        # A process was killed between its last two lines.
        shutil.rmtree(folder / "running" / key, ignore_errors=True)
    left = [plan for key, plan in wanted.items() if key not in done]
    tell(len(done), len(wanted))
    if left:

        def took(plan: Planned, failure: str | None) -> None:
            held = _read(folder, plan.key) if failure is None else failure
            done[plan.key] = held if held is not None else f"{_file(folder, plan.key)}: is gone"
            tell(len(done), len(wanted))

        if not isinstance(by, int):
            _train_elsewhere(left, folder, by, took)
            return done
        # Trainings hear SIGINT, too, and write a checkpoint after the step that is running.
        with asked_to_stop() as stop:
            begin, do = partial(_load, _sources()), partial(_train, folder)
            run_each(left, by, begin=begin, do=do, took=took, stop=stop, nice=NICE)
    return done


def _train_elsewhere(
    plans: Sequence[Planned], folder: Path, executor: Executor, took: Callable[[Planned, str | None], None]
) -> None:
    """Keep what workers train; those that kill their workers have failed, as a process of ours would."""
    try:
        for plan, made in executor.each(_elsewhere, plans):
            outcome = read_json(_Outcome, made.decode(), f"training {plan.key}")
            if outcome.training is not None:
                write_atomically(_file(folder, plan.key), dump_json(Training, outcome.training))
            took(plan, outcome.failure)
    except TasksLost as error:
        for plan in error.tasks:
            took(plan, str(error))


def _elsewhere(plan: Planned) -> bytes:
    """Train on a worker, whose data and libraries have to be those of the study."""
    with _ONE_AT_A_TIME, TemporaryDirectory(prefix="weft-training-") as folder:
        _require_same(plan)
        made: list[Training] = []
        failure = attempt(lambda one: made.append(_result(one, Path(folder))), plan)
        return dump_json(_Outcome, _Outcome(training=made[0] if made else None, failure=failure))


def _require_same(plan: Planned) -> None:
    """Refuse to train what would bear the key of another training."""
    try:
        (own,) = planned([plan.spec])
    except InputError as error:
        raise InputError(f"worker on {socket.gethostname()}: {error}") from None
    if own.key != plan.key:
        what = "data differ" if own.data != plan.data else "PyTorch, NumPy or model differs"
        raise InputError(f"worker on {socket.gethostname()}: its {what} from those of the study; give it the same")


def _load(sources: dict[str, str]) -> str:
    """Import all that trainings use; what to say if that is not what the keys were made of."""
    from importlib import import_module

    import_module("torch").set_num_threads(1)
    import_module("weft.workloads.training")
    import_module("weft.workloads.models.hf")
    for family in {entry.technique.partition(".")[0] for entry in SCHEMES.values()}:
        import_module(f"weft.workloads.schemes.{family}")
    return "" if _sources() == sources else "the sources of weft changed while the study began; run it again"


def _train(folder: Path, plan: Planned) -> None:
    """Train, or go on where an earlier process was killed, and write the result."""
    place = folder / "running" / plan.key
    write_atomically(_file(folder, plan.key), dump_json(Training, _result(plan, place)))
    shutil.rmtree(place, ignore_errors=True)


def _result(plan: Planned, place: Path) -> Training:
    """Train in ``place``, or go on from its checkpoint."""
    from ..workloads.training import CHECKPOINT, resume, train

    # What the study asks for is all of the spec: its model may be a user's code, which a checkpoint alone never names.
    asked = {f.name: getattr(plan.spec, f.name) for f in fields(plan.spec)}
    result = resume(place, asked) if (place / CHECKPOINT).exists() else train(plan.spec, place)
    return _kept(result, plan.data)


def _kept(result: TrainResult, data: str) -> Training:
    from ..workloads.training import accuracy_under_corruption

    spec, last, technique = result.spec, result.log[-1], result.technique
    return Training(
        model=spec.model,
        scheme=spec.scheme,
        pattern=spec.pattern,
        seed=spec.seed,
        spec=_spec_document(spec),
        images=result.images,
        hosts=result.hosts,
        digest=result.digest,
        seconds=result.seconds,
        steps=tuple(row.step for row in result.log),
        accuracy=result.accuracy,
        validation=tuple(row.validation_accuracy for row in result.log),
        density={Pass.FF: last.density_ff, Pass.BP: last.density_bp, Pass.WU: last.density_wu},
        flip_rate=fmean(row.flip_rate for row in result.log),
        sad=last.sad,
        phases=_phases(result),
        layers={
            name: LayerFindings(
                density={Pass.FF: found.density_ff, Pass.BP: found.density_bp, Pass.WU: found.density_wu},
                flip_rate=found.flip_rate,
                sad=found.sad,
            )
            for name, found in technique.metrics().items()
        },
        corrupted=accuracy_under_corruption(result),
        data=data,
    )


def _phases(result: TrainResult) -> tuple[TrainedPhase, ...]:
    """The phases with the steps that each had, by the rule of ``scheme.phase_at``."""
    technique, steps = result.technique, result.log[-1].step
    made, share, begin = [], 0.0, 0
    for i, phase in enumerate(technique.phases):
        share += phase.share
        end = steps if i + 1 == len(technique.phases) else round(share * steps)
        dense = {name: dict.fromkeys((Pass.FF, Pass.BP, Pass.WU), why) for name, why in technique.kept_dense.items()}
        for name, layer in technique.layers.items():
            reasons: dict[Pass, str] = {}
            technique.passes_of(layer, phase, reasons)
            if reasons:
                dense[name] = reasons
        made.append(TrainedPhase(steps=end - begin, scheme=phase.scheme, pattern=phase.pattern, kept_dense=dense))
        begin = end
    return tuple(made)


def _file(folder: Path, key: str) -> Path:
    return folder / "cells" / f"{key}.json"


def _read(folder: Path, key: str) -> Training | None:
    path = _file(folder, key)
    if not path.exists():
        return None
    try:
        return read_json(Training, read_text(path), str(path))
    except InputError as error:
        raise InputError(f"{error}\n{path}: is damaged; delete it, and its training is done again") from None
