"""Writers are killed with SIGKILL at random moments; nothing that they had committed is ever lost.

TRAJTOOLS_KILLS=N kills N writers (default: 24); benchmarks/store_kills.py kills a thousand.
"""

from __future__ import annotations

import os

import naive_store
import pytest
from stored_runs import assert_holds, assert_whole, create, go_on, resume

from benchmarks.store_kills import check_val, kill_many, write_late
from trajtools.store import Run

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children that are killed are forked"),
]
KILLS = int(os.environ.get("TRAJTOOLS_KILLS", "24"))


def test_no_kill_loses_a_committed_state(tmp_path):
    counts = kill_many(tmp_path, KILLS, int(os.environ.get("TRAJTOOLS_SEED", "1")))
    assert counts["kills"] == KILLS
    names = {name.split(".")[0] for name in os.listdir(tmp_path) if not name.startswith(".")}
    assert len(names) <= counts["files"]


class Chunks:
    """A dataset that stands between a writer and HDF5, so that a test can stop it between two chunks."""

    def __init__(self, dataset, count):
        self.dataset, self.count = dataset, count

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def write_direct_chunk(self, *arguments):
        self.count[0] -= 1
        if self.count[0] < 0:
            os.kill(os.getpid(), 9)
        self.dataset.write_direct_chunk(*arguments)


@pytest.mark.parametrize("chunks", [*range(16), 99])
def test_a_kill_between_two_chunks_of_a_block_is_survived_and_repaired_by_the_next_writer(tmp_path, chunks):
    """The chunks of the block then match different slots; the next writers die in the same way."""
    path = tmp_path / "run.h5"
    for committed, count in ((40, 50), (40, 45), (40, 64)):
        child = os.fork()
        if child == 0:
            try:
                if path.exists():
                    writer = resume(path, optimizer=True)
                else:
                    writer = create(path, optimizer=True)
                    write_late(writer, 0, committed, False)
                left = [chunks]
                writer._blocks._sums = Chunks(writer._blocks._sums, left)
                writer._blocks._ids = {name: Chunks(d, left) for name, d in writer._blocks._ids.items()}
                write_late(writer, 0, count, False)
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        died = os.WIFSIGNALED(status)
        with Run(path) as run:
            n = run.n_states
            assert n == (committed if died else count)
            assert_whole(run, n)
            check_val(run.metrics, n)
            assert run.status == "interrupted"
        content = naive_store.read(path)
        assert_holds(content, n)
        check_val(content["metrics"], n)
        if not died:
            break
    writer = resume(path, optimizer=True)
    go_on(writer, 100)
    writer.close()
    with Run(path) as run:
        assert_whole(run, 100)
    assert_holds(naive_store.read(path), 100)
