"""Results put into a folder: all or none wherever it crashes, the user's files untouched, leftovers brought home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis import publish as module
from weft.analysis.publish import MANIFEST, manifest_of, publish, read_published, require_free, settle
from weft.workloads.errors import InputError

OTHER = 12345
FIRST = {"a": b"first a", "b": b"first b", "sub/c": b"first c"}
SECOND = {"a": b"second a", "sub/c": b"second c", "sub/d": b"second d", "e": b"second e"}


def held(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the manifest, hidden ones too."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop(MANIFEST, None)
    return found


def test_results_replace_those_of_their_kind_and_nothing_else(tmp_path: Path) -> None:
    publish(tmp_path, "run", FIRST)
    publish(tmp_path, "study", {"s": b"study"})
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "sub" / "mine").write_bytes(b"mine too")
    publish(tmp_path, "run", SECOND)
    theirs = {"mine": b"mine", "sub/mine": b"mine too"}
    assert held(tmp_path) == {**SECOND, **theirs, "s": b"study"}
    publish(tmp_path, "run", {"a": b"third"})
    assert held(tmp_path) == {**theirs, "a": b"third", "s": b"study"}
    assert read_published(tmp_path, "run", ["a", "b"]) == {"a": b"third"}


def test_a_file_that_was_changed_since_is_not_removed(tmp_path: Path) -> None:
    publish(tmp_path, "run", FIRST)
    (tmp_path / "b").write_bytes(b"with my notes")
    publish(tmp_path, "run", SECOND)
    assert held(tmp_path) == {**SECOND, "b": b"with my notes"}


def test_a_file_of_the_user_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    for refused in (lambda: publish(tmp_path, "run", FIRST), lambda: require_free(tmp_path, FIRST)):
        with pytest.raises(InputError, match=r"/a: was not written by weft and would be replaced; move it away"):
            refused()
    publish(tmp_path, "run", {"b": b""})
    with pytest.raises(InputError, match=r"/a: was not written by weft"):
        publish(tmp_path, "run", FIRST)
    assert held(tmp_path) == {"a": b"mine", "b": b""}


class CrashError(BaseException):
    pass


def crashing(patch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Fail before the ``at``-th rename, and report all."""
    done: list[str] = []
    rename, replace = Path.rename, Path.replace

    def counted(self: Path, target: Path) -> Path:
        done.append(self.name)
        if len(done) == at:
            raise CrashError
        return (rename if self.name.endswith(".part") else replace)(self, target)

    patch.setattr(Path, "rename", counted)
    patch.setattr(Path, "replace", counted)
    # A process that is killed tidies nothing.
    patch.setattr(module.shutil, "rmtree", lambda *args, **kwargs: None)
    return done


@pytest.mark.parametrize("at", range(1, 8))
def test_killed_at_every_rename_the_next_one_finds_one_or_the_other(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "run", FIRST)
    (tmp_path / "mine").write_bytes(b"mine")
    with monkeypatch.context() as patch:
        done = crashing(patch, at)
        if at <= 6:
            with pytest.raises(CrashError):
                publish(tmp_path, "run", SECOND)
        else:
            publish(tmp_path, "run", SECOND)
            assert len(done) == 6
    expected = FIRST if at == 1 else SECOND
    assert read_published(tmp_path, "run", {**FIRST, **SECOND}) == expected
    publish(tmp_path, "study", {"s": b""})
    assert held(tmp_path) == {**expected, "mine": b"mine", "s": b""}


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "s/a", "s/b"]), st.binary(max_size=3)), max_size=4))
def test_a_folder_holds_what_was_published_last(tmp_path_factory: pytest.TempPathFactory, results: list) -> None:
    folder = tmp_path_factory.mktemp("published")
    for files in results:
        publish(folder, "run", files)
        assert held(folder) == files
        assert (folder / MANIFEST).read_bytes() == manifest_of("run", files)


def test_a_mix_of_two_runs_is_refused_and_so_is_a_changed_file(tmp_path: Path) -> None:
    publish(tmp_path, "run", FIRST)
    (tmp_path / "a").write_bytes(SECOND["a"])
    with pytest.raises(InputError, match=r"/a: is not the file that manifest.json beside it was written with"):
        read_published(tmp_path, "run", FIRST)
    assert read_published(tmp_path, "run", ["b"]) == {"b": FIRST["b"]}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"files": {"run": {"../victim": "0"}}}', '{"files": {"run": {"/v": "0"}}}']
)
def test_a_manifest_that_is_none(text: str, tmp_path: Path) -> None:
    """One from elsewhere must not have files beside the folder removed."""
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=r"manifest.json: is no manifest of weft; delete it"):
        publish(tmp_path / "out", "run", FIRST)
    assert (tmp_path / "victim").exists()


def test_a_folder_that_cannot_be_renamed_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a mount point, which says "Device or resource busy"."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("rename", "replace"):
        real = getattr(Path, name)

        def busy(self: Path, target: Path, real=real) -> Path:
            if out in (self, target):
                raise OSError(16, "Device or resource busy")
            return real(self, target)

        monkeypatch.setattr(Path, name, busy)
    publish(out, "run", FIRST)
    publish(out, "run", SECOND)
    assert held(out) == SECOND and [path.name for path in tmp_path.iterdir()] == ["out"]


def mounted(code: str, place: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run Python where ``place`` is a file system of its own."""
    script = 'mount -t tmpfs none "$0" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, str(place), sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() or mounted("", tmp_path_factory.mktemp("mounts")).returncode:
        pytest.skip("only root can mount, and not everywhere")


@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize("where", [".", "sub"])
def test_a_mount_point_is_written(where: str, tmp_path: Path) -> None:
    """The folder itself, or one below it, where a rename from the folder above is refused."""
    (tmp_path / "sub").mkdir()
    code = (
        "import sys; from pathlib import Path; from weft.analysis.publish import *\n"
        f"for files in ({FIRST!r}, {SECOND!r}):\n"
        "    publish(Path(sys.argv[1]), 'run', files)\n"
        "    assert read_published(Path(sys.argv[1]), 'run', files) == files\n"
    )
    done = mounted(code, tmp_path / where, tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_waits_in_a_folder_of_another_user_is_not_put_in_place(tmp_path: Path) -> None:
    ready = tmp_path / ".weft.ready"
    ready.mkdir()
    (ready / "a").write_bytes(b"planted")
    (ready / MANIFEST).write_bytes(manifest_of("run", {"a": b"planted"}))
    if os.geteuid():
        pytest.skip("only root can make files of other users")
    os.chown(ready, OTHER, OTHER)
    with pytest.raises(InputError, match=r"\.weft\.ready: is not ours; its owner finishes"):
        publish(tmp_path, "run", FIRST)
    (tmp_path / "out").mkdir()
    publish(tmp_path / "out", "run", FIRST)
    assert not (tmp_path / "a").exists()


# --- what version 0.1.0 left when it was killed


GONE = 2**22 + 1
"""More than the largest process id of Linux."""


def old(tmp_path: Path, ending: str, **files: str) -> Path:
    left = tmp_path / f".out.{GONE}.{ending}"
    left.mkdir()
    for name, text in files.items():
        (left / name.replace("_", ".")).write_text(text)
    return left


RESULT = json.dumps({"weft_version": "0.1.0"})


def test_a_folder_that_was_moved_away_comes_back(tmp_path: Path) -> None:
    """Killed between its two renames: everything, the user's files too, lay in `.out.PID.old`."""
    old(tmp_path, "old", result_json=RESULT, notes_txt="mine")
    old(tmp_path, "part", result_json=RESULT, ops_csv="")
    settle(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert held(tmp_path / "out") == {"result.json": RESULT.encode(), "notes.txt": b"mine"}


def test_files_that_were_not_moved_back_are(tmp_path: Path) -> None:
    left = old(tmp_path, "old", result_json=RESULT, notes_txt="mine")
    (left / "more").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("new")
    require_free(tmp_path / "out", ["x"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert held(tmp_path / "out") == {"result.json": b"new", "notes.txt": b"mine"}
    assert (tmp_path / "out" / "more").is_dir()


def test_what_cannot_be_moved_back_is_named(tmp_path: Path) -> None:
    left = old(tmp_path, "old", result_json=RESULT, notes_txt="mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("newer")
    with pytest.raises(InputError, match=rf"\.out\.{GONE}\.old: holds files of yours.*notes\.txt is there too"):
        publish(tmp_path / "out", "run", FIRST)
    assert (left / "notes.txt").read_text() == "mine" and (tmp_path / "out" / "notes.txt").read_text() == "newer"


def test_what_is_not_of_weft_or_of_a_living_process_stays(tmp_path: Path) -> None:
    theirs = old(tmp_path, "old", thesis_tex="mine")
    living = tmp_path / f".out.{os.getpid()}.part"
    living.mkdir()
    settle(tmp_path / "out")
    assert theirs.is_dir() and living.is_dir() and not (tmp_path / "out").exists()
