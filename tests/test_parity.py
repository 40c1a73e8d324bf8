"""The same weights give the same file, whatever framework they come from."""

import os
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import recorders  # noqa: E402
import recorders.jax  # noqa: E402
import recorders.torch  # noqa: E402
import trajtools as tt  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.jax, pytest.mark.recorders]

STATES = 70  # more than a block
SHAPES = {"0.weight": (9, 6), "0.bias": (9,), "2.weight": (3, 9), "2.bias": (3,)}


class Layer(NamedTuple):
    weight: Any
    bias: Any


@pytest.fixture(params=["float32", "float64", "bfloat16"])
def dtype(request):
    jax.config.update("jax_enable_x64", request.param == "float64")
    yield request.param
    jax.config.update("jax_enable_x64", False)


def arrays(t, dtype):
    """State `t` of a trajectory that no framework has computed, as numpy arrays of its dtype."""
    rng = np.random.default_rng([7, t])
    return {name: np.asarray(rng.normal(size=shape), jax.numpy.dtype(dtype)) for name, shape in SHAPES.items()}


def as_tree(state):
    leaves = [jax.numpy.asarray(array) for array in state.values()]
    return {"0": Layer(*leaves[:2]), "2": Layer(*leaves[2:])}


def as_module(state):
    model = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3))
    model = model.to({"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}[dtype_of(state)])
    load(model, state)
    return model


def dtype_of(state):
    return str(next(iter(state.values())).dtype)


def load(model, state):
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), state.values(), strict=True):
            # bfloat16 passes exactly through float64, which both sides know
            parameter.copy_(torch.from_numpy(array.astype(np.float64)))


def written(folder, dtype, **options):
    """One trajectory through each of the three recorders."""
    paths = {name: folder / f"{name}.h5" for name in ("numpy", "torch", "jax")}
    first = arrays(0, dtype)
    model, tree = as_module(first), as_tree(first)
    with (
        recorders.Recorder(paths["numpy"], first, quiet=True, **options) as by_numpy,
        recorders.torch.Recorder(paths["torch"], model, quiet=True, **options) as by_torch,
        recorders.jax.Recorder(paths["jax"], tree, quiet=True, **options) as by_jax,
    ):
        for t in range(STATES):
            state = arrays(t, dtype)
            if t:  # what is written before the first call counts as an update, even if it changes nothing
                load(model, state)
                tree = as_tree(state)
            by_numpy.record(state, loss=t / 7, accuracy=np.nan)
            by_torch.record(model, loss=torch.tensor(t / 7, dtype=torch.float64), accuracy=float("nan"))
            by_jax.record(tree, loss=t / 7, accuracy=jax.numpy.nan)
    return paths


def contents(path, name="run"):
    """Everything that a file says of a run but where it came from."""
    with tt.open(path) as run:
        return {
            "weights": None if run.stored != "weights" else run.states[:].tobytes(),
            "sketch": None if run.sketch is None else np.asarray(run.sketch).tobytes(),
            "distances": None if run.distances is None else np.asarray(run.distances).tobytes(),
            "step": run.step.tolist(),
            "metrics": {key: np.asarray(values).tobytes() for key, values in run.metrics.items()},
            "parameters": run.parameters,
            "nodes": run.nodes,
            "members": repr(run.members),  # NaN equals no NaN
            "dtype": str(run.dtype),
            "status": run.status,
        }


@pytest.mark.parametrize(
    "options",
    [{}, {"every": 3}, {"include": "0.*"}, {"store": "sketch", "sketch": recorders.Sketch(16, 1)}],
    ids=["all", "every", "include", "sketch"],
)
def test_the_same_weights_give_the_same_file_in_every_framework(tmp_path, dtype, options):
    paths = written(tmp_path, dtype, **options)
    expected = contents(paths["numpy"])
    assert contents(paths["torch"]) == expected
    assert contents(paths["jax"]) == expected
    assert len(expected["step"]) == (24 if "every" in options else STATES)


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
@pytest.mark.parametrize("store", ["weights", "distances"])
def test_the_same_seed_gives_the_same_twins_in_every_framework(tmp_path, dtype, distribution, store):
    state, made = arrays(0, dtype), {"epsilon": 0.5, "members": 3, "seed": 4, "distribution": distribution}
    model, tree = as_module(state), as_tree(state)
    twins = recorders.jax.perturb(tree, **made)
    options = {"quiet": True, "store": store}
    recorders.Recorder(tmp_path / "numpy.h5", [state, *recorders.perturb(state, **made)], **options).close()
    recorders.torch.Recorder(tmp_path / "torch.h5", [model, *recorders.torch.perturb(model, **made)], **options).close()
    recorders.jax.Recorder(tmp_path / "jax.h5", [tree, *twins], members=twins, **options).close()
    expected = contents(tmp_path / "numpy.h5")
    assert contents(tmp_path / "torch.h5") == expected
    assert contents(tmp_path / "jax.h5") == expected
    with tt.open(tmp_path / "numpy.h5") as run:
        assert len(run.members) == 4
        if store == "weights":
            assert len(np.unique(run.states[:][0], axis=0)) == 4
