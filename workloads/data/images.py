"""Images in three sets: how they are held, parted, shifted, mirrored and normalised."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from ..strict import read_file

__all__ = [
    "BROUGHT_EVERY",
    "TEST_EVERY",
    "VALIDATION_EVERY",
    "ImageData",
    "Images",
    "InMemory",
    "augmented",
    "file_bytes",
    "held_out",
    "in_memory",
    "normalised",
    "order",
    "parted",
    "split",
]

TEST_EVERY, VALIDATION_EVERY = 5, 4
"""Where the files bring no test set: every fifth image of a class, in the order of the data, is for testing, and every
fourth of the others for validation, so 3 : 1 : 1. No random number decides, so it is the same everywhere."""

BROUGHT_EVERY = 10
"""Where the files bring a test set but no validation set, every tenth training image of a class is for validation:
45,000 and 5,000 of CIFAR-10, as in arXiv 1512.03385, section 4.2."""


class Images(Protocol):
    """Labelled images, fetched by position."""

    @property
    def labels(self) -> Tensor:
        """Class of every image, int64 ``[n]``."""

    def fetch(self, index: Tensor) -> Tensor:
        """The images at ``index``, uint8 ``[len(index), channels, height, width]``."""


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """``pixels``, uint8 ``[n, channels, height, width]``, and ``labels``, int64 ``[n]``; :class:`Images`."""

    pixels: Tensor
    labels: Tensor

    def fetch(self, index: Tensor) -> Tensor:
        return self.pixels[index]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageData:
    """A training, a validation and a test set of images of one shape.

    ``shape`` is (channels, height, width). ``pad`` and ``flip`` are the light augmentation: random shifts by up to
    ``pad`` pixels over black, and mirror images. ``mean`` and ``std`` are per channel in units of the stored pixels,
    of which ``white`` is the largest.
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
    white: int = 255

    def __post_init__(self) -> None:
        for what, part in (("train on", self.train), ("validate on", self.validation), ("test on", self.test)):
            if not len(part.labels):
                raise InputError(f"{self.name} leaves no image to {what}; expected a class of three images or more")


def order(count: int, generator: torch.Generator) -> Tensor:
    """A random order of ``count`` images; int64 ``[count]``."""
    return torch.randperm(count, generator=generator)


def augmented(data: ImageData, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """``pixels`` ``[n, channels, height, width]`` of any dtype, each image shifted, and mirrored half of the time where
    that is usual for the data."""
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
    """``pixels`` ``[n, channels, height, width]`` as float32 of zero mean and unit variance per channel over the
    training set."""
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (data.mean, data.std))
    return (pixels.float() - mean) / std


def held_out(labels: Tensor, every: int) -> Tensor:
    """True for every ``every``-th image of each class: of fewer for the last, and for none of one; bool ``[n]``."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        own = (labels == label).nonzero()[:, 0]
        if len(own) > 1:
            held[own[min(every, len(own)) - 1 :: every]] = True
    return held


def split(images: InMemory) -> tuple[InMemory, InMemory, InMemory]:
    """Training, validation and test set of images that bring no split."""
    rest, test = parted(images, TEST_EVERY)
    return (*parted(rest, VALIDATION_EVERY), test)


def parted(images: InMemory, every: int) -> tuple[InMemory, InMemory]:
    held = held_out(images.labels, every)
    return InMemory(images.pixels[~held], images.labels[~held]), InMemory(images.pixels[held], images.labels[held])


def in_memory(
    name: str,
    classes: int,
    train: InMemory,
    validation: InMemory,
    test: InMemory,
    *,
    pad: int,
    flip: bool,
    white: int = 255,
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
        name=name,
        classes=classes,
        shape=(channels, height, width),
        train=train,
        validation=validation,
        test=test,
        pad=pad,
        flip=flip,
        mean=mean,
        std=tuple(max(v, 1e-3) for v in std),
        fingerprint=digest.hexdigest(),
        white=white,
    )


def file_bytes(path: Path, expected: str) -> bytes:
    if not path.exists():
        raise InputError(f"{path}: no such file; expected {expected}")
    try:
        return read_file(path)
    except InputError as error:
        raise InputError(f"{error}; expected {expected}") from None
