"""HDF5 files of other programs: read as declared, never followed out of the file, and as good as our own."""

import json
import os
import pickle

import h5py
import numpy as np
import pytest
from command_line import call

import trajtools as tt
from trajtools.cli import options
from trajtools.errors import DataError, FormatError, TrajtoolsError, UnknownNameError, UnsafeFileError
from trajtools.store import foreign

INPUTS, HIDDEN, OUTPUTS = 3, 5, 2
SHAPE = (INPUTS + 1 + HIDDEN + 1, HIDDEN + OUTPUTS)
T = 70


def networks(rng, *leading):
    """Random networks 3-5-2, flat, and as matrices of blocks."""
    kernel, bias = rng.normal(size=(*leading, INPUTS, HIDDEN)), rng.normal(size=(*leading, HIDDEN))
    output, last = rng.normal(size=(*leading, HIDDEN, OUTPUTS)), rng.normal(size=(*leading, OUTPUTS))
    matrix = np.zeros((*leading, *SHAPE))
    matrix[..., :INPUTS, :HIDDEN], matrix[..., INPUTS, :HIDDEN] = kernel, bias
    matrix[..., INPUTS + 1 : -1, HIDDEN:], matrix[..., -1, HIDDEN:] = output, last
    flat = [one.reshape(*leading, -1) for one in (kernel, bias, output, last)]
    return np.concatenate(flat, axis=-1), matrix


@pytest.fixture
def danovski(tmp_path):
    """Two epsilons, three initial conditions, a reference and two copies of each."""
    flat, matrix = networks(np.random.default_rng(0), 2, 3, 3, T)
    path = tmp_path / "p1.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("weights", data=matrix, compression="gzip", shuffle=True, chunks=(1, 1, 1, 16, *SHAPE))
        file.attrs.update(lr=1.0, epsilons=np.array([1e-8, 1e-6]), n_init=np.int64(3), return_loss=np.False_)
        file.attrs["note"] = np.bytes_("Iris")
        file["weights"].attrs["text of any length"] = "not read: it lies in a heap"
    return path, flat


def growing(rate, inits=5, copies=4, steps=120):
    """Distances that grow from 2.5e-4 with `rate`, up to about 2; shape (1, init, copy, step)."""
    rng = np.random.default_rng(1)
    size = np.exp(rng.normal(0, 0.05, (inits, copies, 1))) * 2.5e-4
    speed = rate * np.exp(rng.normal(0, 0.1, (inits, 1, 1)))
    return np.minimum(size * np.exp(speed * np.arange(steps + 1)), 2 + rng.random((inits, copies, 1)))[None]


@pytest.fixture(params=[0.5, 0.0])
def jimenez(tmp_path, request):
    path = tmp_path / "p2.h5"
    with h5py.File(path, "w") as file:
        file["weights"] = growing(request.param)
        file.attrs.update(learning_rate=5.0, epsilon=np.array([1e-8]), num_pert=4)
    return path, request.param


# Weights


def test_twins_in_matrices_of_blocks_have_the_distances_that_plain_numpy_gives(danovski):
    path, flat = danovski
    ensembles = foreign.read(path, layout="danovski2024")
    assert [one.name for one in ensembles] == ["epsilon=1e-08", "epsilon=1e-06"]
    for e, one in enumerate(ensembles):
        growth = tt.twins(one.pairs)
        wanted = np.abs(flat[e, :, 1:] - flat[e, :, :1]).sum(axis=-1).reshape(-1, T)
        np.testing.assert_allclose(growth.distances, wanted, rtol=1e-12)
        np.testing.assert_array_equal(growth.group, [0, 0, 1, 1, 2, 2])
        np.testing.assert_array_equal(one.group, growth.group)
        assert (one.epsilon, one.hparams["lr"], one.hparams["note"]) == ((1e-8, 1e-6)[e], 1.0, "Iris")
        assert one.hparams["return_loss"] is False
        assert one.source["unread_attributes"] == ["text of any length"]
    reference, copies = ensembles[0].pairs[1]
    assert len(copies) == 2
    np.testing.assert_array_equal(reference, flat[0, 1, 0])
    assert [(p.name, p.shape) for p in reference.parameters] == [
        ("hidden.kernel", (3, 5)), ("hidden.bias", (5,)), ("output.kernel", (5, 2)), ("output.bias", (2,)),
    ]  # fmt: skip
    network = reference.network(0)
    assert (network.number_of_nodes(), network.number_of_edges()) == (INPUTS + HIDDEN + OUTPUTS + 1, 32)


def test_the_states_are_lazy_and_can_be_sent_to_another_process(danovski):
    path, flat = danovski
    source = foreign.read(path, layout="danovski2024")[1].pairs[2][1][0].source
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(np.array([60, 3, 4]), slice(2, 9)), flat[1, 2, 1][[60, 3, 4], 2:9])
    np.testing.assert_array_equal(again.read(slice(50, 10, -7)), flat[1, 2, 1][50:10:-7])
    assert again.read(slice(0, 0)).shape == (0, 32)


@pytest.mark.parametrize("dtype", ["float16", "<f4", ">f8", "int32"])
@pytest.mark.parametrize(
    "axes", ["init epsilon member step entry", "step entry member init epsilon", "a b step member init"]
)
def test_axes_are_taken_in_any_order(tmp_path, axes, dtype):
    names = axes.split()
    sizes = {"init": 3, "epsilon": 1, "member": 2, "step": 20, "entry": 6, "a": 2, "b": 3}
    w = (10 * np.random.default_rng(0).normal(size=[sizes[name] for name in names])).astype(dtype)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["some/where/w"] = w
    (one,) = foreign.read(tmp_path / "x.h5", dataset="some/where/w", axes=axes, holds="weights")
    order = [names.index(n) for n in ("init", "member", "step")]
    rest = [i for i in range(w.ndim) if i not in order]
    plain = w.transpose(*order, *rest).reshape(3, 2, 20, 6)
    assert len(one.pairs) == 3
    for i, (reference, copies) in enumerate(one.pairs):
        np.testing.assert_array_equal(reference, plain[i, 0])
        np.testing.assert_array_equal(copies[0], plain[i, 1])
        assert reference.dtype == (np.float64 if dtype == "int32" else np.dtype(dtype).newbyteorder("="))
        assert [(p.name, p.kind, p.source) for p in reference.parameters] == [("w", "other", None)]


@pytest.mark.parametrize("axes", ["step row column", "row step column", "step entry", "entry step"])
def test_a_stretch_of_weights_reads_its_part_of_the_dataset_only(tmp_path, axes, monkeypatch):
    states = np.random.default_rng(0).normal(size=(20, 12, 10))
    if "entry" in axes:
        states = states.reshape(20, 120)
    first = axes.split().index("step")
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["w"] = np.moveaxis(states, 0, first)
    (one,) = foreign.read(tmp_path / "one.h5", axes=axes, holds="weights")
    x, flat, sizes = one.pairs[0][0].source, states.reshape(20, 120), []
    plain = h5py.Dataset.__getitem__

    def spy(data, key):
        block = plain(data, key)
        sizes.append(block.size)
        return block

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    for columns in (
        slice(None),
        slice(35, 52),
        slice(52, 35, -3),
        np.array([44, 31, 31]),
        slice(7, 7),
        np.array([], int),
    ):
        for rows in (slice(3, 9), np.array([8, 3])):
            np.testing.assert_array_equal(x.read(rows, columns), flat[rows][:, columns])
    assert max(sizes) == 6 * 120
    sizes.clear()
    x.read(slice(3, 9), slice(35, 52))
    assert sizes == [6 * (17 if "entry" in axes else 30)]


def test_matrices_that_are_no_network_of_one_hidden_layer_are_refused_with_a_way_out(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["weights"] = np.ones((1, 1, 2, 5, *SHAPE))
    with pytest.raises(DataError, match="fit no network of one hidden layer; take the matrices as they are"):
        foreign.read(tmp_path / "x.h5", layout="danovski2024")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["weights"] = np.zeros((1, 1, 2, 5, *SHAPE))
    with pytest.raises(DataError, match=r"fit 7-1-6 or 6-2-5 or .* of one hidden layer"):
        foreign.read(tmp_path / "y.h5", layout="danovski2024")


# Distances


def test_distances_are_read_as_curves_of_copies(jimenez):
    path, rate = jimenez
    (one,) = foreign.read(path, layout="jimenez2025")
    np.testing.assert_array_equal(one.distances, growing(rate)[0].reshape(20, 121).T)
    np.testing.assert_array_equal(one.group, np.repeat(np.arange(5), 4))
    assert (one.holds, one.metric, one.epsilon, one.pairs) == ("distances", "l1", 1e-8, [])
    growth = tt.Divergence.from_distances(one.distances, group=one.group)
    gain = growth.log_distance[-1] - growth.log_distance[0]
    assert abs(gain - (9.1 if rate else 0.0)) < 0.3
    exponent = growth.fit(rng=0)
    if rate:
        assert abs(exponent.value / rate - 1) < 0.15
    else:
        assert not exponent.value > 0.01


def test_axes_of_distances_may_be_missing_or_in_another_order(tmp_path):
    d = growing(0.3)[0]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["d"], file["one"] = d.transpose(2, 1, 0), d[0, 0]
    (one,) = foreign.read(tmp_path / "x.h5", dataset="d", axes="step,member,init", holds="distances", metric="l2")
    np.testing.assert_array_equal(one.distances, d.reshape(20, -1).T)
    assert (one.metric, np.isnan(one.epsilon)) == ("l2", True)
    (one,) = foreign.read(tmp_path / "x.h5", dataset="one", axes="step", holds="distances")
    assert one.distances.shape == (121, 1)


# Distances that exist already


def test_distances_of_twins_give_the_divergence_of_twins():
    rng = np.random.default_rng(0)
    references = rng.normal(size=(3, 40, 6))
    pairs = [(x, [x + 1e-6 * np.exp(0.2 * np.arange(40))[:, None] * rng.normal(size=6) for _ in range(2)])
             for x in references]  # fmt: skip
    wanted = tt.twins(pairs)
    for d in (wanted.distances.T, list(wanted.distances)):
        growth = tt.Divergence.from_distances(d, group=wanted.group)
        np.testing.assert_array_equal(growth.distances, wanted.distances)
        np.testing.assert_array_equal(growth.log_distance, wanted.log_distance)
        np.testing.assert_array_equal(growth.time, wanted.time)
        assert (growth.n_references, growth.time_unit, growth.metric) == (3, "step", "l1")
        assert [w.code for w in growth.warnings] == ["floor-unknown"]
        assert growth.fit(rng=0).value == pytest.approx(wanted.fit(rng=0).value, rel=0.05)


def test_curves_begin_at_their_perturbation_and_end_where_they_are_unknown():
    d = np.exp(0.1 * np.arange(12.0))[:, None] * [1e-6, 1e-6, 1e-6, 1e-6]
    d[:3, 0] = 0  # perturbed at row 3
    d[9:, 1] = np.nan
    d[8:, 2] = 0  # merged
    masked = np.ma.masked_array(d, mask=np.zeros_like(d, dtype=bool))
    masked.mask[7:, 3] = True
    growth = tt.Divergence.from_distances(masked, time=10 * np.arange(12) + 100, start=[100, 100, 100, 200])
    np.testing.assert_array_equal(growth.start, [130, 100, 100, 200])
    np.testing.assert_array_equal(growth.time, 10.0 * np.arange(12))
    assert (growth.n_references, growth.time_unit) == (4, "time")
    assert np.isnan(growth.distances[0, 9:]).all()
    np.testing.assert_allclose(growth.distances[0, :9], d[3:, 0])
    assert [w.code for w in growth.warnings] == ["floor-unknown", "merged", "diverged"]
    assert growth.settings["n_zeros"] == 4
    short = tt.Divergence.from_distances([d[:5, 3], d[:, 3]], group=["a", "a"])
    assert (short.n_references, np.isnan(short.distances[0, 5:]).all()) == (1, True)


@pytest.mark.parametrize(
    ("d", "more", "words"),
    [
        (np.ones((3, 2, 2)), {}, r"\(T, C\), \(T,\) or a list"),
        (-np.ones((3, 2)), {}, "never negative; if these are logarithms"),
        (np.ones((3, 2)) * 1j, {}, "real numbers"),
        (np.array(["a", "b"]), {}, "real numbers"),
        ([[[1.0], [2.0]], [[3.0]]], {}, "array of real numbers, and this is none"),
        (np.empty((0, 3)), {}, "hold no curve"),
        ([], {}, "hold no curve"),
        (np.ones((3, 2)), {"time": [0, 1]}, "time must be 3 numbers"),
        (np.ones((3, 2)), {"time": [0, 2, 1]}, "must rise"),
        (np.ones((3, 2)), {"group": [0]}, "each of the 2 curves"),
        (np.ones((3, 2)), {"start": [0, 1, 2]}, "one step or 2"),
        (np.ones((3, 2)), {"start": 0.5}, "one step or 2"),
        (np.ones((3, 2)), {"average": "median"}, "no average 'median'"),
    ],
)
def test_distances_that_make_no_sense_are_refused(d, more, words):
    with pytest.raises(TrajtoolsError, match=words):
        tt.Divergence.from_distances(d, **more)


# Files from strangers


def test_nothing_is_followed_out_of_the_file(tmp_path):
    w = np.ones((1, 2, 5))
    with h5py.File(tmp_path / "there.h5", "w") as file:
        file["w"] = w
    layout = h5py.VirtualLayout(w.shape, w.dtype)
    layout[...] = h5py.VirtualSource(tmp_path / "there.h5", "w", w.shape)
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["external"] = h5py.ExternalLink("there.h5", "w")
        file["pipe"] = h5py.ExternalLink("pipe", "w")
        file["soft"] = h5py.SoftLink("/group/w")
        file["group/w"] = w
        file["door"] = h5py.ExternalLink("there.h5", "/")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("storage", w.shape, "f8", external=[(str(tmp_path / "raw"), 0, w.nbytes)])
    for name in ("external", "pipe", "soft", "door/w", "virtual", "storage"):
        with pytest.raises(UnsafeFileError, match="refused"):
            foreign.read(tmp_path / "x.h5", dataset=name, axes="init member step", holds="weights")
    assert foreign.read(tmp_path / "x.h5", dataset="group/w", axes="init member step", holds="weights")
    (tmp_path / "raw").touch()
    assert "virtual" not in str(foreign.suggestion(tmp_path / "pipe"))


def test_what_the_file_does_not_hold_is_refused_before_memory_is_asked_for(tmp_path):
    axes = {"axes": "init member step", "holds": "weights"}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("never", (10**6, 2, 10**6), "f8", chunks=(1, 2, 1000))
        file.create_dataset("bomb", (10**5, 2, 10**5), "f8", chunks=(1, 2, 10**5), compression="gzip")[0] = 1.0
        file.create_dataset("part", (4, 2, 8), "f8", chunks=(1, 2, 8))[:3] = 1.0
        file.create_dataset("late", (4, 2, 8), "f8")
        file.create_dataset("filter", data=np.ones((4, 2, 8), int), scaleoffset=4, chunks=(1, 2, 8))
        file.create_dataset("empty", (4, 0, 8), "f8")
    for name, error, words in (
        ("never", UnsafeFileError, "holds far fewer"),
        ("bomb", UnsafeFileError, "holds far fewer"),
        ("part", FormatError, "only 75% of it was ever written"),
        ("late", FormatError, "only 0% of it was ever written"),
        ("filter", UnsafeFileError, "uses the HDF5 filter 6"),
        ("empty", DataError, "its axis 'member' has the size 0"),
    ):
        with pytest.raises(error, match=words):
            foreign.read(tmp_path / "x.h5", dataset=name, **axes)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, DataError, "what the file holds is unknown"),
        ({"layout": "smith1999"}, UnknownNameError, "there are danovski2024, jimenez2025"),
        ({"layout": "jimenez2025", "axes": "step"}, DataError, "drop it, or axes and holds"),
        ({"axes": "step", "holds": "losses"}, UnknownNameError, "weights or distances"),
        ({"axes": "init init step", "holds": "weights"}, DataError, "two axes are called 'init'"),
        ({"axes": "init member entry", "holds": "weights"}, DataError, "no axis is called 'step'"),
        ({"axes": "init step entry", "holds": "distances"}, DataError, "not entry; for states give holds='weights'"),
        ({"axes": "init step", "holds": "distances"}, DataError, r"3 axes, of sizes \(2, 3, 4\); 2 are named"),
        ({"axes": "init member step", "holds": "weights", "dataset": "v"}, DataError, r"datasets are: w \(2, 3, 4\)"),
        ({"axes": "init member step", "holds": "weights", "dataset": ".."}, DataError, "holds no dataset"),
        ({"axes": "init member step", "holds": "weights", "dataset": "text"}, DataError, "real numbers"),
    ],
)
def test_a_wrong_declaration_is_answered_in_one_sentence(tmp_path, arguments, error, words):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"] = np.ones((2, 3, 4))
        file["text"] = np.full((2, 3, 4), b"a")
    with pytest.raises(error, match=words):
        foreign.read(tmp_path / "x.h5", **arguments)


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no HDF5 at all")
    os.mkfifo(tmp_path / "pipe.h5")
    for name, words in (("x.h5", "HDF5 cannot read"), ("pipe.h5", "is not a file"), ("no.h5", "does not exist")):
        with pytest.raises(TrajtoolsError, match=words):
            foreign.read(tmp_path / name, layout="jimenez2025")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["a"], file["b"] = np.ones(3), np.ones(4)
    with pytest.raises(DataError, match=r"choose one with dataset=; there are: a \(3,\), b \(4,\)"):
        foreign.read(tmp_path / "y.h5", axes="step", holds="distances")


# The commands


def test_lyapunov_reads_distances_of_another_program(jimenez):
    path, rate = jimenez
    document = json.loads(call("lyapunov", path, "--layout", "jimenez2025", "--json").stdout)
    (result,) = document["results"]
    assert (result["run"], result["hparams"]["learning_rate"]) == ("p2", 5.0)
    assert result["facts"]["twins"] == 20
    curve = result["curve"]["log_distance"]
    assert abs(curve[-1] - curve[0] - (9.1 if rate else 0.0)) < 0.3
    declared = ("--dataset", "weights", "--axes", "epsilon init member step", "--holds", "distances")
    again = json.loads(call("lyapunov", path, *declared, "--json", "--window", "5:80").stdout)
    np.testing.assert_allclose(again["results"][0]["curve"]["log_distance"], curve[5:80])
    scaled = json.loads(call("lyapunov", path, *declared, "--json", "--dt", "0.5").stdout)
    assert scaled["results"][0]["curve"]["time"][-1] == 60


def test_lyapunov_reads_weights_of_another_program(danovski):
    path, flat = danovski
    document = json.loads(call("lyapunov", path, "--layout", "danovski2024", "--json", "--null", "none").stdout)
    assert [one["run"] for one in document["results"]] == ["p1 epsilon=1e-08", "p1 epsilon=1e-06"]
    wanted = np.log(np.abs(flat[1, :, 1:] - flat[1, :, :1]).sum(-1)).mean(axis=(0, 1))
    np.testing.assert_allclose(document["results"][1]["curve"]["log_distance"], wanted, rtol=1e-12)
    part = call("lyapunov", path, "--layout", "danovski2024", "--json", "--null", "none", "--select", "hidden.*")
    curve = json.loads(part.stdout)["results"][0]["curve"]["log_distance"]
    wanted = np.log(np.abs(flat[0, :, 1:, :, :20] - flat[0, :, :1, :, :20]).sum(-1)).mean(axis=(0, 1))
    np.testing.assert_allclose(curve, wanted, rtol=1e-12)
    said = call("lyapunov", path, "--layout", "danovski2024", "--theiler", 3, code=1).stderr
    assert "--theiler: only for trajectories" in said
    assert "--run is for recorded files" in call(
        "lyapunov", path, "--layout", "danovski2024", "--run", "x", code=1
    ).stderr  # fmt: skip


@pytest.mark.parametrize("command", ["recurrence", "distances", "correlation", "dimension"])
def test_commands_on_one_trajectory_take_each_initial_condition(danovski, jimenez, command):
    path, _ = danovski
    options = ("--layout", "danovski2024", "--member", 1, "--window", "0:40", "--select", "hidden.*", "--json")
    results = json.loads(call(command, path, *options).stdout)["results"]
    assert [one["run"] for one in results] == [f"p1 epsilon={e} init {i}" for e in ("1e-08", "1e-06") for i in range(3)]
    assert "no member 3" in call(command, path, "--layout", "danovski2024", "--member", 3, code=1).stderr
    assert "--series is for" in call(command, path, "--layout", "danovski2024", "--series", "x", code=1).stderr
    said = call(command, jimenez[0], "--layout", "jimenez2025", code=1).stderr
    assert "declared to hold distances, and this command needs states" in said


def test_distances_by_the_command_are_those_of_numpy(danovski, tmp_path):
    _, flat = danovski
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["w"] = flat[0, 0, 0]
    call("distances", tmp_path / "one.h5", "--axes", "step entry", "--holds", "weights", "--save", tmp_path / "d.h5")
    wanted = np.linalg.norm(flat[0, 0, 0][:, None] - flat[0, 0, 0][None], axis=-1)
    np.testing.assert_allclose(tt.Distances.open(tmp_path / "d.h5").read(0, T), wanted, rtol=1e-9, atol=1e-12)
    said = call("lyapunov", tmp_path / "one.h5", "--axes", "step entry", "--holds", "weights", code=1).stderr
    assert "declared to hold no copies" in said


def test_each_initial_condition_becomes_a_file_of_its_own(danovski, tmp_path):
    path, flat = danovski
    said = call("convert", path, "--layout", "danovski2024", "-o", tmp_path / "out", "--hparams", '{"batch": 120}')
    names = [f"epsilon_{e}_init_{i}.h5" for e in ("1e-06", "1e-08") for i in range(3)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    assert all(name in said.stdout for name in names)
    with tt.open(tmp_path / "out" / "epsilon_1e-06_init_2.h5") as run:
        assert (run.name, run.status) == ("epsilon_1e-06_init_2", "complete")
        assert run.hparams == {"lr": 1.0, "epsilons": [1e-8, 1e-6], "n_init": 3, "return_loss": False, "note": "Iris",
                               "batch": 120}  # fmt: skip
        np.testing.assert_array_equal(run.states[:], flat[1, 2].transpose(1, 0, 2))
        assert [(m.name, m.reference, m.epsilon) for m in run.members[1:]] == [("copy 0", 0, 1e-6), ("copy 1", 0, 1e-6)]
        assert run.provenance["converted"]["layout"] == "danovski2024"
    assert not tt.validate(tmp_path / "out" / "epsilon_1e-06_init_2.h5")
    assert "never overwritten" in call(
        "convert", path, "--layout", "danovski2024", "-o", tmp_path / "out", code=1
    ).stderr  # fmt: skip


def test_distances_become_runs_that_every_command_reads(jimenez, tmp_path):
    path, rate = jimenez
    out = tmp_path / "runs"
    document = json.loads(call("convert", path, "--layout", "jimenez2025", "-o", out, "--json").stdout)
    assert [one["stored"] for one in document["files"]] == ["distances"] * 5
    d = growing(rate)[0]
    with tt.open(out / "init_3.h5") as run:
        growth = tt.twins(run)
    np.testing.assert_array_equal(growth.distances, d[3])
    call("convert", path, "--layout", "jimenez2025", "--metric", "l2", "-o", tmp_path / "l2")
    with tt.open(tmp_path / "l2" / "init_3.h5") as run:
        assert run.distance_metric == "l2"
    assert len(json.loads(call("lyapunov", out, "--json").stdout)["results"]) == 5


def test_a_single_run_goes_to_a_file_and_several_do_not(danovski, tmp_path):
    path, _ = danovski
    said = call("convert", path, "--layout", "danovski2024", "-o", tmp_path / "out.h5", code=1).stderr
    assert "holds 6 runs (initial conditions and epsilons), and a file holds one: give a folder" in said
    w = np.random.default_rng(0).normal(size=(2, 300, 4)).astype("f4")
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["w"] = w
    call("convert", tmp_path / "one.h5", "--axes", "member step entry", "--holds", "weights", "-o", tmp_path / "out.h5",
         "--compress", "gzip")  # fmt: skip
    with tt.open(tmp_path / "out.h5") as run:
        np.testing.assert_array_equal(run.states[:], w.transpose(1, 0, 2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.h5", "out.h5", "p1.h5"]


def test_a_failed_conversion_leaves_nothing_behind(danovski, tmp_path, monkeypatch):
    path, _ = danovski

    def fail(*arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trajtools.store.foreign.RunWriter.write", fail)
    with pytest.raises(OSError, match="No space left"):
        tt.convert(path, tmp_path / "out", layout="danovski2024")
    assert [p.name for p in tmp_path.iterdir()] == ["p1.h5"]


def test_one_function_takes_files_of_other_programs_and_checkpoints(danovski, tmp_path):
    path, _ = danovski
    done = tt.convert(path, tmp_path / "out", layout="danovski2024", hparams={"batch": 3})
    assert list(done.paths) == sorted(done.paths, key=list(done.paths).index)
    assert {p.name for p in done.paths} == {p.name for p in (tmp_path / "out").iterdir()}
    foreign.convert(path, tmp_path / "same", layout="danovski2024", hparams={"batch": 3})
    for one in done.paths:
        with tt.open(one) as run, tt.open(tmp_path / "same" / one.name) as other:
            np.testing.assert_array_equal(run.states[:], other.states[:])
            assert run.hparams == other.hparams
            assert run.hparams["batch"] == 3
    with pytest.raises(DataError, match="files is for checkpoints"):
        tt.convert(path, tmp_path / "x", layout="danovski2024", files="*")
    with pytest.raises(DataError, match="--layout, or --dataset, --axes and --holds"):
        tt.convert(path, tmp_path / "x")
    with pytest.raises(FileExistsError, match="never overwritten"):
        tt.convert(path, tmp_path / "out", layout="danovski2024")
    np.savez(tmp_path / "saved.npz", w=np.arange(30.0).reshape(5, 2, 3), step=np.arange(0, 50, 10))
    done = tt.convert(tmp_path / "saved.npz", tmp_path / "run.h5")
    assert (done.paths, done.steps) == ((tmp_path / "run.h5",), (0, 10, 20, 30, 40))
    with tt.open(done.paths[0]) as run:
        assert run.states[:].tolist() == np.arange(30.0).reshape(5, 1, 6).tolist()


def test_options_of_checkpoints_are_refused(danovski, tmp_path):
    said = call("convert", danovski[0], "--layout", "danovski2024", "-o", tmp_path / "x", "--files", "*", code=2).stderr
    assert "--files is for checkpoints" in said


def test_a_file_that_is_not_ours_is_answered_with_a_command_that_works(danovski, jimenez, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, layout in ((danovski[0], "danovski2024"), (jimenez[0], "jimenez2025")):
        for command in ("info", "lyapunov", "recurrence"):
            said = call(command, path, code=1).stderr
            assert (
                f"looks like the layout {layout}: measure it by `trajtools lyapunov {path} --layout {layout}`" in said
            )
            assert f"`trajtools convert {path} --layout {layout} -o FOLDER`" in said
        said = call("convert", path, "-o", layout, code=1).stderr
        call(*said.split("trajtools ")[-1].replace("FOLDER`", layout).split())
        assert (tmp_path / layout).is_dir()
    with h5py.File("other.h5", "w") as file:
        file["w"] = np.ones((2, 3, 4))
    assert "dataset 'w' has the shape (2, 3, 4): `trajtools convert`" in call("info", "other.h5", code=1).stderr


def test_choices_are_those_of_the_library():
    assert tuple(foreign.LAYOUTS) == options.LAYOUTS
    assert foreign.HOLDS == options.HOLDS
