"""The same sweep on Dask: equal to one process, whoever dies; with TLS; and addresses that are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client

from weft.analysis.explore import plan
from weft.analysis.explore.cluster import cluster
from weft.analysis.explore.sweep import sweep
from weft.workloads.errors import InputError

from .spaces import held, space

TLS = Path(__file__).parent / "tls"
"""A key and a certificate of its own, made by `openssl req -x509 -newkey ec -nodes -days 36500` for these tests."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_CHUNK", 6)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("here", "is no address; give local, tcp://host:port or tls://host:port"),
        ("tcp://127.0.0.1", "is no address"),
        ("tcp://127.0.0.1:99999", "is no address"),
        ("http://127.0.0.1:80", "is no address"),
        ("tcp://192.0.2.1:8786", "192.0.2.1 is not this host, and plain TCP"),
        ("tcp://cluster.example:8786", "cluster.example is not this host"),
        ("tcp://127.0.0.1:1", "nobody answers"),
        ("tls://127.0.0.1:1", "TLS takes certificates, and Dask's configuration has no distributed.comm.tls.ca-file"),
    ],
)
def test_addresses_that_are_refused(address, said):
    with pytest.raises(InputError) as refused, cluster(address):
        pass

    assert said in str(refused.value)


@contextmanager
def started(*args: str, environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask's."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *args],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        for one in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            one.kill()
        process.kill()
        process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def scheduler(port: int, *args: str, **how: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    import socket

    with started("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", *args, **how) as process:
        for _ in range(600):
            with socket.socket() as one:
                if not one.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        yield process


def worker(address: str, **how: Mapping[str, str]):
    return started("worker", address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60", **how)


@pytest.mark.slow
def test_a_local_cluster_and_one_process_make_the_same_bytes(tmp_path):
    for number, given in enumerate([space(tmp_path), space(tmp_path, prune=True)]):
        sweep(given, tmp_path / f"one{number}")
        with cluster("local") as executor:
            sweep(given, tmp_path / f"many{number}", executor)

        assert held(tmp_path / f"many{number}") == held(tmp_path / f"one{number}")


@pytest.mark.slow
def test_workers_that_are_killed_and_join_change_nothing(tmp_path):
    """One of two workers is killed every quarter of a second; its nanny starts another."""
    given, port = space(tmp_path), free_port()
    sweep(given, tmp_path / "one")
    address = f"tcp://127.0.0.1:{port}"
    with (
        scheduler(port),
        worker(address) as first,
        worker(address) as second,
        dask.config.set({"distributed.scheduler.allowed-failures": 1000}),
    ):
        kills, over = 0, threading.Event()

        def kill() -> None:
            nonlocal kills
            while not over.wait(0.25):
                for nanny in (first, second)[kills % 2 :]:
                    children = psutil.Process(nanny.pid).children(recursive=True)
                    if children:
                        with_most = max(children, key=lambda one: one.pid)
                        os.kill(with_most.pid, signal.SIGKILL)
                        kills += 1
                        break

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            number = 0
            while kills < 20:
                with cluster(address) as executor:
                    try:
                        sweep(given, tmp_path / str(number), executor)
                    except InputError as error:
                        assert "workers died at the same points" in str(error)
                        continue
                assert held(tmp_path / str(number)) == held(tmp_path / "one")
                number += 1
        finally:
            over.set()
            thread.join()
    assert number >= 1


@pytest.mark.slow
def test_a_scheduler_that_is_killed_is_said_and_the_sweep_goes_on_with_another(tmp_path):
    given, folder = space(tmp_path), tmp_path / "out"
    sweep(given, tmp_path / "one")
    for kill in range(4):
        port = free_port()
        address = f"tcp://127.0.0.1:{port}"
        with scheduler(port) as process, worker(address), cluster(address) as executor:
            done = 0

            def tell(what: str, parts: int, total: int, process=process, kill=kill) -> None:
                nonlocal done
                done += 1
                if done == 3 and kill < 3:
                    process.kill()

            if kill < 3:
                with pytest.raises(InputError, match="the scheduler is gone"):
                    sweep(given, folder, executor, tell)
            else:
                sweep(given, folder, executor, tell)

    assert held(folder) == held(tmp_path / "one")


@pytest.mark.slow
def test_tls(tmp_path):
    given, port = space(tmp_path), free_port()
    sweep(given, tmp_path / "one")
    keys = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(TLS / "cert.pem")}
    for who in ("SCHEDULER", "WORKER", "CLIENT"):
        keys[f"DASK_DISTRIBUTED__COMM__TLS__{who}__CERT"] = str(TLS / "cert.pem")
        keys[f"DASK_DISTRIBUTED__COMM__TLS__{who}__KEY"] = str(TLS / "key.pem")
    address = f"tls://127.0.0.1:{port}"
    config = dask.config.collect(paths=[], env=keys)
    with scheduler(port, "--protocol", "tls", environment=keys), worker(address, environment=keys):
        with dask.config.set(config), cluster(address) as executor:
            sweep(given, tmp_path / "many", executor)
        # Without a certificate nobody is let in.
        with pytest.raises(OSError):
            Client(f"tcp://127.0.0.1:{port}", timeout="3s")

    assert held(tmp_path / "many") == held(tmp_path / "one")
