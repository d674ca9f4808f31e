"""Traces kept on disk, so that a model that was traced before needs neither PyTorch nor transformers again.

An entry is a workload file, packed by gzip, whose checksum finds what is damaged. Its name is a digest of everything
that the trace depends on. So an entry is never out of date: nobody asks for it any more, and it is removed in its turn.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import InputError
from .files import cache_folder, sources_digest, write_atomically
from .io import dumps_workload, loads_workload
from .models import zoo
from .step import Workload
from .strict import read_file

__all__ = ["MOST_BYTES", "Subject", "built_in", "configuration", "kept_trace", "trace_key"]

MOST_BYTES = 2**28
"""Of all entries together: some 20,000 of ResNet-50, 12 KB each, or 1,600 of Llama-2 70B."""

_KIND = "traces"
_SETTINGS = ("PYTORCH_", "TORCH_", "TRANSFORMERS_", "USE_")
"""How the variables begin by which PyTorch and transformers are told to build or run a model otherwise.

Those of PyTorch's compiler, which has no part in a trace, begin otherwise; it sets some of them itself.
"""

_SOURCES = Path(__file__).parent
"""Nothing else of ours has a part in a trace: imports point left."""

Subject = tuple[str, ...]


def built_in(name: str) -> Subject:
    """What is traced under the name of a built-in model."""
    model, side = zoo.find(name)
    return "built-in", model.name, str(side)


def configuration(file: Path) -> Subject | None:
    """What is traced of a Hugging Face configuration; None if it cannot be read, or if the file does not say it all.

    transformers reads the configuration of a backbone that is given by name where it finds it on disk.
    """
    named: list[bool] = []

    def note(table: dict[str, object]) -> None:
        named.append(isinstance(table.get("backbone"), str))

    try:
        text = read_file(file)
        json.loads(text, object_hook=note)
    except (InputError, ValueError, RecursionError):
        return None  # whose reader says what is wrong with it
    # The name of the file is that of the model.
    return None if any(named) else ("configuration", file.stem, hashlib.sha256(text).hexdigest())


def kept_trace(
    subject: Callable[[], Subject | None], asked: Mapping[str, object], trace: Callable[[], Workload]
) -> Workload:
    """What ``trace`` makes of ``subject`` as ``asked``, from disk if it was made before and nothing has changed since.

    A process that has loaded PyTorch or transformers traces anew: what it changed there, a default type or an operator,
    is in no key. Where no cache can be, and where ``subject`` is None, it does without.
    """
    known = None if _library_is_loaded() else subject()
    if known is None:
        return trace()
    sources = sources_digest(_SOURCES)
    try:
        path = cache_folder(_KIND) / f"{trace_key(known, asked, sources)}.json.gz"
    except InputError:
        return trace()
    found = _read(path)
    if found is None:
        found = trace()
        # Of a file that was edited or removed meanwhile nobody knows which text was read.
        with contextlib.suppress(InputError):
            if (subject(), sources_digest(_SOURCES)) == (known, sources):
                _keep(path, found)
    return found


def _library_is_loaded() -> bool:
    return not {"torch", "transformers"}.isdisjoint(sys.modules)


def trace_key(subject: Subject, asked: Mapping[str, object], sources: str) -> str:
    """Digest of all that a trace depends on: ``subject``, what was ``asked``, the digest of our ``sources``, Python,
    what is installed."""
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith(_SETTINGS))
    parts = (subject, sorted(asked.items()), sources, sys.version, _installed(), settings)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _installed() -> list[str]:
    """Names and versions of all packages, as the folders that describe them are called.

    Besides its own version, what else it finds decides what transformers builds.
    """
    found: set[str] = set()
    for place in sys.path:
        with contextlib.suppress(OSError):
            found.update(path.name for path in Path(place).iterdir() if path.suffix in (".dist-info", ".egg-info"))
    if not any(name.lower().startswith("torch-") for name in found):
        raise InputError("torch is installed in a way that does not tell its version")
    return sorted(found)


def _read(path: Path) -> Workload | None:
    """The entry, None if there is none or it is damaged; it counts as the newest from now on."""
    try:
        found = loads_workload(gzip.decompress(read_file(path)), str(path))
    except (InputError, OSError, EOFError, zlib.error):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return found


def _keep(path: Path, workload: Workload) -> None:
    """Write an entry, and remove the oldest where there are too many; an InputError if it cannot be written."""
    write_atomically(path, gzip.compress(dumps_workload(workload), compresslevel=1, mtime=0))
    with contextlib.suppress(OSError):
        _remove_oldest(path.parent)


def _remove_oldest(folder: Path) -> None:
    entries = sorted(
        ((path.stat(), path) for path in folder.glob("*.json.gz")), key=lambda entry: (entry[0].st_mtime_ns, entry[1])
    )
    excess = sum(found.st_size for found, _ in entries) - MOST_BYTES
    for found, path in entries:
        if excess <= 0:
            return
        # Another process may have been first.
        path.unlink(missing_ok=True)
        excess -= found.st_size
