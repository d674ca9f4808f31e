"""Files written whole, locks, and caches that nobody else can fill: what is there before, after and meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from weft.workloads.errors import InputError
from weft.workloads.files import alone, cache_folder, is_private, locked, remove_parts, write_atomically

OTHER = 12345
"""A user who is not us."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- writing


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two" and names(path.parent) == {"file"}


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):

        def fail(_: int, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises((InputError, KeyboardInterrupt), match=r"No space left|^$"):
            write_atomically(path, b"two")
        assert path.read_bytes() == b"one" and names(tmp_path) == {"file"}


def test_a_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    """A part with a name to guess was: `.file.PID.part` -> the victim."""
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    (tmp_path / f".file.{os.getpid()}.part").symlink_to(victim)
    write_atomically(path, b"mine")
    assert victim.read_bytes() == b"precious"
    assert path.read_bytes() == b"mine" and not path.is_symlink()


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, said in (("pipe", "is no regular file"), ("folder", "is a folder")):
        with pytest.raises(InputError, match=said):
            write_atomically(tmp_path / name, b"")
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


def test_parts_of_killed_writers_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    killed = (
        "import os, sys; from pathlib import Path; from weft.workloads.files import write_atomically\n"
        "os.fsync = lambda _: {}\nwrite_atomically(Path(sys.argv[1]), b'half')"
    )
    subprocess.run([sys.executable, "-c", killed.format("os.kill(os.getpid(), 9)"), path], check=False)
    (left,) = names(tmp_path)
    assert left.startswith(".file.") and left.endswith(".part")
    (tmp_path / ".file.999.part").write_bytes(b"of version 0.1.0")
    (tmp_path / ".filet.0.part").write_bytes(b"of another file")
    waits = subprocess.Popen(
        [sys.executable, "-c", killed.format("(print(flush=True), sys.stdin.read())"), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert waits.stdout is not None
    waits.stdout.readline()
    (living,) = names(tmp_path) - {left, ".file.999.part", ".filet.0.part"}
    remove_parts(path)
    assert names(tmp_path) == {living, ".filet.0.part"}
    waits.communicate(b"")
    assert waits.returncode == 0 and path.read_bytes() == b"half"


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    """Each removes parts that nobody holds, while the others make theirs."""
    path = tmp_path / "file"
    failed: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(20):
                write_atomically(path, bytes([number]) * 1000)
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failed and names(tmp_path) == {"file"}
    assert len(set(path.read_bytes())) == 1 and len(path.read_bytes()) == 1000


# --- locks


def test_a_lock_is_there_only_while_it_is_held(tmp_path: Path) -> None:
    inside = 0

    def count() -> None:
        nonlocal inside
        for _ in range(50):
            with locked(tmp_path / "lock"):
                assert inside == 0
                inside += 1
                inside -= 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(tmp_path.iterdir())


def test_a_lock_follows_no_link_and_cuts_no_file(tmp_path: Path) -> None:
    """The victim behind it was truncated."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(InputError, match="cannot be written"), alone(tmp_path, "study"):
        pass
    (tmp_path / "lock").unlink()
    os.link(victim, tmp_path / "lock")
    with alone(tmp_path, "study"):
        pass
    assert victim.read_bytes() == b"precious"


def test_only_one_is_alone(tmp_path: Path) -> None:
    with alone(tmp_path / "new", "study"):
        with pytest.raises(InputError, match="another study is at work here"), alone(tmp_path / "new", "study"):
            pass
        with alone(tmp_path / "other", "study"):
            pass
    with alone(tmp_path / "new", "study"):
        pass


# --- caches


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077])
def test_a_cache_is_ours_alone_whatever_the_umask(cache: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        folder = cache_folder("things")
    finally:
        os.umask(before)
    assert folder == cache / "things" and stat.S_IMODE(folder.stat().st_mode) == 0o700 and is_private(folder)


def test_a_cache_that_others_could_write_to_is_closed(cache: Path) -> None:
    (cache / "things").mkdir(parents=True)
    (cache / "things").chmod(0o777)
    assert stat.S_IMODE(cache_folder("things").stat().st_mode) == 0o700


@as_root
def test_a_cache_of_somebody_else_is_not_used(cache: Path) -> None:
    (cache / "things").mkdir(parents=True)
    os.chown(cache / "things", OTHER, OTHER)
    with pytest.raises(InputError, match=rf"belongs to user {OTHER}.*WEFT_CACHE"):
        cache_folder("things")


def test_a_cache_that_is_a_link_or_a_file_is_not_used(cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    (cache / "linked").symlink_to(tmp_path)
    (cache / "file").write_text("")
    for kind in ("linked", "file"):
        with pytest.raises(InputError, match=r"is no folder.*WEFT_CACHE"):
            cache_folder(kind)


def test_a_cache_that_cannot_be_made_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(InputError, match=r"Not a directory; let WEFT_CACHE name another folder"):
        cache_folder("things")
    monkeypatch.delenv("WEFT_CACHE")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(InputError, match="no home to keep a cache in: let WEFT_CACHE name a folder"):
        cache_folder("things")


@as_root
def test_what_is_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    for mode, private in ((0o644, True), (0o600, True), (0o664, False), (0o646, False)):
        path.chmod(mode)
        assert is_private(path) == private
    path.chmod(0o600)
    os.chown(path, OTHER, OTHER)
    assert not is_private(path)
    (tmp_path / "link").symlink_to(path)
    assert not is_private(tmp_path / "link")
    assert is_private(tmp_path / "new" / "deep")
    tmp_path.chmod(0o777)
    assert not is_private(tmp_path / "new" / "deep")


@as_root
@pytest.mark.parametrize("how", ["named", "somebody else's", "open to all"])
def test_kernels_are_loaded_from_where_only_we_can_write(how: str, tmp_path: Path) -> None:
    """A kept kernel is a pickle."""
    place = tmp_path / "numba"
    place.mkdir(mode=0o700)
    if how == "open to all":
        place.chmod(0o777)
    if how == "somebody else's":
        os.chown(place, OTHER, OTHER)
    code = "from weft.workloads.compiled import use_private_cache; use_private_cache()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "NUMBA_CACHE_DIR": str(place)}, capture_output=True, text=True
    )
    if how == "named":
        assert done.returncode == 0, done.stderr
    else:
        assert "NUMBA_CACHE_DIR" in done.stderr and "is not ours alone" in done.stderr


def test_kernels_beside_a_source_that_is_not_ours_go_to_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weft.workloads import compiled

    monkeypatch.setattr(compiled.numba.config, "CACHE_DIR", "")
    assert compiled._choose() in ("", str(cache / "numba"))
    monkeypatch.setattr(compiled, "is_private", lambda _: False)
    assert compiled._choose() == str(cache / "numba")
