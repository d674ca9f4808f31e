"""The same sweep and the same trainings on Dask: equal to one process, whoever dies; with TLS; refused addresses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import dask
import psutil
import pytest

from weft.analysis import trainings as trainings_module
from weft.analysis.cluster import cluster
from weft.analysis.executor import Serial, TasksLost
from weft.analysis.explore import plan
from weft.analysis.explore.space import space_json
from weft.analysis.explore.sweep import sweep
from weft.analysis.trainings import Planned, Training, planned, run_trainings
from weft.cli import main
from weft.workloads.errors import InputError

from .explore.spaces import held, space

T = TypeVar("T")
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
    """A nanny and its worker, which it starts again whenever it dies."""
    return started("worker", address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60", **how)


@pytest.mark.slow
def test_a_local_cluster_and_one_process_make_the_same_bytes(tmp_path):
    for number, given in enumerate([space(tmp_path), space(tmp_path, prune=True)]):
        sweep(given, tmp_path / f"one{number}")
        with cluster("local") as executor:
            sweep(given, tmp_path / f"many{number}", executor)

        assert held(tmp_path / f"many{number}") == held(tmp_path / f"one{number}")


def process_of(nanny: subprocess.Popen[bytes]) -> psutil.Process | None:
    """The worker of a nanny, if it is there and was not just killed."""
    for child in psutil.Process(nanny.pid).children():
        try:
            if "spawn_main" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                return child
        except psutil.NoSuchProcess:
            continue
    return None


FORGIVING = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000"}
KILLS = 8


@pytest.mark.slow
def test_workers_that_are_killed_and_join_change_nothing(tmp_path):
    """After a part of the sweep one of two workers is killed, if both are there; a third one comes in between."""
    given, port = space(tmp_path), free_port()
    sweep(given, tmp_path / "one")
    address, kills, number = f"tcp://127.0.0.1:{port}", 0, 0
    with (
        ExitStack() as late,
        scheduler(port, environment=FORGIVING),
        worker(address) as first,
        worker(address) as second,
    ):

        def tell(what: str, done: int, total: int) -> None:
            nonlocal kills
            workers = [process_of(nanny) for nanny in (first, second)]
            victim = workers[kills % 2]
            if kills < KILLS and all(workers) and victim is not None:
                victim.kill()
                kills += 1
                if kills == KILLS // 2:
                    late.enter_context(worker(address))

        while kills < KILLS:
            with cluster(address) as executor:
                sweep(given, tmp_path / str(number), executor, tell)

            assert held(tmp_path / str(number)) == held(tmp_path / "one")
            number += 1


def ends_its_worker(one: int) -> bytes:
    if one == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return bytes([one])


@pytest.mark.slow
def test_a_task_that_kills_its_workers_takes_no_other_with_it():
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    made: list[tuple[int, bytes]] = []
    once = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    lost = pytest.raises(TasksLost, match="workers died of it again and again")
    with scheduler(port, environment=once), worker(address), cluster(address) as executor, lost as said:
        for one in executor.each(ends_its_worker, range(8)):
            made.append(one)

    assert said.value.tasks == (3,)
    assert sorted(made) == [(task, bytes([task])) for task in range(8) if task != 3]


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


def certificates() -> dict[str, str]:
    keys = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(TLS / "cert.pem")}
    for who in ("SCHEDULER", "WORKER", "CLIENT"):
        keys[f"DASK_DISTRIBUTED__COMM__TLS__{who}__CERT"] = str(TLS / "cert.pem")
        keys[f"DASK_DISTRIBUTED__COMM__TLS__{who}__KEY"] = str(TLS / "key.pem")
    return keys


@pytest.mark.slow
def test_tls(tmp_path):
    from distributed import Client

    given, port = space(tmp_path), free_port()
    sweep(given, tmp_path / "one")
    keys = certificates()
    address = f"tls://127.0.0.1:{port}"
    ours = {"ca-file": "cert.pem", "client.cert": "cert.pem", "client.key": "key.pem"}
    config = {f"distributed.comm.tls.{key}": str(TLS / name) for key, name in ours.items()}
    with scheduler(port, "--protocol", "tls", environment=keys), worker(address, environment=keys):
        with dask.config.set(config), cluster(address) as executor:
            sweep(given, tmp_path / "many", executor)
        # Without a certificate nobody is let in.
        with pytest.raises(OSError):
            Client(f"tcp://127.0.0.1:{port}", timeout="3s")

    assert held(tmp_path / "many") == held(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl-c", "kill", "nannies killed"])
def test_a_command_that_ends_leaves_no_process_and_goes_on(tmp_path, monkeypatch, how):
    monkeypatch.setattr(plan, "_CHUNK", 2)
    given, folder, file = space(tmp_path), tmp_path / "many", tmp_path / "space.py"
    sweep(given, tmp_path / "one")
    fields = json.loads(space_json(given))
    file.write_text(f"from weft.analysis.explore import plan\nplan._CHUNK = 2\ndef space(): return {fields!r}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "weft", "explore", str(file), "-o", str(folder), "--cluster", "local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Whoever runs the tests in the background has SIGINT ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    while process.poll() is None and not any((folder / "points").glob("*.parquet")):
        time.sleep(0.02)
    started = psutil.Process(process.pid).children(recursive=True)
    if how == "nannies killed":
        for one in started:
            if "worker" in one.cmdline():
                one.kill()
    else:
        process.send_signal(signal.SIGINT if how == "ctrl-c" else signal.SIGKILL)
    said, _ = process.communicate(timeout=60)

    assert len(started) >= 3
    assert not psutil.wait_procs(started, timeout=60)[1]
    assert (process.returncode, said.partition(" (")[0]) == {
        "ctrl-c": (130, f"Interrupted; the same command goes on from {folder}\n"),
        "kill": (-signal.SIGKILL, ""),
        "nannies killed": (2, "Error: local cluster: the scheduler is gone"),
    }[how]
    assert said.count("\n") <= 2
    assert 1 <= len(list((folder / "points").glob("*.parquet"))) < 72
    sweep(given, folder)
    assert held(folder) == held(tmp_path / "one")


def trainings() -> list[Planned]:
    from weft.workloads.training import plan as plan_training

    return planned(
        plan_training("mlp", scheme=name, epochs=1, seed=seed) for name in ("dense", "sdgp") for seed in (0, 1)
    )


@pytest.mark.slow
def test_trainings_of_a_cluster_are_those_of_this_host(tmp_path):
    """All but the seconds that they took."""
    plans = trainings()
    here = run_trainings(plans, tmp_path / "here", 1)
    with cluster("local") as executor:
        there = run_trainings(plans, tmp_path / "there", 1, executor=executor)
        told: list[tuple[int, int]] = []
        run_trainings(plans, tmp_path / "there", 1, lambda done, total: told.append((done, total)), executor=executor)

    assert told == [(4, 4)]
    assert [untimed(there[one.key]) for one in plans] == [untimed(here[one.key]) for one in plans]
    assert set(held(tmp_path / "there")) == {f"cells/{one.key}.json" for one in plans}


def untimed(one: Training | str) -> Training:
    assert isinstance(one, Training)
    return replace(one, seconds=0.0)


class Loses:
    """Does the first task, and loses the others."""

    def each(self, do: Callable[[T], bytes], tasks: Sequence[T]) -> Iterator[tuple[T, bytes]]:
        yield tasks[0], do(tasks[0])
        raise TasksLost("workers died", tasks[1:])


def test_trainings_that_fail_or_are_lost_are_said(tmp_path, monkeypatch):
    plans = trainings()[:3]
    monkeypatch.setattr(trainings_module, "_result", lambda *_: 1 / 0)

    found = run_trainings(plans, tmp_path, 1, executor=Loses())

    assert [found[one.key] for one in plans] == ["ZeroDivisionError: division by zero", "workers died", "workers died"]


@pytest.mark.parametrize(("other", "said"), [("data", "data differ from"), ("key", "PyTorch, NumPy or model differs")])
def test_a_worker_that_is_not_as_the_study_refuses(tmp_path, other, said):
    plan = replace(trainings()[0], **{"key": "0" * 32, other: "0" * 32})

    with pytest.raises(InputError, match=f"worker on .*{said}"):
        run_trainings([plan], tmp_path, 1, executor=Serial())


def test_jobs_and_a_cluster_are_not_one(capsys, tmp_path):
    asked = ["study", "-o", str(tmp_path)]

    assert main([*asked, "--jobs", "2", "--cluster", "local"]) == 2
    assert "--jobs is of processes here" in capsys.readouterr().err
    assert main([*asked, "--insecure"]) == 2
    assert "--insecure is of a cluster" in capsys.readouterr().err
    assert main([*asked, "--cluster", "tcp://192.0.2.1:8786"]) == 2
    assert "192.0.2.1 is not this host" in capsys.readouterr().err
