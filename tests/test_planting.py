"""When copies are planted anew, and that the file and the analysis know of it."""

import json
import math
import shutil
import time
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

import trajtools as tt
from recorders import Recorder, iris, perturb
from recorders.planting import Planting, Schedule, check_replant, seed_of, squared_gaps
from recorders.twins import default_epsilon, floor_of
from trajtools.errors import DataError, PerturbationError
from trajtools.store import validate
from trajtools.wiring import Member

FLOOR = 1e-16


def plantings_of(law, copies, replant, steps, *, stride=1.0, every=1):
    """Steps of the plantings of each copy whose ln d is law(age, step), after a start at 1e-8."""
    schedule = Schedule(range(1, copies + 1), replant)
    planted = dict.fromkeys(range(1, copies + 1), 0)
    steps_of = {copy: [] for copy in planted}
    schedule.planted(0, planted, [1e-8] * copies, FLOOR)
    for step in range(every, steps + 1, every):

        def measure(copies, step=step):
            return [float(np.exp(law(step - planted[copy], step))) for copy in planted]

        due = schedule.due(step, measure, lambda step=step: {"w": np.array([stride * step])})
        for copy in due:
            planted[copy] = step
            steps_of[copy].append(step)
        if due:
            schedule.planted(step, due, measure(due), FLOOR)
    return steps_of


def growth(rate):
    return lambda age, step: min(np.log(1e-8) + rate * age, 0.2 * np.sin(step))


def starts_of(steps_of):
    return sorted({0, *(step for steps in steps_of.values() for step in steps)})


@pytest.mark.parametrize("copies", [1, 2, 3, 8])
def test_growing_copies_are_planted_anew_once_they_saturate(copies):
    # Saturation takes 18.4 / .2 = 92 steps.
    steps_of = plantings_of(growth(0.2), copies, "auto", 1000)
    first = steps_of[1]
    assert 92 < first[0] < 1.7 * 92
    assert all(92 < b - a < 2 * 92 for a, b in pairwise(first))
    # Every cohort adds starts of its own, apart from each other.
    starts = starts_of(steps_of)
    assert len(starts) >= 1000 / 160 * min(copies // 2 + 1, 4)
    late = np.diff([start for start in starts if start > 300])
    assert late.min() >= 15


@pytest.mark.parametrize("copies", [4, 8])
def test_a_training_of_twice_the_time_to_saturation_has_three_long_starts(copies):
    rate, steps = 0.14, 250
    reached = 15 / rate  # up to ln 50 below saturation, nearly
    starts = starts_of(plantings_of(growth(rate), copies, "auto", steps))
    assert sum(start + reached <= steps for start in starts) >= 3


def test_a_copy_that_neither_grows_nor_shrinks_is_planted_at_doubling_ages():
    steps_of = plantings_of(lambda age, step: np.log(1e-8), 8, "auto", 3000)
    for steps in steps_of.values():
        ages = np.diff([0, *steps])
        assert len(ages) >= 3
        # A planting waits for the others of its time, never longer than a part of the age.
        assert all(1.5 < b / a < 3 for a, b in pairwise(ages))


def test_a_contracting_copy_is_planted_near_the_floor_and_not_at_every_step():
    steps_of = plantings_of(lambda age, step: max(np.log(1e-8) - 0.5 * age, np.log(FLOOR)), 4, "auto", 400)
    # ln(1e-8 / (50 * 1e-16)) / .5 = 29 steps
    for steps in steps_of.values():
        assert all(16 <= age <= 64 for age in np.diff([0, *steps]))
    fast = plantings_of(lambda age, step: np.log(1e-8) if age == 0 else -np.inf, 4, "auto", 400)
    assert all(min(np.diff([0, *steps])) >= 8 for steps in fast.values())


def test_a_burst_that_comes_to_rest_far_below_the_strides_of_the_reference_is_not_saturation():
    def burst(age, step):
        return np.log(1e-8) + min(0.5 * age, 6)

    assert plantings_of(burst, 1, "saturation", 200)[1] == []
    assert plantings_of(burst, 1, "saturation", 200, stride=1e-5)[1] != []


def test_saturation_alone_plants_all_copies_together():
    steps_of = plantings_of(growth(0.4), 5, "saturation", 500)
    assert len({tuple(steps) for steps in steps_of.values()}) == 1
    assert len(steps_of[1]) >= 5
    assert plantings_of(lambda age, step: np.log(1e-8), 5, "saturation", 500)[1] == []
    merged = plantings_of(lambda age, step: np.log(1e-8) if age < 20 else -np.inf, 5, "saturation", 100)
    assert merged[1] == [20, 40, 60, 80, 100]


@pytest.mark.parametrize(("every", "expected"), [(1, [25, 50, 75, 100]), (10, [30, 60, 90])])
def test_every_k_steps_means_the_first_possible_step_of_that_age(every, expected):
    steps_of = plantings_of(growth(0.1), 3, 25, 100, every=every)
    assert all(steps == expected for steps in steps_of.values())


def test_none_plants_never():
    assert starts_of(plantings_of(growth(1.0), 4, None, 300)) == [0]


@pytest.mark.parametrize("wrong", ["often", 0, -3, 1.5, True])
def test_other_policies_are_refused(wrong):
    with pytest.raises(ValueError, match="replant="):
        check_replant(wrong)


def test_seeds_depend_on_the_step_and_the_first_is_that_of_the_copies():
    assert seed_of(7, 0) == 7
    assert len({seed_of(seed, step) for seed in (7, 8) for step in range(50)}) == 100


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_default_epsilon_leaves_room_on_both_sides(dtype):
    rng = np.random.default_rng(0)
    params = {"w": (0.1 * rng.standard_normal((40, 50))).astype(dtype), "b": np.full(50, 9, dtype)}
    epsilon = default_epsilon(params)
    assert epsilon == pytest.approx(0.1 * {"float16": 2**-5.5, "float32": 2**-16, "float64": 1e-11}[dtype], rel=0.1)
    twins = perturb(params, None, 2, 0)
    room = twins[0].made["room"]
    gap = np.linalg.norm(twins[0]["w"].astype(float) - params["w"].astype(float))
    assert room["above"] == pytest.approx(np.log(np.linalg.norm(params["w"].astype(float)) / gap), abs=0.05)
    assert room["below"] == pytest.approx(np.log(gap / floor_of(params)), abs=0.05)
    if dtype != "float16":
        assert room["above"] > 9


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_rounding_floor_is_that_of_the_distances(dtype):
    params = {"w": np.random.default_rng(0).standard_normal((6, 7)).astype(dtype), "z": np.zeros(3, dtype)}
    flat = np.concatenate([array.ravel() for array in params.values()])
    expected = np.sqrt(np.sum((np.spacing(np.abs(flat[:42])).astype(float)) ** 2) / 6)
    assert floor_of(params) == pytest.approx(expected, rel=1e-6)


# ------------------------------------------------------------------------------------------------- files and analysis


def decaying(step, planted):
    """A reference and two copies, (3, 4); copies differ by e^(.1 age) times a direction of their own."""
    base = np.cos(0.1 * step + np.arange(4.0))
    return np.stack([base, *(base + 1e-6 * np.exp(0.1 * (step - s)) * np.eye(4)[k] for k, s in enumerate(planted))])


MEMBERS = [Member("reference"), Member("a", 0, 1e-6, "uniform", 3), Member("b", 0, 1e-6, "uniform", 3)]


def record(path, steps, plan, **options):
    """Record `decaying` with plantings of copies at the steps of `plan`."""
    planted, rows = [0, 0], [Planting(0, k, 1e-6, 3, 1e-6) for k in (1, 2)]
    with Recorder(
        path, {"w": decaying(0, planted)}, members=MEMBERS, plantings=rows, quiet=True, **options
    ) as recorder:
        for step in range(1, steps + 1):
            for copy in plan.get(step, ()):
                planted[copy - 1] = step
                recorder.plant([Planting(step, copy, 1e-6, seed_of(3, step), 1e-6)])
            recorder.record({"w": decaying(step, planted)}, step=step)


def test_plantings_come_with_their_states_and_every_stretch_is_a_start(tmp_path):
    record(tmp_path / "a.h5", 100, {30: (2,), 50: (1, 2), 80: (1,)})
    assert not validate(tmp_path / "a.h5")
    with tt.open(tmp_path / "a.h5") as run:
        assert run.plantings["step"].tolist() == [0, 0, 30, 50, 50, 80]
        assert run.plantings["member"].tolist() == [1, 2, 2, 1, 2, 1]
        assert [(rows.start, rows.stop) for rows in run.stretches(1)] == [(0, 50), (50, 80), (80, 101)]
        assert [(rows.start, rows.stop) for rows in run.stretches(0)] == [(0, 101)]
        found = tt.twins(run, metric="l2")
        sel = tt.twins(run, metric="l2", select=("w",))
        part = tt.twins(run, metric="l2", window=(40, 90))
    # Copy 2 left the start at step 0, copy 1 that at 50, before the other one.
    assert found.start.tolist() == [0, 80, 30, 50]
    assert found.settings["n_cut_short"] == 2
    assert found.settings["n_plantings"] == 4
    assert found.planting.tolist() == [0, 3, 1, 2]
    lengths = np.isfinite(found.distances).sum(axis=1)
    assert lengths.tolist() == [50, 21, 20, 51]
    np.testing.assert_allclose(found.distances[:, :20], np.tile(1e-6 * np.exp(0.1 * np.arange(20)), (4, 1)), rtol=1e-6)
    np.testing.assert_array_equal(found.distances, sel.distances)
    assert sel.start.tolist() == found.start.tolist()
    assert sorted(part.start.tolist()) == [40, 40, 50, 80]


def test_the_commonest_loop_may_leave_out_states(tmp_path):
    record(tmp_path / "a.h5", 100, {35: (1,), 40: (2,)}, every=10)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.plantings["step"].tolist() == [0, 0, 35, 40]
        # The first stored state that shows the planting at 35 is that of step 40.
        assert [(rows.start, rows.stop) for rows in run.stretches(1)] == [(0, 4), (4, 11)]
        assert [(rows.start, rows.stop) for rows in run.stretches(2)] == [(0, 4), (4, 11)]


def test_stored_distances_are_cut_at_plantings_too(tmp_path):
    record(tmp_path / "a.h5", 60, {30: (1, 2)}, store="distances", metric="l2")
    with tt.open(tmp_path / "a.h5") as run:
        found = tt.twins(run, metric="l2")
    assert sorted(found.start.tolist()) == [0, 0, 30, 30]
    with tt.open(tmp_path / "a.h5") as run, pytest.raises(DataError, match="runs that store weights"):
        tt.twins(run, metric="l2", select=("w",))


def test_stability_takes_the_longest_stretch_of_a_copy(tmp_path):
    record(tmp_path / "a.h5", 90, {30: (1, 2)})
    with tt.open(tmp_path / "a.h5") as run:
        states = run.trajectory(0), [run.trajectory(m)[30:] for m in (1, 2)]
        found, expected = tt.orbital_stability(run), tt.orbital_stability([states])
    assert found.verdict == expected.verdict
    assert len(found.time) == len(expected.time) == 61


def test_what_a_killed_writer_left_is_resumed_with_its_plantings(tmp_path):
    plan, planted = {20: (1,), 44: (2,), 70: (1, 2)}, [0, 0]
    path, copy = tmp_path / "a.h5", tmp_path / "b.h5"
    recorder = Recorder(
        path, {"w": decaying(0, planted)}, members=MEMBERS, quiet=True, flush_bytes=1, writer="thread",
        plantings=[Planting(0, k, 1e-6, 3, 1e-6) for k in (1, 2)],
    )  # fmt: skip
    for step in range(1, 60):
        for k in plan.get(step, ()):
            planted[k - 1] = step
            recorder.plant([Planting(step, k, 1e-6, step, 1e-6)])
        recorder.record({"w": decaying(step, planted)}, step=step)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with tt.open(path) as run:
            if run.n_states > 50:
                break
        time.sleep(0.02)
    shutil.copy(path, copy)  # what a kill at this moment would leave
    recorder.close()
    with tt.open(copy) as run:
        assert run.step[-1] > 44
        assert run.plantings["step"].tolist() == [0, 0, 20, 44]
    # From a checkpoint before the last states, which are dropped with what was planted in them. The copies are made
    # again beside the state at the checkpoint, which the file keeps as it is; so they are seen one step later.
    rows = [Planting(0, k, 1e-6, 9, 1e-6) for k in (1, 2)]
    with Recorder(
        copy, {"w": decaying(40, [40, 40])}, members=MEMBERS, resume=True, step=40, plantings=rows, quiet=True
    ) as recorder:
        for step in range(41, 100):
            recorder.record({"w": decaying(step, [40, 40])}, step=step)
    assert not validate(copy)
    with tt.open(copy) as run:
        assert run.plantings["step"].tolist() == [0, 0, 20, 41, 41]
        assert np.isnan(run.plantings["norm"][-2:]).all()
        assert run.step.tolist() == list(range(100))
        assert [rows.start for rows in run.stretches(1)] == [0, 20, 41]


def test_a_run_that_goes_on_with_the_same_state_plants_nothing(tmp_path):
    rows = [Planting(0, k, 1e-6, 3, 1e-6) for k in (1, 2)]
    options = {"members": MEMBERS, "plantings": rows, "quiet": True}
    with Recorder(tmp_path / "a.h5", {"w": decaying(0, [0, 0])}, **options) as recorder:
        recorder.record({"w": decaying(1, [0, 0])}, step=1)
    with Recorder(tmp_path / "a.h5", {"w": decaying(1, [0, 0])}, resume=True, **options) as recorder:
        recorder.record({"w": decaying(2, [0, 0])}, step=2)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.plantings["step"].tolist() == [0, 0]


@pytest.mark.recorders
def test_iris_plants_its_copies_anew_and_leaves_the_references_alone(tmp_path):
    (tmp_path / "never").mkdir()
    options = {"inits": 6, "copies": 4, "steps": 300, "seed": 2}
    new = tt.open(iris.record(tmp_path, 2.0, **options))
    old = tt.open(iris.record(tmp_path / "never", 2.0, replant=None, **options))
    free = [m for m, member in enumerate(new.members) if member.reference < 0]
    with new, old:
        np.testing.assert_array_equal(new.states[:][:, free], old.states[:][:, free])
        assert old.plantings["step"].tolist() == [0] * 24
        planted = new.plantings
        assert len(np.unique(planted["step"])) > 3
        row = np.searchsorted(new.step, planted["step"])
        reference = np.array([new.members[m].reference for m in planted["member"]])
        states = new.states[:]
        gaps = np.linalg.norm(states[row, planted["member"]] - states[row, reference], axis=1)
        np.testing.assert_allclose(gaps, planted["norm"], rtol=1e-12)
        assert new.hparams["replant"] == "auto"
        growth, once = tt.twins(new), tt.twins(old)
        starts = {group: len(np.unique(growth.start[growth.group == group])) for group in range(6)}
        assert min(starts.values()) >= 3
        np.testing.assert_array_equal(once.start, 0)
    assert not validate(new.path)


def test_info_counts_the_plantings(tmp_path):
    from command_line import call

    record(tmp_path / "a.h5", 60, {30: (1, 2)})
    (info,) = json.loads(call("info", tmp_path / "a.h5", "--json").stdout)["files"]
    assert (info["plantings"], info["starts"]) == (4, 2)
    assert "planted 4 times, at 2 starts" in call("info", tmp_path / "a.h5").stdout


# ---------------------------------------------------------------------------------------------------- several epsilons


def test_copies_take_the_epsilons_of_a_list_in_turn():
    weights = {"w": np.linspace(1.0, 2.0, 12).reshape(3, 4), "b": np.ones(3)}
    copies = perturb(weights, [1e-6, 1e-9], 5, seed=4)
    assert [member.epsilon for member in copies.members] == [1e-6, 1e-9, 1e-6, 1e-9, 1e-6]
    for epsilon, kept in ((1e-6, (0, 2, 4)), (1e-9, (1, 3))):
        alone = perturb(weights, epsilon, 5, seed=4)
        for copy in kept:
            np.testing.assert_array_equal(copies[copy]["w"], alone[copy]["w"])
    assert copies[0].made["epsilon"] == [1e-6, 1e-9]
    large, small = (perturb(weights, epsilon, 5, seed=4)[0].made["room"] for epsilon in (1e-6, 1e-9))
    room = copies[0].made["room"]
    assert room["above"] == pytest.approx(large["above"], abs=0.3)
    assert room["below"] == pytest.approx(small["below"], abs=0.3)


@pytest.mark.parametrize("wrong", [[], [1e-6, 0.0], [1e-6, float("nan")], ["x"], [1e-6] * 6])
def test_a_list_of_epsilons_holds_positive_numbers_and_no_more_than_copies(wrong):
    with pytest.raises(PerturbationError, match="at most one for each of the 5 copies"):
        perturb({"w": np.ones((3, 4))}, wrong, 5, seed=0)


@pytest.mark.recorders
def test_iris_plants_every_copy_with_its_own_epsilon(tmp_path):
    with tt.open(iris.record(tmp_path, 1.0, inits=2, copies=4, steps=120, epsilon=[1e-6, 1e-9])) as run:
        planted = run.plantings
        own = np.array([run.members[member].epsilon for member in planted["member"]])
    assert planted["step"].max() > 0
    np.testing.assert_array_equal(planted["epsilon"], own)
    assert (planted["norm"] < own * np.sqrt(70)).all()
    assert (planted["norm"] > own).all()


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float16", 1.0), *((dtype, scale) for dtype in ("float32", "float64") for scale in (1e-30, 1e-7, 1.0, 1e25))],
)
@pytest.mark.parametrize("size", [1, 255, 8192, 8193, 32_768, 33_025, 70_000])
def test_squared_gaps_are_those_of_exact_sums(dtype, scale, size):
    rng = np.random.default_rng(size)
    first, *others = (scale * rng.standard_normal((4, size))).astype(dtype)
    others[1] = first
    wide = np.promote_types(dtype, np.float32)
    exact = [math.fsum((other.astype(wide) - first.astype(wide)).astype(float) ** 2) for other in others]
    assert_allclose(squared_gaps(first, others), exact, rtol=1e-7)


def test_squared_gaps_of_what_is_not_finite_are_not():
    others = np.ones((2, 40_000), np.float32)
    others[0, 39_999], others[1, 3] = np.nan, np.inf
    found = squared_gaps(np.ones(40_000, np.float32), list(others))
    assert np.isnan(found[0])
    assert found[1] == np.inf
