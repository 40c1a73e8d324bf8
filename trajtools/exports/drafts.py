"""Outputs that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trajtools.errors import DataError


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Write a file, or a folder, under another name, which it changes when it is whole."""
    target = Path(os.path.realpath(target))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise DataError(f"{target} is neither a file nor a folder, and would be replaced by one: name another")
    if target.is_dir() and any(target.iterdir()):
        raise DataError(f"{target} is a folder with files in it, which could be mistaken for new ones: name another")
    if target == Path(os.path.realpath(os.curdir)):
        raise DataError(f"{target} is the folder you are in, which would be replaced: name one that does not exist")
    draft = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        yield draft
        if target.is_dir():
            target.rmdir()
        os.replace(draft, target)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        draft.unlink(missing_ok=True)
