"""Calling the command line, in this process and in one of its own, and files for it to read."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import trajtools
from recorders import Recorder
from trajtools.cli import cli
from trajtools.wiring import Member

ROOT = Path(trajtools.__file__).resolve().parents[1]


def call(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="trajtools")
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result


def process(*arguments, **more):
    line = [sys.executable, "-m", "trajtools", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120, check=False, **more)


def terminal(*arguments, columns=80):
    """Run a command with a terminal of this width; return its exit status and what the terminal got."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"}
    line = [sys.executable, "-m", "trajtools", *map(str, arguments)]
    running = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so where others return nothing
            part = b""
        if not part:
            break
        shown += part
    os.close(ours)
    return running.wait(timeout=60), shown.decode()


def write(path, states, *, members=None, name="", store="weights"):
    """Record (T, M, P) states as they are."""
    states = np.asarray(states, dtype=np.float64)
    members = members or [Member(f"m{i}", reference=-1 if i == 0 else 0, epsilon=1e-8) for i in range(states.shape[1])]
    with Recorder(path, {"layer.kernel": states[0]}, name=name, members=members, store=store, quiet=True) as recorder:
        for state in states:
            recorder.record({"layer.kernel": state})
    return path
