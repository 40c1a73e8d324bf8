"""What is kept of a state: weights in their dtype, distances of twins, sketches."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import trajtools as tt
from recorders import Recorder, Sketch, perturb
from trajtools.errors import ArchitectureError, RecordingError
from trajtools.wiring import Member

pytestmark = pytest.mark.recorders


def network(seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    shapes = {"0.weight": (10, 4), "0.bias": (10,), "2.weight": (3, 10)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def flat(params):
    return np.concatenate([np.asarray(array).reshape(-1) for array in params.values()])


def naive_distance(a, b, metric):
    gaps = [abs(float(x) - float(y)) for x, y in zip(flat(a), flat(b), strict=True)]
    if metric == "l1":
        return sum(gaps)
    if metric == "linf":
        return max(gaps)
    squares = sum(gap**2 for gap in gaps)
    return (squares / (len(gaps) if metric == "rms" else 1)) ** 0.5


@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "rms"])
@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_distances_are_those_of_the_definition(tmp_path, metric, stacked, dtype):
    states = []
    for step in range(3):
        a, b = network(step, dtype), network(step + 10, dtype)
        states.append([a, *perturb(a, 0.1, 2, step), b, *perturb(b, 0.1, 1, step)])
    references = [-1, 0, 0, -1, 3]
    table = [Member(f"m{i}", reference) for i, reference in enumerate(references)]

    def shaped(members):
        return {n: np.stack([m[n] for m in members]) for n in members[0]} if stacked else members

    with Recorder(tmp_path / "a.h5", shaped(states[0]), members=table, store="distances", metric=metric) as rec:
        for state in states:
            rec.record(shaped(state), loss=1.0)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.stored == "distances"
        assert run.distance_metric == metric
        found = run.distances
    expected = [
        [np.nan if r < 0 else naive_distance(state[i], state[r], metric) for i, r in enumerate(references)]
        for state in states
    ]
    # Sums of 80 float64 terms in another order.
    assert_allclose(found, expected, rtol=1e-12)


def test_close_twins_are_measured_by_direct_differences():
    from recorders.adapter import Structure
    from recorders.storage import TwinDistances

    a = {"w": np.full(200_000, 1e3)}
    b = {"w": a["w"] + 1e-9}
    structure = Structure.of([a, b], n_members=2, stacked=False)
    table = [Member("a"), Member("b", 0)]
    found = TwinDistances(structure, table, "l2", 4).measure([a["w"], b["w"]])[1]
    gap = b["w"][0] - a["w"][0]
    assert_allclose(found, gap * np.sqrt(200_000), rtol=1e-12)


@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "rms"])
def test_a_twin_with_epsilon_zero_has_distance_zero(tmp_path, metric):
    params = network()
    members = [params, *perturb(params, 0.0, 1, 0)]
    with Recorder(tmp_path / "a.h5", members, store="distances", metric=metric) as rec:
        for _ in range(5):
            members = [{n: 0.9 * a for n, a in m.items()} for m in members]
            rec.record(members)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.distances.shape == (6, 2)
        assert (run.distances[:, 1] == 0).all()


@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "rms"])
def test_nan_weights_make_nan_distances(tmp_path, metric):
    params = network()
    twin = perturb(params, 0.1, 1, 0)[0]
    twin["2.weight"][1, 1] = np.nan
    Recorder(tmp_path / "a.h5", [params, twin], store="distances", metric=metric).close()
    with tt.open(tmp_path / "a.h5") as run:
        assert np.isnan(run.distances).all()


def test_distances_need_twins_and_a_known_metric(tmp_path):
    with pytest.raises(RecordingError, match="no member has a reference"):
        Recorder(tmp_path / "a.h5", network(), store="distances")
    params = network()
    with pytest.raises(RecordingError, match="l1, l2, linf, rms"):
        Recorder(tmp_path / "a.h5", [params, *perturb(params, 0.1, 1, 0)], store="distances", metric="cosine")
    with pytest.raises(RecordingError, match="weights, distances, sketch"):
        Recorder(tmp_path / "a.h5", params, store="everything")
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("stacked", [False, True])
def test_sketches_can_be_made_again_from_the_stored_weights(tmp_path, stacked):
    states = [[network(seed + 10 * step, "float32") for seed in range(2)] for step in range(4)]

    def shaped(members):
        return {n: np.stack([m[n] for m in members]) for n in members[0]} if stacked else members

    for name, options in (("w.h5", {}), ("s.h5", {"store": "sketch", "sketch": Sketch(16, 3)})):
        with Recorder(tmp_path / name, shaped(states[0]), members=2, **options) as rec:
            for state in states:
                rec.record(shaped(state))
    with tt.open(tmp_path / "w.h5") as weights, tt.open(tmp_path / "s.h5") as sketched:
        settings = sketched.sketch_settings
        again = Sketch(settings["k"], settings["seed"])
        assert sketched.stored == "sketch"
        assert_array_equal(sketched.sketch, again(weights.states[:]))


def test_a_sketch_needs_its_storage_mode(tmp_path):
    with pytest.raises(RecordingError, match="needs store='sketch'"):
        Recorder(tmp_path / "a.h5", network(), sketch=Sketch(4))


@pytest.mark.parametrize(
    ("dtypes", "stored"),
    [
        (("float16", "float16", "float16"), "float16"),
        (("float16", "float32", "float16"), "float32"),
        (("float32", "float64", "float16"), "float64"),
        (("bfloat16", "bfloat16", "bfloat16"), "bfloat16"),
        (("bfloat16", "float16", "bfloat16"), "float32"),
        (("bfloat16", "float32", "bfloat16"), "float32"),
        (("bfloat16", "float64", "float64"), "float64"),
    ],
)
@pytest.mark.parametrize("bits", [False, True])
def test_mixed_dtypes_are_promoted_without_loss(tmp_path, dtypes, stored, bits):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    params = {
        name: array.astype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
        for (name, array), dtype in zip(network().items(), dtypes, strict=True)
    }

    class Bits(Recorder):
        """What an adapter without bfloat16 arrays hands over."""

        def _host(self, leaves):
            return [leaf.view(np.uint16) if leaf.dtype == ml_dtypes.bfloat16 else leaf for leaf in leaves]

    with (Bits if bits else Recorder)(tmp_path / "a.h5", params) as rec:
        rec.record({name: -array for name, array in params.items()})
    with tt.open(tmp_path / "a.h5") as run:
        assert run.logical_dtype == stored
        assert tuple(p.dtype for p in run.parameters) == dtypes
        exact = np.concatenate([array.astype("f8").reshape(-1) for array in params.values()])
        assert_array_equal(run.states[:, 0].astype("f8"), [exact, -exact])
    with h5py.File(tmp_path / "a.h5") as file:
        on_disk = file["weights"].dtype
    assert on_disk == (np.uint16 if stored == "bfloat16" else stored)


def test_big_endian_arrays_are_stored_by_value(tmp_path):
    params = {name: array.astype(">f4") for name, array in network().items()}
    Recorder(tmp_path / "a.h5", params).close()
    with tt.open(tmp_path / "a.h5") as run:
        assert_array_equal(run.states[0, 0], flat(params))


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex128", "U3"])
def test_what_is_no_real_float_is_refused_unless_left_out(tmp_path, dtype):
    params = {**network(), "counter": np.zeros(3, dtype)}
    with pytest.raises(RecordingError, match=r"'counter' is .* exclude=\('counter',\)"):
        Recorder(tmp_path / "a.h5", params)
    Recorder(tmp_path / "a.h5", params, exclude=("counter",)).close()


def test_scalars_and_empty_parameters_have_their_place(tmp_path):
    params = {"scale": np.array(2.5), "empty": np.zeros((0, 3)), "w": np.arange(6.0).reshape(2, 3)}
    Recorder(tmp_path / "a.h5", params).close()
    with tt.open(tmp_path / "a.h5") as run:
        assert run.states[0, 0].tolist() == [2.5, 0, 1, 2, 3, 4, 5]
        assert [p.size for p in run.parameters] == [1, 0, 6]
    with pytest.raises(RecordingError, match="are all empty"):
        Recorder(tmp_path / "b.h5", {"empty": np.zeros((0, 3))})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p | {"0.bias": np.zeros(11)}, r"'0.bias' of member 0 is float64 of shape \(11,\); .* shape \(10,\)"),
        (lambda p: p | {"0.bias": np.zeros(10, "f4")}, "float32 of shape .* opened with float64"),
        (lambda p: p | {"0.bias": [0.0] * 10}, "'0.bias' of member 0 is a list"),
        (lambda p: p | {"4.weight": np.zeros(2)}, "has the new '4.weight'"),
        (lambda p: {"0.weight": p["0.weight"]}, "lacks '0.bias', '2.weight'"),
        (lambda p: [p, p], "has 2 members, the run was opened with 1"),
    ],
)
def test_a_changed_architecture_is_refused_and_the_rest_is_kept(tmp_path, change, words):
    params = network()
    with Recorder(tmp_path / "a.h5", params, strict=True) as rec:
        rec.record(params)
        with pytest.raises(ArchitectureError, match=words):
            rec.record(change(params))
        rec.record(params)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.step.tolist() == [0, 1]
        assert run.status == "complete"


@pytest.mark.parametrize(
    ("state", "members", "error", "words"),
    [
        ([], None, RecordingError, "a mapping name -> array or a list"),
        (np.zeros(3), None, RecordingError, "got ndarray"),
        ({"w": [1.0, 2.0]}, None, RecordingError, "'w' is a list"),
        ({"w": np.zeros((3, 2))}, 2, ArchitectureError, r"'w' has shape \(3, 2\); with members=2"),
        ([network(), network()], 3, ArchitectureError, "declares 3 networks, the state holds 2"),
        ([network(), {"w": np.zeros(2)}], None, ArchitectureError, "member 1 lacks"),
        (network(), 0, ArchitectureError, "declares 0 networks"),
    ],
)
def test_what_is_no_state_is_refused(tmp_path, state, members, error, words):
    with pytest.raises(error, match=words):
        Recorder(tmp_path / "a.h5", state, members=members)
    assert not (tmp_path / "a.h5").exists()
