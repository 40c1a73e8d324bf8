"""Small runs for the tests of the store: every bit of a state follows from its step, so any process can check it."""

from __future__ import annotations

import numpy as np

from trajtools.store import Member, NodeSet, Parameter, RunWriter

PARAMETERS = (
    Parameter("0.weight", "dense", (7, 30), "float32", 0, 210, "input", "hidden", 1, 0),
    Parameter("0.bias", "bias", (7,), "float32", 210, 7, "bias", "hidden", -1, 0),
    Parameter("norm.scale", "norm", (13,), "float32", 217, 13),
)
NODES = (NodeSet("input", 30), NodeSet("hidden", 7), NodeSet("bias", 1))
MEMBERS = (
    Member("reference", seed=5),
    Member("twin 1", 0, 1e-8, "uniform", 7),
    Member("twin 2", 0, 1e-8, "uniform", 8, "independent"),
)
P, M, K = 230, 3, 16
METRICS = {"loss": (), "accuracy": (M,)}


def states(first: int, count: int, n_parameters: int = P) -> np.ndarray:
    """States first .. first + count as float32 (count, M, n_parameters): any bit pattern, NaN included."""
    index = np.arange(first, first + count, dtype=np.uint64)[:, None, None]
    entry = np.arange(M * n_parameters, dtype=np.uint64).reshape(M, n_parameters)[None]
    mixed = (index * np.uint64(0x9E3779B97F4A7C15) + entry * np.uint64(0xD1B54A32D192ED03)) >> np.uint64(29)
    return (mixed & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)


def numbers(first: int, count: int, width: int) -> np.ndarray:
    """Finite float64 (count, M, width) that follow from the step."""
    index = np.arange(first, first + count, dtype=np.float64)[:, None, None]
    return index + np.arange(M * width, dtype=np.float64).reshape(M, width)[None] / 1024


def create(path, run="run", mode="x", *, stored="weights", **options) -> RunWriter:
    if stored == "sketch":
        options["sketch"] = {"k": K, "seed": 3}
    if stored == "distances":
        options["distance_metric"] = "l1"
    return RunWriter.create(
        path,
        run,
        parameters=PARAMETERS,
        nodes=NODES,
        members=MEMBERS,
        dtype="float32",
        stored=stored,
        mode=mode,
        **options,
    )


def resume(path, run="run", *, stored="weights", **options) -> RunWriter:
    if stored == "sketch":
        options["sketch"] = {"k": K, "seed": 3}
    if stored == "distances":
        options["distance_metric"] = "l1"
    return RunWriter.resume(
        path, run, parameters=PARAMETERS, members=MEMBERS, dtype="float32", stored=stored, **options
    )


def write(writer: RunWriter, start: int, count: int, *, final: bool = False, stored: str = "weights") -> None:
    """Write the block from `start` on; step s of the file is 2 s."""
    given = {}
    if stored == "weights":
        tiles = writer.layout.new_tiles()
        for row, block in enumerate(states(start, count)):
            for member in range(M):
                writer.layout.put(tiles, row, member, block[member])
        given["tiles"] = tiles
    elif stored == "sketch":
        given["sketch"] = numbers(start, count, K)
    else:
        given["distances"] = numbers(start, count, 1)[:, :, 0]
    metrics = {"loss": numbers(start, count, 1)[:, 0, 0], "accuracy": numbers(start, count, 1)[:, :, 0]}
    writer.write(
        start,
        count,
        step=2 * np.arange(start, start + count),
        metrics=metrics if writer.metrics else {},
        final=final,
        **given,
    )


def record(path, count: int, run="run", mode="x", *, stored="weights", overhead=None, **options) -> None:
    """A whole run of `count` states, closed."""
    writer = create(path, run, mode, stored=stored, **options)
    writer.begin(METRICS)
    for start in range(0, count, writer.layout.rows):
        write(writer, start, min(writer.layout.rows, count - start), final=True, stored=stored)
    writer.close(overhead=overhead)


def assert_whole(run, count: int, *, stored: str = "weights") -> None:
    """Every committed state of the run is what was written, bit for bit."""
    assert run.n_states == count
    np.testing.assert_array_equal(run.step, 2 * np.arange(count))
    if stored == "weights":
        np.testing.assert_array_equal(run.states[:].view(np.uint32), states(0, count).view(np.uint32))
    elif stored == "sketch":
        np.testing.assert_array_equal(run.sketch, numbers(0, count, K))
    else:
        np.testing.assert_array_equal(run.distances, numbers(0, count, 1)[:, :, 0])
    if count:
        np.testing.assert_array_equal(run.metrics["loss"], numbers(0, count, 1)[:, 0, 0])
        np.testing.assert_array_equal(run.metrics["accuracy"], numbers(0, count, 1)[:, :, 0])
