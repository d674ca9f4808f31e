"""What the sub-networks of a trained super-network are worth with the weights that they inherit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from ..files import locked, write_atomically
from ..models import zoo
from ..models.subnetwork import LARGEST, require_side, sides_of
from ..models.supernet import SuperNet
from ..strict import dump_json, read_file, read_json, read_text
from .control import controlled, threads_for
from .loop import trained
from .run import CHECKPOINT, Run
from .supernet import on_path

__all__ = ["SUBNETS", "accuracies", "accuracy_of"]

SUBNETS = "subnets.json"
_LOCK = "subnets.lock"
_SAVE_EVERY = 64
_VERSION = 1
_MOST_BYTES = 2**36


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """``validation``: share of the validation images, by name. ``checkpoint``: SHA-256 of the file of that training of
    ``supernet``, for images of ``side``."""

    __pydantic_config__ = {"extra": "forbid"}

    version: int
    checkpoint: str
    supernet: str
    side: int
    validation: dict[str, float]


def accuracy_of(folder: Path | str, name: str) -> float:
    """Share of the validation images that the sub-network ``name`` classifies right with the weights that it inherits
    from the super-network trained in ``folder``.

    Its batch norms are estimated anew from training images first; under a scheme its masks are those of its own slices.
    Kept in ``subnets.json`` of the folder. ``name`` is one of :func:`.zoo.subnetworks`, without ``@`` of the full side;
    one that was not trained is an `InputError` with the nearest.
    """
    return accuracies(folder, [name])[name]


def accuracies(
    folder: Path | str, names: Iterable[str], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """:func:`accuracy_of` for each of ``names``. ``progress`` is told how many are measured, of how many to measure.

    SIGINT keeps what is measured and raises KeyboardInterrupt.
    """
    folder = Path(folder)
    checkpoint = hashlib.sha256(_checkpoint(folder)).hexdigest()
    table = _kept(folder, checkpoint) or _empty(_run(folder, checkpoint), checkpoint)
    keys = {name: _key(name, table) for name in names}
    missing = [key for key in dict.fromkeys(keys.values()) if key not in table.validation]
    if missing:
        table = _measured(folder, table, missing, progress)
    return {name: table.validation[key] for name, key in keys.items()}


def _measured(folder: Path, table: _Table, keys: Sequence[str], progress: Callable[[int, int], None] | None) -> _Table:
    run, new = _run(folder, table.checkpoint), dict[str, float]()
    with controlled(threads_for(run.data), run.device) as stop:
        for done, key in enumerate(keys, 1):
            new[key] = _measure(run, key)
            if progress is not None:
                progress(done, len(keys))
            stopping = stop() and done < len(keys)
            if stopping or done % _SAVE_EVERY == 0 or done == len(keys):
                table = _keep(folder, table, new)
            if stopping:
                raise KeyboardInterrupt
    return table


def _measure(run: Run, key: str) -> float:
    assert isinstance(run.model, SuperNet)
    path = zoo.subnetwork(key)
    assert path is not None, "a key names one"
    with on_path(run.model, run.technique, path, zoo.find(key)[1]):
        run.estimate()
        return run.measure(f"validation set by {key}", run.data.validation)[1]


@lru_cache(maxsize=1)
def _run(folder: Path, checkpoint: str) -> Run:
    """The training in ``folder``, read once for as long as its ``checkpoint`` stays."""
    run = trained(folder)
    if not isinstance(run.model, SuperNet):
        raise InputError(
            f"{folder}: holds a training of {run.spec.model!r}, which is no super-network; train one: weft train "
            f"supernet9 -o DIR"
        )
    # The phase of its last step, whose operands are those that the training ended with.
    run.technique.before_step(run.steps - 1)
    return run


def _checkpoint(folder: Path) -> bytes:
    if not (folder / CHECKPOINT).is_file():
        raise InputError(f"{folder}: is not the folder of a training: it holds no {CHECKPOINT}")
    return read_file(folder / CHECKPOINT, _MOST_BYTES)


def _empty(run: Run, checkpoint: str) -> _Table:
    return _Table(
        version=_VERSION,
        checkpoint=checkpoint,
        supernet=zoo.base(run.spec.model),
        side=run.data.shape[1],
        validation={},
    )


def _key(name: str, table: _Table) -> str:
    """The one name of a sub-network in the table."""
    path = zoo.subnetwork(name) if zoo.base(name) == table.supernet else None
    if path is None:
        example = f"{LARGEST.named(table.supernet)}@{table.side}"
        raise InputError(
            f"model {name!r} is no sub-network of {table.supernet}, which was trained; name one as {example}"
        )
    side = zoo.find(name)[1] if "@" in name else table.side
    require_side(side, sides_of(table.side))
    return f"{path.named(table.supernet)}@{side}"


def _kept(folder: Path, checkpoint: str) -> _Table | None:
    """What was measured before; None if nothing was, or of another training."""
    path = folder / SUBNETS
    if not path.exists():
        return None
    found = read_json(_Table, read_text(path), str(path))
    if found.version != _VERSION:
        raise InputError(f"{path}: is of version {found.version}; this Weft reads version {_VERSION}: remove it")
    wrong = [name for name, share in found.validation.items() if not 0.0 <= share <= 1.0]
    if wrong:
        raise InputError(f"{path}: {wrong[0]} has {found.validation[wrong[0]]}, which is no share from 0 to 1")
    return found if found.checkpoint == checkpoint else None


def _keep(folder: Path, table: _Table, new: dict[str, float]) -> _Table:
    """Add what is ``new`` to the table in the folder, in which another process may measure too."""
    with locked(folder / _LOCK):
        there = _kept(folder, table.checkpoint) or table
        table = replace(table, validation=dict(sorted({**there.validation, **new}.items())))
        write_atomically(folder / SUBNETS, dump_json(_Table, table) + b"\n")
    return table
