"""Data of the studies: the digits that come with scikit-learn, or images in IDX form from a folder."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Data:
    """Images as rows, scaled to 0..1, and their labels; the first `trained` rows of a seeded shuffle train."""

    name: str
    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load(folder: str | Path | None = None, *, trained: int | None = None, seed: int = 0) -> Data:
    """Digits (8 x 8, 1797 images), or the images of a folder of IDX files (``*images*idx*``, ``*labels*idx*``)."""
    if folder is None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images, name = images / 16, "digits"
    else:
        images, labels = (read_idx(found(Path(folder), word)) for word in ("images", "labels"))
        images, name = images.reshape(len(images), -1) / 255, Path(folder).name
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order].astype(np.float64), labels[order].astype(np.int64)
    cut = trained if trained is not None else (2 * len(images)) // 3 if folder is None else (4 * len(images)) // 5
    return Data(name, images[:cut], labels[:cut], images[cut:], labels[cut:])


def found(folder: Path, word: str) -> Path:
    """The IDX file of the folder whose name holds the word; the test images where there are several."""
    here = sorted(folder.glob(f"*{word}*idx*"), key=lambda path: not path.name.startswith("t10k"))
    if not here:
        raise SystemExit(f"{folder} holds no file named *{word}*idx*; pass the folder with the IDX files")
    return here[0]


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes, compressed or not."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    zero, kind, ndim = struct.unpack(">HBB", raw[:4])
    if zero or kind != 8:
        raise SystemExit(f"{path} is not an IDX file of unsigned bytes (its magic number is {raw[:4].hex()})")
    shape = struct.unpack(f">{ndim}I", raw[4 : 4 + 4 * ndim])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)
