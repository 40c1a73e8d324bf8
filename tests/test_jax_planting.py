"""Twins of JAX that are planted anew: the reference as without them, the rest of the training copied."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders.jax import Recorder, Twins  # noqa: E402
from trajtools.store import validate  # noqa: E402

pytestmark = pytest.mark.jax


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["stacked", "apart"])
def held(request, monkeypatch):
    """Members in common arrays, or in arrays of their own as those of large networks are."""
    if request.param == "apart":
        monkeypatch.setattr("recorders.jax.twins.LARGEST_STACKED", 0)


def quartic(params, scale):
    w = params["w"]
    return scale * jnp.sum(w**4 / 4 - w**2 / 2)


def twins_of(eta=1.8, *, optimizer=None, dtype=np.float64, members=4, width=1, **options):
    params = {"w": jnp.asarray(np.linspace(0.4, 0.5, width)[:, None], dtype)}
    return Twins(params, quartic, optimizer or optax.sgd(eta), members=members, seed=0, **options)


def stepped(twins, steps, by="step", block=16):
    if by == "scan":
        twins.scan((np.ones(steps),), block=block)
    else:
        for _ in range(steps):
            twins.step(1.0)


def gaps(run, planted):
    row = np.searchsorted(run.step, planted["step"])
    states = run.states[:]
    return np.linalg.norm(states[row, planted["member"]] - states[row, 0], axis=1)


@pytest.mark.recorders
@pytest.mark.parametrize("by", ["step", "scan"])
def test_a_chaotic_training_gives_several_starts_by_itself(tmp_path, by):
    twins = twins_of()
    with Recorder(tmp_path / "a.h5", twins, quiet=True):
        stepped(twins, 200, by)
    assert not validate(tmp_path / "a.h5")
    with tt.open(tmp_path / "a.h5") as run:
        planted = run.plantings
        for name in planted:
            np.testing.assert_array_equal(planted[name], [getattr(row, name) for row in twins.plantings])
        assert set(planted["step"][:4]) == {0}
        assert by == "step" or {step % 16 for step in planted["step"].tolist()} <= {0, 200 % 16}
        np.testing.assert_allclose(gaps(run, planted), planted["norm"], rtol=1e-9)
        growth = tt.twins(run, metric="l2")
        assert run.n_states == 201
    reached = [s for s in np.unique(growth.start) if np.nanmax(growth.distances[growth.start == s]) > 0.01]
    assert len(reached) >= 3


@pytest.mark.usefixtures("held")
@pytest.mark.recorders
@pytest.mark.parametrize("by", ["step", "scan"])
def test_the_reference_is_the_same_to_the_bit(tmp_path, by):
    states = []
    for replant in (None, 16):
        twins = twins_of(optimizer=optax.adam(0.05), width=5, replant=replant, vectorize=False)
        with Recorder(tmp_path / f"{replant}.h5", twins, quiet=True):
            stepped(twins, 50, by)
        with tt.open(tmp_path / f"{replant}.h5") as run:
            states.append(run.states[:])
            assert sorted(set(run.plantings["step"].tolist())) == ([0] if replant is None else [0, 16, 32, 48])
    np.testing.assert_array_equal(states[0][:, 0], states[1][:, 0])
    assert (states[0][-1, 1:] != states[1][-1, 1:]).any()


@pytest.mark.usefixtures("held")
def test_a_planting_copies_the_optimiser():
    twins = twins_of(optimizer=optax.adam(0.05), width=5, replant=10)
    stepped(twins, 9)
    apart = [np.ptp(np.asarray(leaf), axis=0).max() for leaf in jax.tree_util.tree_leaves(twins.carry[1])]
    assert max(apart) > 0
    stepped(twins, 1)
    assert {row.step for row in twins.plantings} == {0, 10}
    for leaf in jax.tree_util.tree_leaves(twins.carry[1]):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


@pytest.mark.usefixtures("held")
@pytest.mark.recorders
def test_scans_and_steps_plant_alike_where_blocks_end(tmp_path):
    found = []
    for by in ("step", "scan"):
        twins = twins_of(0.4, replant=16, width=3, vectorize=False)
        with Recorder(tmp_path / f"{by}.h5", twins, every=4, quiet=True):
            for _ in range(2):
                stepped(twins, 40, by, block=8)
        with tt.open(tmp_path / f"{by}.h5") as run:
            found.append((run.step, run.states[:], run.plantings["step"]))
            np.testing.assert_allclose(gaps(run, run.plantings), run.plantings["norm"], rtol=1e-6)
    np.testing.assert_array_equal(found[0][2], found[1][2])
    assert sorted(set(found[0][2].tolist())) == [0, 16, 32, 48, 64, 80]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-10)


def test_the_default_epsilon_depends_on_the_dtype():
    wide, narrow = twins_of(width=20), twins_of(width=20, dtype=np.float32)
    assert 1e6 < narrow.made["epsilon"] / wide.made["epsilon"] < 1e7
    assert wide.room.above > 24
    assert wide.room.below > 10
    assert narrow.room.above > 9
    assert narrow.room.below > np.log(50)


def test_other_policies_are_refused():
    with pytest.raises(ValueError, match="replant="):
        twins_of(replant=0)
