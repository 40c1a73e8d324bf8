"""All distances in a file: resumed, found again, refused, and never spoilt by a kill."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import trajtools as tt
from recorders import Recorder
from trajtools.errors import DataError, FileBusyError, FormatError, TooLargeError
from trajtools.store.matrices import MatrixFile

pairwise_module = import_module("trajtools.distances.pairwise")


def states(count, size, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(dtype)


def mean_gap(a, b):
    return np.abs(a - b).mean(axis=1)


def test_distances_on_disk_are_those_in_memory(tmp_path):
    x = states(70, 1100, "float32")
    x[5, 0] = np.nan
    memory = tt.pairwise(x, metric="l1", block=32)
    disk = tt.pairwise(x, metric="l1", block=32, out=tmp_path / "d.h5")
    for found in (disk, tt.Distances.open(tmp_path / "d.h5"), pickle.loads(pickle.dumps(disk))):
        assert isinstance(found.values, np.memmap)
        assert_array_equal(found[:], memory[:])
        for name in ("metric", "dt", "time_unit", "square", "symmetric", "warnings", "settings"):
            assert getattr(found, name) == getattr(memory, name), name
        for name in ("step", "excluded", "floor", "column_step", "column_excluded"):
            assert_array_equal(getattr(found, name), getattr(memory, name))


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    x = states(64, 100)
    out = tmp_path / "d.h5"

    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tt.pairwise(x, metric="l1", out=out, block=16, progress=interrupt)
    with pytest.raises(FormatError, match="not complete"):
        tt.Distances.open(out)
    computed = []
    compute = pairwise_module.compute
    monkeypatch.setattr(pairwise_module, "compute", lambda tile: computed.append(1) or compute(tile))
    found = tt.pairwise(x, metric="l1", out=out)
    assert len(computed) == 6
    assert found.settings["tiles_resumed"] == 4
    assert_array_equal(found[:], tt.pairwise(x, metric="l1")[:])
    computed.clear()
    assert_array_equal(tt.pairwise(x, metric="l1", out=out)[:], found[:])
    assert not computed


def test_a_tile_that_was_spoilt_is_computed_again(tmp_path):
    x = states(40, 10)
    out = tmp_path / "d.h5"
    before = tt.pairwise(x, metric="l1", out=out, block=16)[:].copy()
    with MatrixFile(out, write=True) as file:
        file.put(slice(20, 21), slice(3, 4), np.array([[-1.0]]))
    again = tt.pairwise(x, metric="l1", out=out)
    assert again.settings["tiles_resumed"] == 5
    assert_array_equal(again[:], before)


KILLED = """
import os, sys, numpy as np, trajtools as tt
x = np.random.default_rng(0).normal(size=(96, 50))
def tell(done, total):
    if done == 3:
        print("three", flush=True)
        os.kill(os.getpid(), 9)
tt.pairwise(x, metric="l1", out=sys.argv[1], block=32, progress=tell)
"""


@pytest.mark.crash
def test_a_process_that_is_killed_leaves_what_it_had_done(tmp_path):
    out = tmp_path / "d.h5"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    ended = subprocess.run([sys.executable, "-c", KILLED, out], env=environment, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    x = np.random.default_rng(0).normal(size=(96, 50))
    found = tt.pairwise(x, metric="l1", out=out)
    assert found.settings["tiles_resumed"] == 3
    assert_array_equal(found[:], tt.pairwise(x, metric="l1")[:])


def test_a_folder_finds_the_same_distances_again(tmp_path):
    x = states(20, 10)
    first = tt.pairwise(x, metric="l1", out=tmp_path)
    assert tt.pairwise(x.copy(), metric="l1", out=tmp_path).path == first.path
    others = [
        tt.pairwise(x, metric="l2", out=tmp_path),
        tt.pairwise(np.nextafter(x, 9), metric="l1", out=tmp_path),
        tt.pairwise(tt.Trajectory.from_array(x)[1:], metric="l1", out=tmp_path),
        tt.pairwise(tt.Trajectory.from_array(x, dt=0.5), metric="l1", out=tmp_path),
        tt.pairwise(x, y=x.copy(), metric="l1", out=tmp_path),
    ]
    assert len({first.path, *(other.path for other in others)}) == 6
    Path(first.path).unlink()
    assert_array_equal(tt.pairwise(x, metric="l1", out=tmp_path)[:], tt.pairwise(x, metric="l1")[:])


def test_the_key_does_not_depend_on_how_the_states_are_kept(tmp_path):
    path, walk = tmp_path / "run.h5", states(70, 100, "float32")
    with Recorder(path, {"w": walk[0]}, quiet=True) as recorder:
        for row in walk[1:]:
            recorder.record({"w": row})
    stored = tt.pairwise(tt.open(path).trajectory(), metric="l1", out=tmp_path)
    assert tt.pairwise(walk, metric="l1", out=tmp_path).path == stored.path


def test_a_file_of_something_else_is_not_touched(tmp_path):
    x = states(20, 10)
    out = tmp_path / "d.h5"
    tt.pairwise(x, metric="l1", out=out)
    before = out.read_bytes()
    with pytest.raises(DataError, match="holds the l1 distances of 20 x 20 states, not these"):
        tt.pairwise(x, metric="l2", out=out)
    with pytest.raises(DataError, match="cannot be identified"):
        tt.pairwise(x, metric=mean_gap, out=out)
    assert out.read_bytes() == before
    run = tmp_path / "run.h5"
    Recorder(run, {"w": x[0]}, quiet=True).close()
    with pytest.raises(FormatError, match="not a file of distances"):
        tt.pairwise(x, out=run)


def test_two_writers_of_one_file_are_kept_apart(tmp_path):
    x = states(20, 10)
    tt.pairwise(x, metric="l1", out=tmp_path / "d.h5")
    with MatrixFile(tmp_path / "d.h5", write=True), pytest.raises(FileBusyError, match="another process"):
        tt.pairwise(x, metric="l1", out=tmp_path / "d.h5")


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    out = tmp_path / "d.h5"
    tt.pairwise(states(20, 10), out=out)
    out.write_bytes(out.read_bytes()[: out.stat().st_size // 2])
    with pytest.raises(FormatError):
        tt.Distances.open(out)


def test_a_full_disk_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Free", (), {"free": 1000})())
    with pytest.raises(TooLargeError, match="thin the states"):
        tt.pairwise(states(20, 10), out=tmp_path / "d.h5")
    assert not list(tmp_path.iterdir())
