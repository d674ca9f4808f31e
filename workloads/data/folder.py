"""A folder of pictures, one folder a class."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, reading
from ..strict import read_file, require_regular
from .images import BROUGHT_EVERY, TEST_EVERY, VALIDATION_EVERY, ImageData, held_out

__all__ = ["FOLDER_SIDE", "decode", "image_folder"]

FOLDER_SIDE = 32
"""Image side of a folder of pictures where the model names none."""

_PICTURES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
_MAX_PICTURE_BYTES, _MAX_PIXELS = 2**28, 2**26
"""Of one picture: one of 67 million pixels, more than cameras make, takes 200 MB decoded; eight are decoded at once."""

# Published with torchvision's ImageNet models, for pixels from 0 to 255. The others are computed from the training set.
_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@dataclass(frozen=True, slots=True, eq=False)
class InFiles:
    """Pictures decoded when they are asked for; Pillow decodes outside of Python's lock, so threads help."""

    files: tuple[Path, ...]
    labels: Tensor
    side: int

    def fetch(self, index: Tensor) -> Tensor:
        files = [self.files[i] for i in index.tolist()]
        with ThreadPoolExecutor(min(8, len(files))) as pool:
            return torch.stack(list(pool.map(lambda file: decode(file, self.side), files)))


def image_folder(root: Path, side: int) -> ImageData:
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
        train, validation = _parted_pictures(_pictures(parts[0], names), BROUGHT_EVERY)
        test = _pictures(parts[1], names)
    else:
        rest, test = _parted_pictures(_pictures(root, names), TEST_EVERY)
        train, validation = _parted_pictures(rest, VALIDATION_EVERY)
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
        name="imagefolder",
        classes=len(names),
        shape=(3, side, side),
        train=_in_files(train, side),
        validation=_in_files(validation, side),
        test=_in_files(test, side),
        pad=max(1, side // 8),
        flip=True,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        fingerprint=digest.hexdigest(),
    )


def _brought(root: Path) -> list[Path]:
    """The folders of a split that the files bring: training, validation where there are three, test."""
    return [root / "train", *(root / name for name in ("val", "test") if (root / name).is_dir())]


def _parted_pictures(
    pictures: list[tuple[Path, int]], every: int
) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    held = held_out(torch.tensor([label for _, label in pictures]), every).tolist()
    kept = [one for one, out in zip(pictures, held, strict=True) if not out]
    return kept, [one for one, out in zip(pictures, held, strict=True) if out]


def _size(file: Path) -> int:
    try:
        found = file.stat()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    require_regular(file, found)
    return found.st_size


def _in_files(pictures: list[tuple[Path, int]], side: int) -> InFiles:
    return InFiles(tuple(file for file, _ in pictures), torch.tensor([label for _, label in pictures]), side)


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
