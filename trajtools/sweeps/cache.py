"""Results of the runs of a sweep in a file, so that a sweep that was interrupted goes on.

A result is found again only if nothing that it depends on has changed: the file of the run (path, device, inode, size
and both times of change), every option, the version of NumPy and the code of this package. A file that was changed
within the last seconds is measured again next time, because a later change could leave the same times.

The file is text: a first line that names its format, then a line for each result with its key, a checksum, and the
result as JSON. Lines are only appended; one that was cut short is ignored.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib
import json
import os
import re
import time
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import trajtools
from trajtools.errors import DataError

HEAD = b"trajtools sweep cache 1\n"
SETTLED = 2.0
"""Seconds after which a change of a file is sure to change its times, on every common file system."""
_SHARD = re.compile(r"\.rank\d+\.\w+$")


class Cache:
    """Results by key, in one file.

    Parameters
    ----------
    path : Path
        The file; created when the first result is stored.

    Raises
    ------
    DataError
        If the file exists and is no such cache, or cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, bytes] = {}
        data = path.read_bytes() if path.exists() else b""
        if data and not HEAD.startswith(data[: len(HEAD)]):
            raise DataError(f"{path} exists and is no cache of a sweep: choose another file for the cache")
        if not path.parent.is_dir():
            raise DataError(f"{path} cannot be written: there is no folder {path.parent}")
        self._is_whole = not data or data.endswith(b"\n")
        self._is_new = len(data) < len(HEAD)
        for line in data[len(HEAD) :].splitlines():
            key, _, rest = line.partition(b" ")
            self._lines[key.decode(errors="replace")] = rest

    def get(self, key: str) -> Any:
        """Return a stored result; None if there is none."""
        checksum, _, body = self._lines.get(key, b"").partition(b" ")
        if not body or checksum != b"%08x" % zlib.crc32(body):
            return None
        return decode(json.loads(body))

    def put(self, key: str, result: Any) -> None:
        """Append a result with one write, so that two processes may share the file."""
        body = json.dumps(encode(result), separators=(",", ":")).encode()
        line = b"%s %08x %s\n" % (key.encode(), zlib.crc32(body), body)
        if self._is_new:
            line = HEAD + line
        elif not self._is_whole:  # the writer of the last line was killed
            line = b"\n" + line
        place = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | (os.O_TRUNC if self._is_new else 0), 0o666)
        try:
            os.write(place, line)
        finally:
            os.close(place)
        self._is_new, self._is_whole = False, True


def key_of(path: str, options: Any) -> str:
    """Return the key of a result: a hash of all that it depends on; empty where that cannot be told.

    `options` must have a repr that says everything. The shards of a run are several files, and a file that is being
    written, or was a moment ago, may change without a trace: both have no key.
    """
    place = os.path.realpath(path)
    status = os.stat(place)
    age = time.time() - max(status.st_mtime, status.st_ctime)
    if age < SETTLED or _SHARD.search(place):
        return ""
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return hashlib.sha256(repr((place, state, options, _code())).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _code() -> tuple[Any, ...]:
    """What else the numbers depend on: this package and NumPy."""
    root = Path(trajtools.__file__).parent
    files = sorted(root.rglob("*.py"))
    stats = [(str(file.relative_to(root)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return trajtools.__version__, np.__version__, hashlib.sha256(repr(stats).encode()).hexdigest()


def encode(value: Any) -> Any:
    """Return a result of this package as JSON can hold it, every bit of its numbers included."""
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return ["array", value.dtype.str, list(value.shape), data]
    if isinstance(value, np.generic):
        return ["scalar", value.dtype.str, value.item()]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [type(value).__name__, [encode(one) for one in value]]
    if isinstance(value, Mapping):
        return ["dict", [[encode(name), encode(one)] for name, one in value.items()]]
    kind = type(value)
    if dataclasses.is_dataclass(value) and kind.__module__.startswith("trajtools."):
        fields = {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return ["object", f"{kind.__module__}:{kind.__qualname__}", fields]
    raise TypeError(f"{kind.__name__} in a result cannot be stored")


def decode(plain: Any) -> Any:
    """Undo `encode`; only our own classes are made."""
    if not isinstance(plain, list):
        return plain
    kind, *parts = plain
    if kind == "array":
        dtype, shape, data = parts
        return np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape).copy()
    if kind == "scalar":
        return np.dtype(parts[0]).type(parts[1])
    if kind in ("list", "tuple"):
        items = [decode(one) for one in parts[0]]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {decode(name): decode(one) for name, one in parts[0]}
    module, name = parts[0].split(":")
    if kind != "object" or not module.startswith("trajtools."):
        raise ValueError(f"{kind} {parts[0]} is nothing that a sweep stores")
    made = getattr(importlib.import_module(module), name)
    return made(**{field: decode(one) for field, one in parts[1].items()})
