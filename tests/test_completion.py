"""Completion of the command line, of a line and in a live bash."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys

import pytest
from command_line import ROOT

from trajtools.cli import COMMANDS, cli
from trajtools.cli.completion import LineComplete


@pytest.fixture
def offered(monkeypatch):
    """What is offered for a line, as (kind, word)."""

    def complete(line):
        monkeypatch.setenv("COMP_LINE", line)
        lines = LineComplete(cli, {}, "trajtools", "_TRAJTOOLS_COMPLETE").complete().splitlines()
        return [tuple(one.split(",", 1)) for one in lines]

    return complete


def test_commands_options_and_choices_are_offered(offered):
    assert offered("trajtools ") == [("plain", name) for name in COMMANDS]
    assert offered("trajtools ly") == [("plain", "lyapunov")]
    assert offered("trajtools lyapunov run.h5 --learn") == [("plain", "--learning-rate")]
    assert offered("trajtools lyapunov --method ro") == [("plain", "rosenstein")]
    assert offered("trajtools lyapunov --method=ro") == [("plain", "rosenstein")]
    assert offered("trajtools lyapunov 'my run=1.h5' --metric li") == [("plain", "linf")]
    assert ("plain", "l1") in offered("trajtools distances --metric ")


@pytest.mark.parametrize("line", ["info", "lyapunov run.h5", "lyapunov --plot", "report run.h5 -o", "distances --save"])
def test_names_of_files_are_offered(offered, line):
    assert offered(f"trajtools {line} ru") == [("file", "ru")]
    assert offered(f"trajtools {line} runs/eta=0") == [("file", "runs/eta=0")]
    assert offered(f"trajtools {line} my\\ r") == [("file", "my r")]


def test_every_command_says_in_the_list_what_it_does():
    for name, (_, text) in COMMANDS.items():
        assert cli.get_command(None, name).get_short_help_str() == text


@pytest.mark.skipif(os.name != "posix" or shutil.which("bash") is None, reason="needs bash and a terminal")
@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("inf\t run.h", "<info><run.h>"),
        ("info run.\t", "<info><run.h5>"),
        ("info runs/eta=0\t", "<info><runs/eta=0.1.h5>"),
        ("info runs/eta\t0\t", "<info><runs/eta=0.1.h5>"),
        ("info runs/eta=0\t --js\t", "<info><runs/eta=0.1.h5><--json>"),
        ("info other/a\t", "<info><other/a=1 b.h5>"),
        ("lyapunov --method=ro\t", "<lyapunov><--method=rosenstein>"),
        ("lyapunov run.h5 --plot pic\t", "<lyapunov><run.h5><--plot><picture.png>"),
    ],
)
def test_a_live_bash_completes(tmp_path, typed, wanted):
    import pty

    for name in ("run.h5", "picture.png", "runs/eta=0.1.h5", "runs/eta=1.h5", "other/a=1 b.h5", "bin/trajtools"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trajtools "$@"\n')
    path.chmod(0o755)
    bash = subprocess.run(["bash", "-c", "((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404))"], check=False)
    if bash.returncode:
        pytest.skip("needs bash 4.4")
    search = os.pathsep.join([str(path.parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": search, "PYTHONPATH": str(ROOT), "TERM": "dumb", "INPUTRC": os.devnull}
    ours, theirs = pty.openpty()
    line = ["bash", "--norc", "--noprofile", "-i"]
    shell = subprocess.Popen(
        line, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment, start_new_session=True
    )
    os.close(theirs)
    try:
        os.write(ours, b'eval "$(_TRAJTOOLS_COMPLETE=bash_source trajtools)"; echo "ready"$((1 + 1))\n')
        assert "ready2" in until(ours, "ready2")
        os.write(ours, b"trajtools() { printf '<%s>' \"$@\"; echo 'end'$((1 + 1)); }\n")
        os.write(ours, f"trajtools {typed}\n".encode())
        assert wanted in until(ours, "end2")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def until(terminal, words, patience=120.0):
    """What a terminal shows until these words; what it has shown if it falls silent."""
    shown = ""
    while words not in shown and select.select([terminal], [], [], patience)[0]:
        shown += os.read(terminal, 65536).decode(errors="replace")
    return shown
