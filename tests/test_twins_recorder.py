"""Perturbed copies: seeded, exact, refused where the dtype swallows them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import trajtools as tt
from recorders import Recorder, TwinList, perturb
from trajtools.errors import ArchitectureError, PerturbationError, SelectionError

pytestmark = pytest.mark.recorders


def network(dtype="float64"):
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (10, 4), "0.bias": (10,), "2.weight": (3, 10), "2.bias": (3,)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def naive_uniform(params, names, epsilon, seed, i):
    rng = np.random.default_rng([seed, i])
    out = {}
    for name, array in params.items():
        out[name] = array.copy()
        if name in names:
            out[name] = (array.astype("f8") + epsilon * rng.uniform(-1.0, 1.0, array.shape)).astype(array.dtype)
    return out


def test_twin_i_draws_from_seed_and_i_in_the_order_of_the_parameters():
    params = network("float32")
    twins = perturb(params, 1e-3, 3, 7)
    assert isinstance(twins, TwinList)
    for i, twin in enumerate(twins):
        for name, array in naive_uniform(params, ["0.weight", "2.weight"], 1e-3, 7, i).items():
            assert_array_equal(twin[name], array)
            assert twin[name].dtype == np.float32


def test_one_more_copy_changes_none_of_the_others():
    few, more = perturb(network(), 1e-3, 2, 1), perturb(network(), 1e-3, 3, 1)
    assert_array_equal(few[1]["2.weight"], more[1]["2.weight"])


def test_only_weights_move_unless_all_are_asked_for():
    params = network()
    assert_array_equal(perturb(params, 0.1, 1, 0)[0]["0.bias"], params["0.bias"])
    assert (perturb(params, 0.1, 1, 0, only="all")[0]["0.bias"] != params["0.bias"]).all()
    one = perturb(params, 0.1, 1, 0, only="2.*")[0]
    assert_array_equal(one["0.weight"], params["0.weight"])
    assert (one["2.bias"] != params["2.bias"]).all()


def test_the_reference_is_not_touched():
    params = network()
    before = {name: array.copy() for name, array in params.items()}
    twins = perturb(params, 0.1, 2, 0)
    twins[0]["0.bias"][:] = 99
    for name, array in before.items():
        assert_array_equal(params[name], array)


def test_gaussian_perturbations_have_the_standard_deviation_asked_for():
    params = {"w": np.zeros((400, 500))}
    moved = perturb(params, 0.3, 1, 5, distribution="gaussian", only="all")[0]["w"]
    # The relative standard error of a standard deviation from n draws is 1 / sqrt(2 n).
    assert abs(moved.std() / 0.3 - 1) < 5 / np.sqrt(2 * moved.size)


def test_uniform_perturbations_stay_within_epsilon():
    moved = perturb({"w": np.zeros((400, 500))}, 0.3, 1, 5, only="all")[0]["w"]
    assert 0.29 < moved.max() <= 0.3
    assert -0.3 <= moved.min() < -0.29


def test_each_parameter_may_have_a_size_of_its_own():
    params = network()
    sizes = np.zeros((10, 4))
    sizes[2, 3] = 0.1
    twin = perturb(params, {"0.weight": sizes, "*.bias": 1e-3}, 1, 3)[0]
    changed = twin["0.weight"] != params["0.weight"]
    assert changed.sum() == 1
    assert changed[2, 3]
    assert (twin["2.bias"] != params["2.bias"]).all()
    assert_array_equal(twin["2.weight"], params["2.weight"])


def test_epsilon_zero_makes_exact_copies_on_purpose():
    params = network("float32")
    twins = perturb(params, 0.0, 2, 0)
    for name, array in params.items():
        assert_array_equal(twins[1][name], array)
    assert twins.rounded_fraction == 0


def test_an_epsilon_that_the_dtype_swallows_is_refused_with_the_measured_fraction():
    params = {"w": np.full((100, 100), 1.0, np.float32)}
    with pytest.raises(PerturbationError, match=r"float32 leaves \d+\.\d% .* allow_rounded=True"):
        perturb(params, 1e-8, 2, 0)


def test_an_accepted_rounding_is_measured_and_recorded(tmp_path):
    params = {"w": np.full((100, 100), 1.0, np.float32)}
    # Float32 near 1 is spaced 2**-24 below and 2**-23 above: of Uniform(-1e-7, 1e-7) the part within half a spacing
    # of 0 is lost, (2**-25 + 2**-24) / 2e-7 = 45 %. 20,000 draws: the standard deviation is 0.35 %.
    twins = perturb(params, 1e-7, 2, 0, allow_rounded=True)
    assert abs(twins.rounded_fraction - (2**-25 + 2**-24) / 2e-7) < 0.02
    Recorder(tmp_path / "a.h5", [params, *twins]).close()
    with tt.open(tmp_path / "a.h5") as run:
        told = run.provenance["perturbations"]
    assert told[0]["rounded_fraction"] == twins.rounded_fraction
    assert told[0]["epsilon"] == 1e-7


def test_one_percent_is_pooled_over_all_perturbed_entries():
    rng = np.random.default_rng(0)
    params = {"w": rng.uniform(-1e-3, 1e-3, (100, 100)).astype("f4"), "big": np.full((5, 5), 1e3, np.float32)}
    twins = perturb(params, 1e-5, 2, 0)
    assert 0 < twins.rounded_fraction < 0.01


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_are_kept(dtype):
    assert perturb(network(dtype), 0.1, 1, 0)[0]["0.weight"].dtype == np.dtype(dtype)


def test_bfloat16_is_perturbed_in_float64_and_rounded_back():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    params = {"w": np.ones((50, 50), ml_dtypes.bfloat16)}
    moved = perturb(params, 0.5, 1, 0, only="all")[0]["w"]
    drawn = 1.0 + 0.5 * np.random.default_rng([0, 0]).uniform(-1.0, 1.0, (50, 50))
    assert_array_equal(moved.astype("f4"), drawn.astype(ml_dtypes.bfloat16).astype("f4"))
    with pytest.raises(PerturbationError, match="bfloat16"):
        perturb(params, 1e-4, 1, 0, only="all")


def test_nonfinite_weights_count_as_unchanged():
    with pytest.raises(PerturbationError, match=r"100\.0%"):
        perturb({"w": np.full((4, 4), np.inf)}, 0.1, 1, 0)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"members": 0}, PerturbationError, "integer of at least 1"),
        ({"members": "two"}, PerturbationError, "members='two': it must be an integer of at least 1"),
        ({"seed": 0.5}, PerturbationError, "seed=0.5: it must be an integer of at least 0"),
        ({"epsilon": "small"}, PerturbationError, "must be numbers, got 'small'"),
        ({"seed": -1}, PerturbationError, "at least 0"),
        ({"distribution": "cauchy"}, PerturbationError, "uniform, gaussian"),
        ({"only": "conv*"}, SelectionError, "no parameter matches 'conv"),
        ({"epsilon": -1.0}, PerturbationError, "finite and not negative"),
        ({"epsilon": float("nan")}, PerturbationError, "finite and not negative"),
        ({"epsilon": {"nothing": 1.0}}, SelectionError, "no parameter matches 'nothing'"),
        ({"epsilon": {"*": 1.0}, "only": "all"}, PerturbationError, "omit only="),
        ({"epsilon": {"0.bias": np.ones(3)}}, PerturbationError, r"shape \(3,\), the parameter \(10,\)"),
        ({"params": {"w": np.ones((2, 2), int)}}, PerturbationError, "'w' is int64"),
        ({"params": {"w": [1.0]}}, PerturbationError, "'w' is list"),
        ({"params": {"bias": np.ones(2)}}, PerturbationError, "no weights"),
    ],
)
def test_bad_arguments_are_refused(changes, error, words):
    arguments = {"params": network(), "epsilon": 0.1, "members": 1, "seed": 0, **changes}
    with pytest.raises(error, match=words):
        perturb(arguments.pop("params"), **arguments)


def test_twins_fill_the_members_table(tmp_path):
    first, second = network(), {name: -array for name, array in network().items()}
    state = [first, *perturb(first, 1e-3, 2, 5), second, *perturb(second, 1e-2, 1, 6, distribution="gaussian")]
    Recorder(tmp_path / "a.h5", state).close()
    with tt.open(tmp_path / "a.h5") as run:
        members = run.members
    assert [m.reference for m in members] == [-1, 0, 0, -1, 3]
    assert [m.epsilon for m in members][1:3] == [1e-3, 1e-3]
    assert [m.norm for m in members] == ["", "uniform", "uniform", "", "gaussian"]
    assert [m.seed for m in members][1:3] == [5, 5]
    assert len({m.name for m in members}) == 5


def test_twins_without_their_network_are_refused(tmp_path):
    with pytest.raises(ArchitectureError, match="put the network before"):
        Recorder(tmp_path / "a.h5", list(perturb(network(), 0.1, 2, 0)))
    assert not (tmp_path / "a.h5").exists()
