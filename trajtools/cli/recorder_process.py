"""Running a module of the recorders in a process of its own: the analysis does not import them."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def command_line(module: str, *words: str) -> list[str]:
    """Return what starts a module of the recorders.

    Parameters
    ----------
    module : str
        Such as ``recorders.iris``.
    *words : str
        Its arguments.

    Returns
    -------
    list of str
        For `subprocess`, together with `environment`.
    """
    # -P: a folder named `recorders` in the user's working directory must not be taken for ours.
    return [sys.executable, "-P", "-m", module, *words]


def environment() -> dict[str, str]:
    """Return the environment of such a process.

    Returns
    -------
    dict of str to str
        That of this process, in which the recorders are found, installed or not.
    """
    root = str(Path(__file__).resolve().parents[2])  # where recorders/ lies beside trajtools/
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
