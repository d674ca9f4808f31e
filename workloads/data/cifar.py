"""CIFAR-10 and CIFAR-100, as they are handed out; a pickle is read without running what it names."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError, reading
from .images import BROUGHT_EVERY, ImageData, InMemory, file_bytes, in_memory, parted

__all__ = ["cifar10", "cifar100"]

Bytes = npt.NDArray[np.uint8]


def cifar10(root: Path) -> ImageData:
    """CIFAR-10 (A. Krizhevsky, 2009) in its Python or its binary form."""
    return _cifar(
        root,
        "cifar10",
        10,
        [f"data_batch_{i}" for i in range(1, 6)],
        ["test_batch"],
        folders=("cifar-10-batches-py", "cifar-10-batches-bin"),
        label_key="labels",
        label_bytes=1,
    )


def cifar100(root: Path) -> ImageData:
    """CIFAR-100 with its 100 fine labels, in its Python or its binary form."""
    return _cifar(
        root,
        "cifar100",
        100,
        ["train"],
        ["test"],
        folders=("cifar-100-python", "cifar-100-binary"),
        label_key="fine_labels",
        label_bytes=2,
    )


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

    def read(files: list[str]) -> InMemory:
        parts = [
            _records(found / f"{file}.bin", classes, label_bytes)
            if binary
            else _batch(found / file, classes, label_key)
            for file in files
        ]
        pixels, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
        return InMemory(torch.from_numpy(pixels.reshape(-1, 3, 32, 32)), torch.from_numpy(labels.astype(np.int64)))

    inside = next((root / folder for folder in folders if (root / folder).is_dir()), root)
    binary = (inside / f"{train[0]}.bin").is_file()
    found = inside
    return in_memory(name, classes, *parted(read(train), BROUGHT_EVERY), read(test), pad=4, flip=True)


def _records(path: Path, classes: int, label_bytes: int) -> tuple[Bytes, Bytes]:
    """Pixels and labels of a binary file: records of ``label_bytes``, the last of which counts, and 3,072 pixels."""
    size = label_bytes + 3072
    expected = f"CIFAR's binary form, records of {size} bytes"
    raw = file_bytes(path, expected)
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
    raw = file_bytes(path, f"{expected}, or its binary form, {path.name}.bin")
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
