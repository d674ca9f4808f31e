"""The same tasks on many processes or machines, by Dask: its scheduler and its workers, none of our own.

A cluster runs whatever its clients send, so an address that is not of this host is taken only with TLS, whose
certificates Dask's own configuration names (``distributed.comm.tls``), or where the user says that it may be insecure.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...workloads.errors import InputError
from .parts import Executor
from .sweep import sources

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["LOCAL", "cluster"]

LOCAL = "local"
_AHEAD = 3
"""Tasks a worker's thread has at most: one that runs, and some that wait for it."""
_CONNECT, _PATIENCE = "10s", 10.0
_CERTIFICATES = ("distributed.comm.tls.ca-file", "distributed.comm.tls.client.cert", "distributed.comm.tls.client.key")
_GONE = "30s"
"""After which a scheduler without a client, and workers without a scheduler, end themselves."""
_DEATHS = 3
"""Workers that may die at a task before it is taken for their killer."""


@dataclass(frozen=True, slots=True)
class _Dask:
    """Sends tasks as workers become free, so that what waits does not grow with their number."""

    client: Client
    address: str

    def each(self, do: Callable[[int], bytes], tasks: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Task and result, in the order in which they come."""
        from distributed import as_completed

        rest, task_of = iter(tasks), dict[str, int]()
        call = _Checked(do, sources())

        def sent(task: int) -> Any:
            future = self.client.submit(call, task, pure=False, retries=_DEATHS)
            task_of[future.key] = task
            return future

        with self._lost():
            first = [sent(task) for _, task in zip(range(self._places()), rest, strict=False)]
            waiting = as_completed(first, loop=self.client.loop)
            for future in waiting:
                made = future.result()
                yield task_of.pop(future.key), made
                for task in rest:
                    waiting.add(sent(task))
                    if waiting.count() >= self._places():
                        break

    def _places(self) -> int:
        """As many as keep all workers there are at work; those that join later count from then on."""
        threads: int = sum(self.client.nthreads().values())
        return _AHEAD * max(1, threads)

    @contextmanager
    def _lost(self) -> Iterator[None]:
        """Say what is to be done where the scheduler is gone, or workers die of a task."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            yield
        except KilledWorker as error:
            raise InputError(
                f"{self.address}: {_DEATHS + 1} workers died at the same points ({error.last_worker.address} last); "
                "see whether they have memory enough. What is done is kept, and the same command goes on from there"
            ) from None
        except (CancelledError, CommClosedError, OSError) as error:
            raise InputError(
                f"{self.address}: the scheduler is gone ({type(error).__name__}). What is done is kept, and the same "
                "command goes on from there"
            ) from None


@dataclass(frozen=True, slots=True)
class _Checked:
    """A task that only a worker of the same sources does."""

    do: Callable[[int], bytes]
    sources: str

    def __call__(self, task: int) -> bytes:
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
    from distributed import Client

    if address == LOCAL:
        with _local() as made, Client(made) as client:
            yield _Dask(client, "local cluster")
        return
    try:
        client = Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(_nobody(address, error)) from None
    with client:
        yield _Dask(client, address)


@contextmanager
def _local() -> Iterator[Any]:
    from dask.system import CPU_COUNT
    from distributed.deploy.subprocess import SubprocessCluster

    with SubprocessCluster(
        n_workers=CPU_COUNT,
        threads_per_worker=1,
        dashboard_address=None,
        scheduler_kwargs={"idle_timeout": _GONE},
        worker_kwargs={"death_timeout": _GONE, "dashboard": False},
    ) as made:
        yield made


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
