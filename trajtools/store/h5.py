"""All access to h5py: options, errors and the filter plugin."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from trajtools.errors import FormatError, MissingDependencyError, TrajtoolsError

ZSTD = 32015
"""Number of the Zstandard filter in the HDF5 registry."""


def load_zstd() -> None:
    """Make the Zstandard filter known to HDF5."""
    if h5py.h5z.filter_avail(ZSTD):
        return
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "this needs the Zstandard filter of HDF5, which is not installed; run: pip install trajtools[zstd]"
        ) from None


def filter_options(compress: str | None) -> dict[str, Any]:
    """Give the arguments of ``create_dataset`` for a kind of compression."""
    if compress is None:
        return {}
    if compress == "gzip":
        return {"shuffle": True, "compression": "gzip", "compression_opts": 1}
    if compress == "zstd":
        load_zstd()
        return {"shuffle": True, "compression": ZSTD, "compression_opts": (1,)}
    raise ValueError(f"compress={compress!r}: needed None, 'zstd' or 'gzip'")


def filters(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Give the numbers of the filters of a dataset."""
    plist = dataset.id.get_create_plist()
    return tuple(plist.get_filter(i)[0] for i in range(plist.get_nfilters()))


def one_line(error: BaseException) -> str:
    """Give the message of an error without the line breaks that HDF5 puts in."""
    return " ".join(str(error).split())


@contextlib.contextmanager
def in_words(path: Path, doing: str) -> Iterator[None]:
    """Turn what h5py raises into one sentence."""
    try:
        yield
    except TrajtoolsError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, UnicodeError) as error:
        raise FormatError(
            f"could not {doing} in {path}: {one_line(error)}. The file is damaged or was cut short; "
            "`trajtools validate` shows details; `trajtools repair` repairs a file left by a crashed writer."
        ) from error


def set_text(target: h5py.Group | h5py.Dataset, name: str, value: str) -> None:
    """Set a text attribute, of fixed length, so that its size is known before it is read."""
    data = value.encode()
    target.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", max(1, len(data))))
