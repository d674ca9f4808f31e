"""The same tasks on many processes or machines, by Dask: its scheduler and its workers, none of our own.

A cluster runs whatever its clients send, so an address that is not of this host is taken only with TLS, whose
certificates Dask's own configuration names (``distributed.comm.tls``), or where the user says that it may be insecure.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from ..workloads.errors import InputError, shorten
from .executor import Executor, TasksLost, sources
from .lifeline import FOLDER

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["LOCAL", "cluster"]

T = TypeVar("T")

LOCAL = "local"
_AHEAD = 3
"""Tasks a worker's thread has at most: one that runs, and some that wait for it."""
_CONNECT, _PATIENCE = "10s", 10.0
_CERTIFICATES = ("distributed.comm.tls.ca-file", "distributed.comm.tls.client.cert", "distributed.comm.tls.client.key")
_START = 120.0
"""Seconds until a scheduler and a worker of this host must be there; a busy machine takes many."""
_TIDY = 5.0
"""Seconds that processes of ours have to end before they are killed."""
_RETRIES = 3
"""Of a task that raises, on whichever worker: one that is not as it should be does not end all."""
_LIFELINE = "weft.analysis.lifeline"


@dataclass(frozen=True, slots=True)
class _Dask:
    """Sends tasks as workers become free, so that what waits does not grow with their number."""

    client: Client
    address: str

    def each(self, do: Callable[[T], bytes], tasks: Sequence[T]) -> Iterator[tuple[T, bytes]]:
        """Task and result, in the order in which they come; those that kill their workers are raised after all."""
        call = _Checked(do, sources())
        suspects: list[T] = []
        killers: list[T] = []
        for task, made in self._tried(call, tasks):
            if made is None:
                suspects.append(task)
            else:
                yield task, made
        # Dask blames a death on all that the worker was to do. Tried one by one, nobody is blamed for another.
        for suspect in suspects:
            for task, made in self._tried(call, [suspect]):
                if made is None:
                    killers.append(task)
                else:
                    yield task, made
        if killers:
            raise TasksLost(
                f"{self.address}: workers died of it again and again; see whether they have memory enough. What is "
                "done is kept, and the same command goes on from there",
                killers,
            )

    def _tried(self, call: _Checked[T], tasks: Sequence[T]) -> Iterator[tuple[T, bytes | None]]:
        """Task and result; None where workers died at it."""
        from distributed import KilledWorker, as_completed

        rest, task_of = iter(tasks), dict[str, T]()

        def sent(task: T) -> Any:
            future = self.client.submit(call, task, pure=False, retries=_RETRIES)
            task_of[future.key] = task
            return future

        failure: BaseException | None = None
        with self._lost():
            first = [sent(task) for _, task in zip(range(self._places()), rest, strict=False)]
            waiting = as_completed(first, loop=self.client.loop)
            for future in waiting:
                failure = future.exception() if future.status == "error" else None
                if failure is not None and not isinstance(failure, KilledWorker):
                    break
                yield task_of.pop(future.key), None if failure is not None else future.result()
                failure = None
                for task in rest:
                    waiting.add(sent(task))
                    if waiting.count() >= self._places():
                        break
        if failure is not None:
            raise failure

    def _places(self) -> int:
        """As many as keep all workers there are at work; those that join later count from then on."""
        threads: int = sum(self.client.nthreads().values())
        return _AHEAD * max(1, threads)

    @contextmanager
    def _lost(self) -> Iterator[None]:
        """Say what is to be done where the scheduler is gone."""
        from concurrent.futures import CancelledError

        from distributed.comm.core import CommClosedError

        try:
            yield
        except (CancelledError, CommClosedError, OSError) as error:
            raise InputError(
                f"{self.address}: the scheduler is gone ({type(error).__name__}). What is done is kept, and the same "
                "command goes on from there"
            ) from None


@dataclass(frozen=True, slots=True)
class _Checked(Generic[T]):
    """A task that only a worker of the same sources does."""

    do: Callable[[T], bytes]
    sources: str

    def __call__(self, task: T) -> bytes:
        if sources() != self.sources:
            raise InputError(
                f"worker on {socket.gethostname()}: its weft is not in the same state as this one; install the same"
            )
        return self.do(task)


@contextmanager
def cluster(address: str, *, insecure: bool = False) -> Iterator[Executor]:
    """What does tasks at ``address``: ``local``, a scheduler and a worker a core on this host for as long as it takes;
    or a scheduler that runs, ``tcp://host:port`` or ``tls://host:port``.

    Refuses plain TCP off this host unless ``insecure``, and an address at which nobody answers.
    """
    if find_spec("distributed") is None:
        raise InputError("--cluster needs Dask: pip install 'weft[explore]'")
    if address != LOCAL:
        _require_address(address, insecure)
        with _client(address) as client:
            yield _Dask(client, address)
        return
    with _local() as made, _client(made) as client:
        try:
            client.wait_for_workers(1, timeout=_START)
        except TimeoutError:
            raise InputError(f"--cluster local: no worker within {_START:g} s") from None
        yield _Dask(client, "local cluster")


@contextmanager
def _client(address: str) -> Iterator[Client]:
    from distributed import Client

    # Dask tells of every connection that comes and goes, with tracebacks; what a user can do something about is raised.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(_nobody(address, error)) from None
    with _ended_by(client.close):
        yield client


@contextmanager
def _ended_by(end: Callable[[], object]) -> Iterator[None]:
    """``end`` after all; after Ctrl-C beside whatever comes next, since the command line is not to wait for it."""
    try:
        yield
    except KeyboardInterrupt:
        Thread(target=end, daemon=True).start()
        raise
    except BaseException:
        end()
        raise
    end()


@contextmanager
def _local() -> Iterator[str]:
    """Address of a scheduler with a worker a core, which end with this process at the latest."""
    from dask.system import CPU_COUNT

    host = ("--host", "127.0.0.1", "--no-dashboard")
    with TemporaryDirectory(prefix="weft-dask-", ignore_cleanup_errors=True) as folder, ExitStack() as held:
        log, file = Path(folder) / "log", Path(folder) / "scheduler.json"
        named = ("--port", "0", "--scheduler-file", str(file), "--preload", _LIFELINE)
        scheduler = held.enter_context(_process(log, "scheduler", *host, *named))
        limit = time.monotonic() + _START
        while (address := _address(file)) is None:
            if scheduler.poll() is not None or time.monotonic() > limit:
                said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                raise InputError(f"--cluster local: Dask's scheduler did not start: {shorten(said[-1], 200)}")
            time.sleep(0.05)
        ours = ("--local-directory", folder, "--death-timeout", f"{_START:g}", "--preload-nanny", _LIFELINE)
        workers = ("--nworkers", str(CPU_COUNT), "--nthreads", "1", "--scheduler-file", str(file))
        nannies = held.enter_context(_process(log, "worker", *host, *workers, *ours))
        # Without workers tasks would wait for ever; without a scheduler they are given up.
        Thread(target=_end_after, args=(nannies, scheduler), daemon=True).start()
        yield address


def _address(file: Path) -> str | None:
    """Where a scheduler is to be reached, once it has written it."""
    try:
        found: str = json.loads(file.read_text())["address"]
    except (OSError, ValueError):
        return None
    return found


@contextmanager
def _process(log: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask's, and all that it starts, until they are let go."""
    with log.open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *args],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env={**os.environ, FOLDER: str(log.parent), "TMPDIR": str(log.parent)},
            # Ctrl-C at a terminal is for us alone, who lets go of them.
            start_new_session=True,
        )
    with _ended_by(partial(_end, process)):
        yield process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let go, and see that its group is gone."""
    _let_go(process)
    limit = time.monotonic() + _TIDY
    with suppress(ProcessLookupError):
        while time.monotonic() < limit:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_after(first: subprocess.Popen[bytes], then: subprocess.Popen[bytes]) -> None:
    first.wait()
    _let_go(then)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def _nobody(address: str, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"--cluster {address}: nobody answers ({first}); start `dask scheduler` and `dask worker` there, or use "
        "--cluster local"
    )


def _require_address(address: str, insecure: bool) -> None:
    """Refuse an address that is none, that is not safe, or at which no port is open: Dask's client would go on trying
    after it has failed."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("tcp", "tls") or not host or port is None:
        raise InputError(f"--cluster {address!r} is no address; give local, tcp://host:port or tls://host:port")
    if parts.scheme == "tcp" and not insecure and not _loopback(host):
        raise InputError(
            f"--cluster {address}: {host} is not this host, and plain TCP lets whoever reads it run code on workers; "
            "use tls://, or --insecure on a network of your own"
        )

    if parts.scheme == "tls":
        from dask import config

        missing = [key for key in _CERTIFICATES if not config.get(key, None)]
        if missing:
            raise InputError(
                f"--cluster {address}: TLS takes certificates, and Dask's configuration has no {missing[0]}; set "
                f"{_variable(missing[0])} (docs/explore.md)"
            )
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except OSError as error:
        raise InputError(_nobody(address, error)) from None


def _variable(key: str) -> str:
    """The environment variable of a key of Dask's configuration."""
    return "DASK_" + key.replace(".", "__").replace("-", "_").upper()


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
