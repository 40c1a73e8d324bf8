"""Small runs for the tests of the store: every bit of a state follows from its step, so any process can check it."""

from __future__ import annotations

import numpy as np

from trajtools.store import Run, RunSpec, RunWriter
from trajtools.wiring import Member, NodeSet, Parameter

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
BUFFERS = (Parameter("momentum", "other", (230,), "float32", 0, 230),)
P, M, K = 230, 3, 16
METRICS = {"loss": (), "accuracy": (M,)}
LATE = 70  # the metric "late/vector" comes with this state


def states(first: int, count: int, n_parameters: int = P, n_members: int = M) -> np.ndarray:
    """States first .. first + count as float32 (count, M, n_parameters): any bit pattern, NaN included."""
    index = np.arange(first, first + count, dtype=np.uint64)[:, None, None]
    entry = np.arange(n_members * n_parameters, dtype=np.uint64).reshape(n_members, n_parameters)[None]
    mixed = (index * np.uint64(0x9E3779B97F4A7C15) + entry * np.uint64(0xD1B54A32D192ED03)) >> np.uint64(29)
    return (mixed & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)


def numbers(first: int, count: int, width: int, n_members: int = M) -> np.ndarray:
    """Finite float64 (count, M, width) that follow from the step."""
    index = np.arange(first, first + count, dtype=np.float64)[:, None, None]
    return index + np.arange(n_members * width, dtype=np.float64).reshape(n_members, width)[None] / 1024


def options_of(stored: str, optimizer: bool | dict) -> dict:
    options: dict = {"stored": stored}
    if stored == "sketch":
        options["sketch"] = {"k": K, "seed": 3}
    if stored == "distances":
        options["distance_metric"] = "l1"
    if isinstance(optimizer, dict):
        options["optimizer"] = optimizer
    elif optimizer:
        options["optimizer"] = {"parameters": BUFFERS, "dtype": "float32"}
    return options


def spec_of(stored: str, optimizer: bool | dict, options: dict) -> RunSpec:
    fixed = {"parameters": PARAMETERS, "nodes": NODES, "members": MEMBERS, "dtype": "float32"}
    return RunSpec(**(fixed | options_of(stored, optimizer) | options))


def create(path, mode="x", *, stored="weights", optimizer=False, durable=False, **options) -> RunWriter:
    return RunWriter.create(path, spec_of(stored, optimizer, options), mode=mode, durable=durable)


def resume(path, *, stored="weights", optimizer=False, durable=False, force=False, keep=None, **options) -> RunWriter:
    spec = spec_of(stored, optimizer, options)
    return RunWriter.resume(path, spec, durable=durable, force=force, keep=keep)


def block_of(layout, values: np.ndarray) -> np.ndarray:
    """States (count, M, P) as a block."""
    tiles = layout.new_tiles()
    for row, state in enumerate(values):
        for member, entries in enumerate(state):
            layout.put(tiles, row, member, entries)
    return tiles


def metrics_of(start: int, count: int) -> dict[str, np.ndarray]:
    """The metrics of some states; the late one is NaN in a block until it comes."""
    values = numbers(start, count, 2)
    result = {"loss": values[:, 0, 0], "accuracy": values[:, :, 0]}
    if start + count > LATE:
        result["late/vector"] = late = values.copy()
        late[: max(0, LATE - start)] = np.nan
    return result


def write(writer: RunWriter, start: int, count: int, *, final: bool = False, metrics: bool = True) -> None:
    """Write the block from `start` on; step s of the file is 2 s."""
    content: dict = {}
    if writer.stored == "weights":
        content["weights"] = block_of(writer.layout, states(start, count))
    elif writer.stored == "sketch":
        content["sketch"] = numbers(start, count, K)
    else:
        content["distances"] = numbers(start, count, 1)[:, :, 0]
    if "optimizer" in writer.layouts:
        content["optimizer"] = block_of(writer.layouts["optimizer"], -states(start, count))
    steps = 2 * np.arange(start, start + count)
    writer.write(start, count, step=steps, metrics=metrics_of(start, count) if metrics else {}, final=final, **content)


def record(path, count: int, mode="x", *, overhead=None, **options) -> None:
    """A whole run of `count` states, closed."""
    writer = create(path, mode, **options)
    for start in range(0, count, writer.layout.rows):
        write(writer, start, min(writer.layout.rows, count - start), final=True)
    writer.close(overhead=overhead)


def go_on(writer: RunWriter, count: int) -> None:
    """Write until `count` states are committed, from the partial last block on."""
    rows = writer.layout.rows
    while writer.committed < count:
        start = writer.committed // rows * rows
        write(writer, start, min(rows, count - start), final=True)


def assert_whole(run: Run, count: int | None = None, *, metrics: bool = True) -> None:
    """Every committed state of the run is what was written, bit for bit."""
    assert_holds(
        {
            "committed": run.n_states,
            "step": run.step,
            "weights": run.states.read() if run.stored == "weights" else None,
            "sketch": run.sketch,
            "distances": run.distances,
            "optimizer": None if run.optimizer is None else run.optimizer.read(),
            "metrics": dict(run.metrics),
        },
        count,
        metrics=metrics,
    )


def assert_holds(content: dict, count: int | None = None, *, metrics: bool = True) -> None:
    """What a reader returned is what was written; None for a number of states that is not known."""
    n = content["committed"]
    assert count is None or n == count
    np.testing.assert_array_equal(content["step"], 2 * np.arange(n))
    expected = {
        "weights": states(0, n).view(np.uint32),
        "optimizer": (-states(0, n)).view(np.uint32),
        "sketch": numbers(0, n, K),
        "distances": numbers(0, n, 1)[:, :, 0],
    }
    for name, values in expected.items():
        array = content.get(name)
        if array is not None:
            np.testing.assert_array_equal(array.view(values.dtype) if values.dtype == np.uint32 else array, values)
    if metrics and n:
        values = numbers(0, n, 2)
        np.testing.assert_array_equal(content["metrics"]["loss"], values[:, 0, 0])
        np.testing.assert_array_equal(content["metrics"]["accuracy"], values[:, :, 0])
        values[:LATE] = np.nan
        if n > LATE:
            np.testing.assert_array_equal(content["metrics"]["late/vector"], values)
