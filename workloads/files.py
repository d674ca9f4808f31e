"""Files that are written whole, one writer at a time, in folders that others may write to as well.

Names that can be guessed are never followed nor shared: a part under construction has a random name of its own, a lock
is opened without following a link, and what is loaded as code lies in a folder that only its owner can write to.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import InputError

__all__ = [
    "alone",
    "cache_folder",
    "cache_root",
    "is_private",
    "locked",
    "remove_parts",
    "sources_digest",
    "write_atomically",
]

_TRIES = 100
_LONGEST_STEM = 200
"""Bytes of a name that its part repeats; a file system takes 255."""
_OTHERS_WRITE = 0o022


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Replace ``path`` by ``data``, or by its pieces, so that an interruption leaves the old file or the new one, never
    a part.

    A link is replaced, not followed; a device, a pipe or a folder is refused. What killed writers of ``path`` left
    behind is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_replaceable(path)
        descriptor, part = _create_part(path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                file.flush()
                # Without it a file system may put the new name on disk before the data.
                os.fsync(file.fileno())
                part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        remove_parts(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def _require_replaceable(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        what = "a folder" if stat.S_ISDIR(kind) else "no regular file"
        raise InputError(f"{path}: cannot be written: is {what}; name a file to write or replace")


def _create_part(path: Path) -> tuple[int, Path]:
    """A new file beside ``path``, locked as long as its descriptor is open, which says that its writer lives."""
    for _ in range(_TRIES):
        part = path.with_name(f"{_stem(path)}{secrets.token_hex(8)}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if _lock_now(descriptor) and os.fstat(descriptor).st_nlink:
            return descriptor, part
        os.close(descriptor)  # remove_parts of another process came between
    raise InputError(f"{path}: cannot be written: its parts are removed as they are made; try again")


def remove_parts(path: Path) -> None:
    """Remove what writers of ``path`` left behind when they were killed; those at work keep theirs."""
    stem = _stem(path)
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if entry.name.startswith(stem) and entry.name.endswith(".part"):
                with contextlib.suppress(OSError):
                    _remove_unlocked(Path(entry.path))


def _remove_unlocked(part: Path) -> None:
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock_now(descriptor):
            part.unlink()
    finally:
        os.close(descriptor)


def _stem(path: Path) -> str:
    return f".{os.fsdecode(os.fsencode(path.name)[:_LONGEST_STEM])}."


def _lock_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path``, which is there only meanwhile; the folder must exist.

    Wait for another holder, or after ``patience`` seconds raise an InputError that says ``busy``, if that is given.
    """
    limit = time.monotonic() + patience
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            if busy is None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            elif not _lock_now(descriptor):
                if time.monotonic() >= limit:
                    raise InputError(busy)
                time.sleep(0.05)
                continue
            # Whoever held it has removed it, and another may have made a new one.
            if not _is(path, descriptor):
                continue
            try:
                yield
            finally:
                if _is(path, descriptor):
                    path.unlink()
            return
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def alone(folder: Path, who: str, patience: float = 0.0) -> Iterator[None]:
    """Be the only ``who`` at work in ``folder``, which is made; another one is an InputError after ``patience``."""
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            busy = f"{folder}: another {who} is at work here; wait for it, or name another folder"
            held.enter_context(locked(folder / "lock", busy, patience))
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
        yield


def _is(path: Path, descriptor: int) -> bool:
    """Whether ``path`` is the file that is open."""
    try:
        found = path.lstat()
    except OSError:
        return False
    held = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def cache_root() -> Path | None:
    """What WEFT_CACHE names, if it does."""
    named = os.environ.get("WEFT_CACHE")
    return Path(named) if named else None


def cache_folder(kind: str) -> Path:
    """The folder of one ``kind`` of things that Weft made and will load again; only its owner can read or write it.

    It is below $WEFT_CACHE, or ~/.cache/weft. An InputError says why there is none.
    """
    root = cache_root()
    if root is None:
        try:
            root = Path.home() / ".cache" / "weft"
        except RuntimeError:
            raise InputError("there is no home to keep a cache in: let WEFT_CACHE name a folder") from None
    folder = root / kind
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            what = "is no folder" if not stat.S_ISDIR(found.st_mode) else f"belongs to user {found.st_uid}"
            raise InputError(f"{folder}: {what}, so what lies there is not loaded; let WEFT_CACHE name another folder")
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise InputError(f"{folder}: cannot be a cache: {error.strerror}; let WEFT_CACHE name another folder") from None
    return folder


def is_private(path: Path) -> bool:
    """Whether a file, or a folder that is there or can be made, is ours and nobody else may write to it."""
    for place in (path, *path.parents):
        try:
            found = place.lstat()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        mine = found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE
        return mine and not stat.S_ISLNK(found.st_mode) and (place == path or stat.S_ISDIR(found.st_mode))
    return False


def sources_digest(folder: Path) -> str:
    """Digest of every Python source below ``folder``: what is made by them and kept is of use as long as it stays."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
