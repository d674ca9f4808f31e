"""Images to train on: digits of scikit-learn, 5,000 of MNIST, CIFAR-10 and CIFAR-100, folders of pictures, and a
function of the user's own.

Everything is read from this disk, nothing is downloaded, and no file of data can run code. Every kind has three parts:
a training goes over the first, whatever is chosen or aimed at is read from the second, and the third is only reported.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import InputError, nearest, reading
from ..user_code import is_user
from .bundled import digits, mnist5k
from .cifar import cifar10, cifar100
from .folder import FOLDER_SIDE, image_folder
from .images import ImageData, Images, augmented, normalised, order
from .own import own_data

__all__ = ["BUNDLED", "DATA", "ImageData", "Images", "augmented", "normalised", "open_data", "order"]

DATA = ("digits", "mnist5k", "cifar10:PATH", "cifar100:PATH", "imagefolder:PATH", "file.py:function")
"""What ``--data`` takes; ``,nomirror`` before the colon keeps pictures from being mirrored."""

BUNDLED = ("digits", "mnist5k")
"""Data that packages bring."""

_MIRRORED = ("cifar10", "cifar100", "imagefolder")
_NO_MIRROR = "nomirror"


def open_data(text: str, side: int | None = None) -> ImageData:
    """The images that ``--data`` names; ``side`` is the image side to cut pictures of a folder to.

    Files that are missing, cut short or of another format are an :class:`InputError` that names the file.
    """
    if is_user(text):
        return _of_side(own_data(text), side)
    named, colon, path = text.partition(":")
    kind, comma, option = named.partition(",")
    if kind not in (*BUNDLED, *_MIRRORED) or (kind in BUNDLED and colon):
        raise InputError(f"data {text!r} is unknown: {nearest(text, DATA)}")
    if comma and (option != _NO_MIRROR or kind in BUNDLED):
        raise InputError(
            f"data {text!r} has the option {option!r}; the only one is {_NO_MIRROR!r}, of {', '.join(_MIRRORED)}"
        )
    if kind in BUNDLED:
        return _of_side(digits() if kind == "digits" else mnist5k(), side)
    if not path:
        raise InputError(f"data {text!r} needs the folder it lies in, as {named}:PATH")
    root = Path(path).expanduser()
    if not root.is_dir():
        found = "is not a folder; unpack it first" if root.exists() else "no such folder"
        raise InputError(f"{root}: {found} (from data {text!r})")
    if kind == "imagefolder":
        with reading(str(root), "a folder of pictures"):
            data = image_folder(root, FOLDER_SIDE if side is None else side)
    else:
        data = _of_side(cifar10(root) if kind == "cifar10" else cifar100(root), side)
    return replace(data, flip=False) if comma else data


def _of_side(data: ImageData, side: int | None) -> ImageData:
    if side not in (None, data.shape[1]):
        raise InputError(
            f"image side {side} asked for, but the images of {data.name} are {data.shape[1]} x {data.shape[2]}; "
            f"write the model without @{side}"
        )
    return data
