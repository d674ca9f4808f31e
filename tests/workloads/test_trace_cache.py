"""Traces on disk: equal to those made anew, of nothing but what was asked, and never in the way."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from weft.workloads import trace_cache
from weft.workloads.catalog import open_model, trace_module
from weft.workloads.errors import InputError
from weft.workloads.io import dumps_workload
from weft.workloads.models import zoo
from weft.workloads.step import Workload
from weft.workloads.trace_cache import built_in, configuration, kept_trace, trace_key

from .test_catalog import BERT

ASKED = {"batch": 2, "seq": None, "optimizer": "sgd", "recompute": (), "freeze": (), "attention": "full"}
SUBJECT = ("built-in", "resnet9", "32")
SMALL = {"resnet9@8", "tfc", "snn"}


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where traces are kept, as in a process that has not loaded PyTorch."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trace_cache, "_library_is_loaded", lambda: False)
    return tmp_path / "cache" / "traces"


@pytest.fixture(scope="module")
def step() -> Workload:
    return trace_module(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(4, 16))


def refuse() -> Workload:
    raise AssertionError("was traced again")


def refuse_to_look() -> trace_cache.Subject:
    raise AssertionError("was looked for")


def keep(step: Workload, **changed: object) -> Path:
    """The entry of ``step``, written."""
    assert kept_trace(lambda: SUBJECT, {**ASKED, **changed}, lambda: step) is step
    return newest(trace_cache.cache_folder("traces"))


def newest(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


# --- what comes back


@pytest.mark.parametrize(
    "name", [*sorted(SMALL), *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(set(zoo.names()) - SMALL))]
)
def test_a_model_of_the_zoo_comes_back_as_it_was_traced(
    name: str, traces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = open_model(name, optimizer="adam")
    monkeypatch.setattr("weft.workloads.catalog._trace", lambda *_: refuse())
    kept = open_model(name, optimizer="adam")
    assert kept is not fresh and kept == fresh
    assert repr(kept) == repr(fresh), "a number of another type is equal too"
    with pytest.raises(AssertionError, match="traced again"):
        open_model(name, optimizer="sgd")


def test_a_configuration_comes_back_by_its_content(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    for name in ("one", "other"):
        (tmp_path / name / "config.json").write_text(json.dumps(BERT))
    fresh = open_model(str(tmp_path / "one"), batch=2, seq=8)
    with monkeypatch.context() as patched:
        patched.setattr("weft.workloads.catalog._trace", lambda *_: refuse())
        assert open_model(str(tmp_path / "other" / "config.json"), batch=2, seq=8) == fresh
    (tmp_path / "one" / "config.json").write_text(json.dumps({**BERT, "hidden_size": 32}))
    assert open_model(str(tmp_path / "one"), batch=2, seq=8).parameters > fresh.parameters


def test_what_is_wrong_is_wrong_again(traces: Path) -> None:
    open_model("snn", batch=1)
    for _ in range(2):
        with pytest.raises(InputError, match="batch must be an integer"):
            open_model("snn", batch=True)
        with pytest.raises(InputError, match="no parameter matches 'nothing'"):
            open_model("snn", batch=1, freeze=["nothing"])
    assert len(list(traces.iterdir())) == 1


# --- what is asked for


@pytest.mark.parametrize(
    "changed",
    [
        {"batch": 3},
        {"batch": None},
        {"batch": True},
        {"seq": 2},
        {"optimizer": "adam"},
        {"recompute": ("layer1",)},
        {"freeze": ("layer1",)},
        {"freeze": ("layer", "1")},
        {"attention": "window"},
    ],
)
def test_another_request_has_another_key(changed: dict[str, object]) -> None:
    assert trace_key(SUBJECT, {**ASKED, **changed}, "s") != trace_key(SUBJECT, ASKED, "s")


def test_another_model_has_another_key(tmp_path: Path) -> None:
    assert built_in("resnet9") == built_in("resnet9@32")
    names = [*zoo.names(), "resnet9@64", "resnet9@8"]
    one, other, named = (tmp_path / name for name in ("config.json", "wide/config.json", "mine.json"))
    other.parent.mkdir()
    for path in (one, named):
        path.write_text(json.dumps(BERT))
    other.write_text(json.dumps({**BERT, "hidden_size": 32}))
    subjects = [*map(built_in, names), *map(configuration, (one, other, named))]
    keys = {trace_key(subject, ASKED, "s") for subject in subjects if subject is not None}
    assert len(keys) == len(names) + 3


def versions(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> str:
    for path in folder.iterdir():
        path.rmdir()
    for name in names:
        (folder / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), str(folder / "not there"), str(folder.parent / "some.zip")])
    return trace_key(SUBJECT, ASKED, "s")


def test_other_versions_have_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "some.zip").write_text("")
    key = partial(versions, tmp_path / "site", monkeypatch)
    torch_, library = "torch-2.13.0.dist-info", "transformers-5.0.0.dist-info"
    before = key(torch_, library)
    assert key(torch_, library, "torch", "module.py") == before
    keys = [before, key("torch-2.14.0.dist-info", library), key(torch_, "transformers-5.1.0.dist-info"), key(torch_)]
    keys += [key(torch_, library, "timm-1.0.dist-info"), trace_key(SUBJECT, ASKED, "other sources")]
    key(torch_, library)
    monkeypatch.setattr(sys, "version", "4.0.0 (main)")
    keys.append(trace_key(SUBJECT, ASKED, "s"))
    for name in ("PYTORCH_ROCM_ARCH", "TORCH_LOGS", "USE_HUB_KERNELS"):
        monkeypatch.setenv(name, "1")
        keys.append(trace_key(SUBJECT, ASKED, "s"))
    assert len(set(keys)) == len(keys)


def test_without_the_version_of_torch_nothing_is_kept(
    traces: Path, tmp_path: Path, step: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="does not tell its version"):
        versions(tmp_path, monkeypatch, "transformers-5.0.0.dist-info")
    assert kept_trace(lambda: SUBJECT, ASKED, lambda: step) is step
    assert not list(traces.iterdir())


def test_sources_that_changed_meanwhile_are_those_of_no_trace(
    traces: Path, step: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = iter(["one", "other"])
    monkeypatch.setattr(trace_cache, "sources_digest", lambda _: next(digests))
    assert kept_trace(lambda: SUBJECT, ASKED, lambda: step) is step
    subjects = iter([SUBJECT, ("built-in", "resnet9", "64")])
    monkeypatch.setattr(trace_cache, "sources_digest", lambda _: "one")
    assert kept_trace(lambda: next(subjects), ASKED, lambda: step) is step
    assert not list(traces.iterdir())


def test_a_configuration_that_is_gone_meanwhile_was_traced_all_the_same(
    traces: Path, tmp_path: Path, step: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(BERT))

    def trace(*_: object) -> Workload:
        file.unlink()
        return step

    monkeypatch.setattr("weft.workloads.catalog._trace", trace)
    assert open_model(str(file)) is step
    assert not list(traces.iterdir())


# --- what is not kept


def test_what_a_file_of_ones_own_imports_is_not_known(traces: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from torch import nn\ndef small():\n    return nn.Linear(8, 4)\n")
    assert open_model(f"{file}:small", input_shape=(8,)).parameters == 36
    file.write_text("from torch import nn\ndef small():\n    return nn.Linear(8, 8)\n")
    assert open_model(f"{file}:small", input_shape=(8,)).parameters == 72
    assert not traces.exists()


def test_a_configuration_that_does_not_say_it_all_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text, kept in (
        ('{"backbone": null, "backbone_config": {"model_type": "resnet"}}', True),
        ('{"backbone": "resnet50"}', False),
        ('{"inner": [{"\\u0062ackbone": "./folder"}]}', False),
        ('{"backbone": ', False),
        ("[" * 100_000, False),
    ):
        path.write_text(text)
        assert (configuration(path) is not None) == kept
    assert configuration(tmp_path / "none.json") is None


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_a_process_with_pytorch_traces_anew(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed in it is in no key."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    for name in ("torch", "transformers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert not trace_cache._library_is_loaded()
    monkeypatch.setitem(sys.modules, library, ModuleType(library))
    with pytest.raises(AssertionError, match="traced again"):
        kept_trace(refuse_to_look, ASKED, refuse)
    assert not list(tmp_path.iterdir())


# --- damage, limits, company


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    return bytes([*data[: len(data) // 2], data[len(data) // 2] ^ 8, *data[len(data) // 2 + 1 :]])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "the first byte": lambda data: data[:1],
    "cut in half": cut,
    "its checksum is missing": lambda data: data[:-8],
    "a bit of it": flip,
    "something behind": lambda data: data + b"more",
    "not packed": gzip.decompress,
    "packed, and cut before": lambda data: gzip.compress(cut(gzip.decompress(data))),
    "no workload": lambda _: gzip.compress(b"{}"),
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_entry_is_made_again(how: str, traces: Path, step: Workload) -> None:
    path = keep(step)
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[how](whole))
    assert kept_trace(lambda: SUBJECT, ASKED, lambda: step) is step
    assert path.read_bytes() == whole
    assert kept_trace(lambda: SUBJECT, ASKED, refuse) == step


def test_what_is_no_file_is_left_alone(traces: Path, step: Workload) -> None:
    path = keep(step)
    path.unlink()
    path.mkdir()
    assert kept_trace(lambda: SUBJECT, ASKED, lambda: step) is step
    assert path.is_dir()


def test_without_a_place_it_goes_on_without(
    traces: Path, tmp_path: Path, step: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:

        def fail(_: int) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(os, "fsync", fail)
        assert kept_trace(lambda: SUBJECT, ASKED, lambda: step) is step
    assert not list(traces.iterdir())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "file" / "below"))
    assert kept_trace(lambda: SUBJECT, ASKED, lambda: step) is step


def test_the_oldest_go_when_there_are_too_many(traces: Path, step: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = []
    for batch in range(3):
        path = keep(step, batch=batch)
        os.utime(path, (batch, batch))
        entries.append(path)
    (traces / "other").write_bytes(bytes(10_000))
    assert kept_trace(lambda: SUBJECT, {**ASKED, "batch": 0}, refuse) == step
    monkeypatch.setattr(trace_cache, "MOST_BYTES", 3 * entries[0].stat().st_size)
    last = keep(step, batch=3)
    assert {path.name for path in traces.iterdir()} == {entries[0].name, entries[2].name, last.name, "other"}


RUN = (
    "import sys, weft; from weft.workloads.io import dumps_workload; door = set(sys.modules);"
    "step = weft.trace('resnet9@8', batch=2);"
    "ours = [m for m in sys.modules if m.startswith('weft.') and not m.startswith('weft.workloads') and m not in door];"
    "print([m for m in ('torch', 'transformers', 'onnx', 'numba') if m in sys.modules], ours);"
    "sys.stdout.flush(); sys.stdout.buffer.write(dumps_workload(step))"
)


def test_only_the_first_process_loads_pytorch_and_none_transformers(tmp_path: Path) -> None:
    """Two at once, and one after them. Beside the front door nothing but workloads/, whose digest is in the key, has a
    part in it."""
    command, place = [sys.executable, "-c", RUN], {**os.environ, "WEFT_CACHE": str(tmp_path)}
    both = [subprocess.Popen(command, env=place, stdout=subprocess.PIPE) for _ in range(2)]
    first, second = (process.communicate()[0] for process in both)
    third = subprocess.run(command, env=place, stdout=subprocess.PIPE, check=True).stdout
    imported, _, text = first.partition(b"\n")
    assert imported == b"['torch'] []" and second == first
    assert third.partition(b"\n") == (b"[] []", b"\n", text)
    assert len(list((tmp_path / "traces").iterdir())) == 1
    assert text == dumps_workload(open_model("resnet9@8", batch=2))
