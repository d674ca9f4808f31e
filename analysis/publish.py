"""Results put into a folder that may hold more: all of them or none, whatever is killed when, and nothing but ours.

Files are written to a part inside the folder, which a rename makes final (the commit), and are then moved one by one
over those of the run before. Whoever opens the folder next finishes what a killed process left between the two.
``manifest.json`` says, by kind of result, what was written and its SHA-256: what is not named there is the user's and
stays, and files that do not match it are not read as one result.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from ..workloads.errors import InputError
from ..workloads.files import locked, write_atomically
from .recover import recover

__all__ = ["MANIFEST", "manifest_of", "RUN", "STUDY", "publish", "read_published", "require_free", "settle"]

MANIFEST = "manifest.json"
RUN, STUDY = "run", "study"
"""Kinds of results that are read again."""
_PART = ".weft."
_LOCK, _READY = f"{_PART}lock", f"{_PART}ready"
_LARGEST = 2**30
_TRIES = 5
"""How often a reader begins anew when a writer comes between."""

Digests = dict[str, dict[str, str]]
"""Kind of result, name of the file, SHA-256."""


def require_free(folder: Path, names: Collection[str], *, alone: bool = False) -> None:
    """Refuse a ``folder`` in which :func:`publish` would take a file of the user's for its own, and finish or bring
    back what an interrupted run left there.

    ``names``: what will be written. ``alone``: a folder that is not empty must hold results already.
    """
    try:
        recover(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; results need a directory")
        if not folder.is_dir():
            return
        _settle(folder)
        held = _manifest(folder)
        ours = {name for files in held.values() for name in files} if held else _of_older(folder, names)
        if alone and not held and not ours and any(not entry.name.startswith(_PART) for entry in folder.iterdir()):
            raise InputError(f"{folder}: is not empty and was not written by weft; choose a new directory")
        _require_ours(folder, set(names) - ours)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from None


def _require_ours(folder: Path, names: Iterable[str]) -> None:
    theirs = sorted(name for name in names if os.path.lexists(folder / name))
    if theirs:
        raise InputError(
            f"{folder / theirs[0]}: was not written by weft and would be replaced; move it away, or choose another "
            "directory"
        )


def _of_older(folder: Path, names: Collection[str]) -> set[str]:
    """All of ``names`` if a version without manifests wrote them: its JSON document says by which version."""
    for name in names:
        if name.endswith(".json"):
            with contextlib.suppress(OSError, ValueError, RecursionError):
                found = json.loads((folder / name).read_bytes())
                if isinstance(found, dict) and "weft_version" in found:
                    return set(names)
    return set()


def publish(folder: Path, kind: str, files: Mapping[str, bytes]) -> None:
    """Make ``files``, by name, the results of ``kind`` in ``folder``, in the place of those of the run before.

    Files of the run before that have no successor go, unless they were changed since.
    """
    try:
        recover(folder)
        _settle(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / _LOCK):
            _finish(folder)
            for left in folder.glob(f"{_PART}*.part"):
                shutil.rmtree(left, ignore_errors=True)
            held = _manifest(folder)
            ours = {name for named in held.values() for name in named} if held else _of_older(folder, files)
            _require_ours(folder, set(files) - ours)
            _commit(folder, {**_others(held, kind, files), kind: _digests(files)}, files)
            _finish(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from None


def manifest_of(kind: str, files: Mapping[str, bytes]) -> bytes:
    """The manifest of a folder that holds nothing but ``files``."""
    return _dumps({kind: _digests(files)})


def _dumps(manifest: Digests) -> bytes:
    return (json.dumps({"weft_version": version("weft"), "files": manifest}, indent=1) + "\n").encode()


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def _others(held: Digests, kind: str, taken: Collection[str]) -> Digests:
    """What is held of other kinds than ``kind`` and keeps its name."""
    return {
        other: kept
        for other, named in held.items()
        if other != kind and (kept := {name: digest for name, digest in named.items() if name not in taken})
    }


def _commit(folder: Path, manifest: Digests, files: Mapping[str, bytes]) -> None:
    part = Path(tempfile.mkdtemp(prefix=_PART, suffix=".part", dir=folder))
    try:
        for name, data in {**files, MANIFEST: _dumps(manifest)}.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            with (part / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        part.rename(folder / _READY)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _settle(folder: Path) -> None:
    """Finish what a killed process has committed here or, as a comparison does, from the folder above; one at work is
    waited for.
    """
    for place in (folder.absolute().parent, folder):
        ready = place / _READY
        if ready.is_dir() and (place == folder or ready.lstat().st_uid == os.geteuid()):
            with locked(place / _LOCK):
                _finish(place)


def _finish(folder: Path) -> None:
    """Move what is committed to its place; may be broken off and begun again anywhere. The lock is held."""
    ready = folder / _READY
    if os.path.lexists(ready) and (ready.is_symlink() or ready.lstat().st_uid != os.geteuid()):
        raise InputError(
            f"{ready}: is not ours; its owner finishes what an interrupted run left there with `weft report`"
        )
    if (ready / MANIFEST).is_file():
        new, old = _manifest(ready), _manifest(folder)
        for name in (name for named in new.values() for name in named):
            if (ready / name).is_file():
                _move(ready / name, folder / name)
        _drop(folder, old, {name for named in new.values() for name in named})
        _move(ready / MANIFEST, folder / MANIFEST)
    # What was moved leaves empty folders; the manifest goes last.
    shutil.rmtree(ready, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A folder below ours is a mount point.
        write_atomically(target, source.read_bytes())
        source.unlink()


def _drop(folder: Path, old: Digests, kept: Collection[str]) -> None:
    for name, digest in ((name, digest) for named in old.values() for name, digest in named.items()):
        path = folder / name
        if name not in kept and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def _manifest(folder: Path) -> Digests:
    """What the manifest of ``folder`` names; nothing without one."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_bytes())["files"]
        return {
            str(kind): {_inside(str(name)): str(digest) for name, digest in files.items()}
            for kind, files in found.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: is no manifest of weft; delete it, and the files beside it are not ours") from None


def _inside(name: str) -> str:
    """A name that stays in its folder: a manifest may come from anybody."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise ValueError(name)
    return name


def read_published(folder: Path, kind: str, names: Iterable[str]) -> dict[str, bytes]:
    """Files of one run, by name; those that are not there are left out. Folders of older versions have no manifest."""
    wanted = tuple(names)
    for _ in range(_TRIES):
        settle(folder)
        expected = _manifest(folder).get(kind, {})
        found = dict(_existing(folder, wanted))
        wrong = [name for name in wanted if name in expected and _differs(found.get(name), expected[name])]
        if not wrong:
            return found
    raise InputError(
        f"{folder / wrong[0]}: is not the file that {MANIFEST} beside it was written with: it was changed, or is of "
        "another run"
    )


def _differs(data: bytes | None, digest: str) -> bool:
    return data is None or hashlib.sha256(data).hexdigest() != digest


def _existing(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        path = folder / name
        if path.exists():
            if not path.is_file() or path.stat().st_size > _LARGEST:
                raise InputError(f"{path}: is no file that weft wrote")
            with contextlib.suppress(FileNotFoundError):
                yield name, path.read_bytes()


def settle(folder: Path) -> None:
    """Bring what an interrupted run left in ``folder``, or beside it, to its place before it is read."""
    try:
        recover(folder)
        _settle(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: an interrupted run left results in {folder / _READY} that cannot be put in their place: "
            f"{error.strerror}"
        ) from None
