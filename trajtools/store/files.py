"""A file as a mapping of its runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py

from trajtools.errors import RunNotFoundError
from trajtools.store import safety
from trajtools.store.h5 import in_words
from trajtools.store.handles import Handle, steady
from trajtools.store.runs import Run


class File(Mapping[str, "Run"]):
    """A file of runs, open for reading; a mapping from the names of the runs to `Run`.

    Attributes
    ----------
    path : Path
        The file.
    format_version : str
        As the file says.
    readable_newer : bool
        The file is of a newer minor version: all is read that this version knows.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} does not exist")
        self._handle = Handle(self.path)
        self._closed = False
        self.format_version = self._version()
        self.readable_newer = safety.check_version(self.format_version, str(self.path))[1] > safety.VERSION[1]

    def __getitem__(self, name: str) -> Run:
        self._require_open()
        if name not in list(self):
            raise RunNotFoundError(
                f"{self.path} holds no run {name!r}; it has {', '.join(map(repr, self)) or 'no run at all'}"
            )
        return Run(self.path, name, handle=self._handle)

    def __iter__(self) -> Iterator[str]:
        self._require_open()
        return iter(self._names())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<trajtools file {str(self.path)!r}{', closed' if self._closed else f', {len(self)} runs'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Trajectories and runs taken from it open it again when they are read."""
        self._closed = True
        self._handle.close()

    def refresh(self) -> None:
        """See runs that were added since the file was opened."""
        self._require_open()
        self._handle.close()

    @steady
    def _names(self) -> list[str]:
        with in_words(self.path, "list the runs"):
            return list(safety.child(self._handle.file, "runs", h5py.Group))

    @steady
    def _version(self) -> str:
        return safety.attribute(self._handle.file, "format_version")

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path} is closed; open it again with trajtools.open")
