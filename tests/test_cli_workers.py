"""Commands whose work is spread over processes or a Dask cluster say the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module

import numpy as np
import pytest
from command_line import ROOT, call, write

import trajtools as tt
from recorders.iris import record
from trajtools.cli.runner import executor
from trajtools.errors import DataError
from trajtools.plots._axes import number


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    states = np.cumsum(np.random.default_rng(0).normal(size=(80, 1, 6)), axis=0)
    return write(tmp_path_factory.mktemp("workers") / "walk.h5", states)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainings")
    for rate in (0.05, 0.3, 2.0):
        record(folder, rate, inits=3, copies=2, steps=60)
    return folder


@pytest.fixture(scope="module")
def alone(walk, trainings, tmp_path_factory):
    """What commands say that compute in this process."""
    return list(said_by(walk, trainings, tmp_path_factory.mktemp("alone")))


def said_by(walk, trainings, folder, *options):
    """The output of the commands that take such options."""
    yield call("distances", walk, "--json", *options).stdout
    yield call("sweep", trainings, "--x", "eta", "--json", "--cache", folder / "kept.jsonl", *options).stdout
    call("report", trainings, "--x", "eta", "--details", "1", "-o", folder / "page.html", *options)
    yield (folder / "page.html").read_text()


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_two_processes_say_what_one_says(walk, trainings, alone, tmp_path):
    outputs = said_by(walk, trainings, tmp_path, "--workers", "2")
    assert [next(outputs), next(outputs)] == alone[:2]  # a report starts its processes as a sweep does


def test_a_dask_scheduler_with_workers_says_what_one_process_says(walk, trainings, alone, tmp_path):
    pytest.importorskip("distributed")
    place = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    lines = [
        ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(place)],
        ["worker", "--scheduler-file", str(place), "--nthreads", "1", "--nworkers", "2", "--no-dashboard"],
    ]
    running = []
    try:
        for line in lines:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *line],
                env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            running.append(process)
        end = time.monotonic() + 60
        while not place.exists() and time.monotonic() < end:
            time.sleep(0.05)
        address = json.loads(place.read_text())["address"]
        assert list(said_by(walk, trainings, tmp_path, "--scheduler", address)) == alone
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(60)


POOL = """
import signal
import time

from trajtools.cli.runner import executor

def work():
    print("at work", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what runs in the background
    with executor(2, None) as pool:
        for future in [pool.submit(work) for _ in range(9)]:
            future.result()
"""


@pytest.mark.parametrize("ending", ["interrupt", "kill"])
def test_worker_processes_end_with_their_command(tmp_path, ending):
    (tmp_path / "pool.py").write_text(POOL)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe, command = subprocess.PIPE, [sys.executable, tmp_path / "pool.py"]
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, start_new_session=True) as running:
        try:
            assert [running.stdout.readline() for _ in range(2)] == [b"at work\n"] * 2
            if ending == "kill":
                running.kill()
            else:  # as Ctrl-C does it: the workers get the signal, too
                os.killpg(running.pid, signal.SIGINT)
            _, said = running.communicate(timeout=120)  # ends once no worker holds the pipe
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    assert b"SpawnProcess" not in said
    assert b"InvalidStateError" not in said
    if ending == "interrupt":
        assert said.count(b"Traceback") == said.count(b"KeyboardInterrupt") == 1  # of the program above


def test_a_worker_that_is_killed_is_no_bug():
    with pytest.raises(DataError, match="fewer --workers"), executor(2, None) as pool:
        pool.submit(os.kill, *(pool.submit(os.getpid).result(), signal.SIGKILL)).result()


def test_a_cluster_without_workers_is_named(capsys):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        executor(1, cluster.scheduler_address),
    ):
        assert "has no workers" in capsys.readouterr().err


def test_a_report_of_many_runs_shows_all_and_the_details_of_some(trainings, alone):
    page = alone[2]
    assert "1 of the 3 runs" in page
    assert page.count('<details class="run"') == 1
    assert page.count('href="#run-1"') == 1
    assert 'id="run-1"' in page
    table = page[: page.index('<h2 id="sweep"')]
    for name, run in tt.open_runs(trainings).items():
        assert name in table
        assert number(tt.lyapunov(run).value) in table


def test_a_sweep_goes_on_and_says_so(trainings, monkeypatch):
    monkeypatch.setattr("trajtools.sweeps.cache.SETTLED", -3600.0)
    first = call("sweep", trainings, "--x", "eta")
    again = call("sweep", trainings, "--x", "eta")
    assert again.stdout == first.stdout
    assert "measured before" not in first.stderr
    assert "3 of 3 runs were measured before" in again.stderr
    assert "measured before" not in call("sweep", trainings, "--x", "eta", "--stays", "2").stderr
    assert "measured before" not in call("sweep", trainings, "--x", "eta", "--fresh").stderr
    assert not call("sweep", trainings, "--x", "eta", "--quiet").stderr


def test_a_fresh_sweep_deletes_no_other_file(trainings, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    said = call("sweep", trainings, "--x", "eta", "--cache", tmp_path / "notes.txt", "--fresh", code=1).stderr
    assert "is no cache of a sweep" in said
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_sweep_without_a_folder_for_its_cache_says_so(trainings, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "Results of finished runs are not kept" in call("sweep", trainings, "--x", "eta").stderr


@pytest.mark.parametrize("command", ["distances", "sweep"])
def test_a_cluster_without_dask_says_what_to_install(walk, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = call(command, walk, "--scheduler", "tcp://localhost:1", code=1).stderr
    assert 'pip install "trajtools[dask]"' in said


def test_an_address_where_nobody_answers_is_one_sentence(walk):
    pytest.importorskip("distributed")
    said = call("distances", walk, "--scheduler", "nonsense://here", code=1).stderr
    assert "no Dask cluster responds at 'nonsense://here'" in said
    assert said.count("Error") == 1


@pytest.mark.parametrize("forks", [True, False])
def test_without_exponents_a_sweep_measures_runs_where_it_tries_their_files(trainings, tmp_path, monkeypatch, forks):
    monkeypatch.setattr("trajtools.sweeps.cache.SETTLED", -3600.0)
    monkeypatch.setattr("trajtools.store.isolation._can_fork", lambda: forks)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = import_module("trajtools.sweeps.sweep")  # the name of the package is that of the function
    line = ("sweep", trainings, "--x", "eta", "--exponent", "none", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(module, "measure", None)
        first = call(*line)
        again = call(*line[:-1])
    assert "measured before" not in first.stderr
    assert "3 of 3 runs were measured before" in again.stderr
    here = call(*line, "--fresh")
    assert here.stdout == first.stdout
    assert len(json.loads(here.stdout)["sweep"]["points"]) == 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(module, "SMALL_FILE", 0)  # as for large files
    assert call(*line).stdout == first.stdout
