"""Commands whose work is spread over processes or a Dask cluster say the same."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from command_line import call, write


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    states = np.cumsum(np.random.default_rng(0).normal(size=(80, 1, 6)), axis=0)
    return write(tmp_path_factory.mktemp("workers") / "walk.h5", states)


def test_distances_of_two_processes_are_those_of_one(walk):
    assert call("distances", walk, "--workers", "2", "--json").stdout == call("distances", walk, "--json").stdout


def test_distances_of_a_cluster_are_those_of_one(walk):
    distributed = pytest.importorskip("distributed")
    small = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**small) as cluster:
        said = call("distances", walk, "--scheduler", cluster.scheduler_address, "--json").stdout
    assert said == call("distances", walk, "--json").stdout


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
