"""Runs in the formats of other programs: every bit of the weights, every digit of a table, every edge of a network."""

import csv
import io
import os
import sys
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pytest
from command_line import call, process, write
from saved_weights import SHAPES, assert_states, save, save_bfloat16, weights

import trajtools as tt
from recorders import Recorder, Sketch
from trajtools.checkpoints import convert
from trajtools.errors import DataError, UnknownNameError
from trajtools.wiring import Member

STEPS = (0, 5, 12, 40)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    for step in STEPS:
        save(folder / "saved" / f"{step}.npz", weights(step))
    convert(folder / "saved", folder / "one.h5")
    return folder / "one.h5"


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """A run of a reference and two copies, with all shapes of metrics."""
    path = tmp_path_factory.mktemp("export") / "one.h5"
    members = [Member("net"), Member("a, b", 0, 1e-3), Member("c", 0, 1e-3)]
    rng = np.random.default_rng(0)
    state = {"w": rng.normal(size=(3, 2, 2)), "b": rng.normal(size=(3, 2))}
    with Recorder(path, state, members=members, quiet=True) as recorder:
        for _ in range(70):
            recorder.record(loss=rng.normal(), accuracy=rng.normal(size=3), eigen=rng.normal(size=(3, 2)))
            state = {name: values + 0.1 * rng.normal(size=values.shape) for name, values in state.items()}
            recorder.record(state)
    return path


def table(text):
    head, *rows = csv.reader(io.StringIO(text))
    return head, np.array(rows, dtype=float)


# npz


def test_npz_holds_every_bit_under_the_names_of_the_arrays(converted, tmp_path):
    call("export", converted, "-o", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert found.files == ["step", *SHAPES]
        np.testing.assert_array_equal(found["step"], STEPS)
        for name in SHAPES:
            wanted = np.stack([weights(step)[name] for step in STEPS])
            assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape)
            assert found[name].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtypes", [("float16", "float64"), ("float32", "float32"), ("float16", "float16")])
def test_a_folder_goes_round_through_a_file_and_back_without_losing_a_bit(tmp_path, dtypes):
    def made(step):
        one, two = (weights(step, dtype) for dtype in dtypes)
        return {"fc1.weight": one["fc1.weight"], "fc2.weight": two["fc2.weight"], "scale": np.array(step, dtypes[0])}

    def no_signalling(step):
        # What NumPy makes of a signalling NaN of float16 that passes through a wider dtype: the quiet one.
        return {n: a.astype("f8").astype(a.dtype) if n in ("fc1.weight", "scale") else a for n, a in made(step).items()}

    for step in STEPS:
        save(tmp_path / "saved" / f"w_{step}.npz", made(step))
    convert(tmp_path / "saved", tmp_path / "one.h5")
    call("export", tmp_path / "one.h5", "--format", "npz", "-o", tmp_path / "again")
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == [f"step_{step:02d}.npz" for step in STEPS]
    convert(tmp_path / "again", tmp_path / "two.h5")
    with tt.open(tmp_path / "one.h5") as one, tt.open(tmp_path / "two.h5") as two:
        assert one.parameters == two.parameters
        assert one.states[:].tobytes() == two.states[:].tobytes()
        assert_states(two, STEPS, made if dtypes[0] == dtypes[1] else no_signalling)


def test_many_states_are_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("trajtools.exports.BLOCK_BYTES", 1000)
    states = np.random.default_rng(0).normal(size=(200, 1, 7))
    call("export", write(tmp_path / "long.h5", states), "-o", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["layer.kernel"], states[:, 0])


def test_states_are_chosen_as_elsewhere(twins, tmp_path):
    out = tmp_path / "out.npz"
    with tt.open(twins) as run:
        x = run.trajectory(1)
        call(
            "export",
            twins,
            "-o",
            out,
            "--member",
            1,
            "--window",
            "10:60",
            "--every",
            7,
            "--select",
            "w",
        )
        with np.load(out) as found:
            assert found.files == ["step", "w", "metrics/accuracy", "metrics/eigen", "metrics/loss"]
            np.testing.assert_array_equal(found["step"], np.arange(10, 60, 7))
            np.testing.assert_array_equal(found["w"].reshape(-1, 4), x.window(10, 60, 7).select("w"))
            np.testing.assert_array_equal(found["metrics/eigen"], run.metrics["eigen"][10:60:7, 1])
        for which in (("--step", 69), ("--state", -2)):
            call("export", twins, "-o", out, "--force", "--member", 1, *which)
            with np.load(out) as found:
                assert found.files == ["w", "b"]
                np.testing.assert_array_equal(found["w"], x[69][:4].reshape(2, 2))
    said = call("export", twins, "-o", out, "--force").stderr
    assert "member 0, 'net', of 3" in said
    with np.load(out) as found:
        assert found["metrics/accuracy"].shape == (71,)  # of the same member
    assert call("export", twins, "-o", out, "--force", "-q").stderr == ""


def test_buffers_of_the_optimiser_go_along(tmp_path):
    rng = np.random.default_rng(0)
    made = rng.normal(size=(4, 2, 3, 2))
    with Recorder(tmp_path / "b.h5", {"w": made[0, 0]}, buffers={"w.momentum": made[0, 1]}, quiet=True) as recorder:
        for state, buffer in made[1:]:
            recorder.record({"w": state}, buffers={"w.momentum": buffer})
    call("export", tmp_path / "b.h5", "-o", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["w"], made[:, 0])
        np.testing.assert_array_equal(found["optimizer/w.momentum"], made[:, 1])


def test_runs_without_weights_give_what_they_hold(tmp_path):
    rng = np.random.default_rng(0)
    members = [Member("net"), Member("copy", 0)]
    states = rng.normal(size=(5, 2, 3))
    for name, options in (("distances", {}), ("sketch", {"sketch": Sketch(4)})):
        path = tmp_path / f"{name}.h5"
        with Recorder(path, {"w": states[0]}, members=members, store=name, quiet=True, **options) as recorder:
            for state in states[1:]:
                recorder.record({"w": state})
        said = call("export", path, "-o", tmp_path / "out.npz", "--force").stderr
        assert "Weights" not in said
        with np.load(tmp_path / "out.npz") as found, tt.open(path) as run:
            assert found.files == ["step", name]
            np.testing.assert_array_equal(found[name], getattr(run, name))
        assert "not the weights" in call("export", path, "--format", "npz", "-o", tmp_path / "no", code=1).stderr
    said = call("export", tmp_path / "distances.h5", "--format", "csv").stdout
    head, rows = table(said)
    assert head == ["step", "distance[copy]"]
    np.testing.assert_array_equal(rows[:, 1], np.abs(states[:, 1] - states[:, 0]).sum(axis=1))
    said = call("export", tmp_path / "sketch.h5", "--format", "csv", code=1).stderr
    assert "no metrics: export other data with --format npz" in said
    wrong = call("export", tmp_path / "distances.h5", "--format", "csv", "--metric", "l2", code=1)
    assert "--metric l1" in wrong.stderr


def test_bfloat16_becomes_float32_of_the_same_value(tmp_path):
    pytest.importorskip("safetensors")
    bits = np.random.default_rng(0).integers(0, 2**16, (5, 7), dtype=np.uint16)
    save_bfloat16(tmp_path / "saved" / "1.safetensors", bits)
    convert(tmp_path / "saved", tmp_path / "b.h5", include="w")
    call("export", tmp_path / "b.h5", "-o", tmp_path / "out.npz", "--state", 0)
    with np.load(tmp_path / "out.npz") as found:
        assert found["w"].dtype == np.float32
        np.testing.assert_array_equal(found["w"].view(np.uint32), bits.astype(np.uint32) << 16)


# csv


def test_csv_holds_metrics_to_the_last_digit(twins):
    head, rows = table(call("export", twins, "--format", "csv").stdout)
    assert head == ["step", *(f"accuracy[{m}]" for m in ("net", "a, b", "c")),
                    *(f"eigen[{m},{i}]" for m in ("net", "a, b", "c") for i in (0, 1)), "loss"]  # fmt: skip
    with tt.open(twins) as run:
        metrics = run.metrics
        np.testing.assert_array_equal(rows[:, 1:4], metrics["accuracy"])
        np.testing.assert_array_equal(rows[:, 4:10].reshape(-1, 3, 2), metrics["eigen"])
        np.testing.assert_array_equal(rows[:, 10], metrics["loss"])
    head, _ = table(call("export", twins, "--format", "csv", "--member", 2, "--series", "e*").stdout)
    assert head == ["step", "eigen[0]", "eigen[1]"]


def test_csv_holds_distances_and_weights(twins, tmp_path):
    what = ("--what", "distances", "--what", "weights")
    out = tmp_path / "out.csv"
    said = call("export", twins, "-o", out, *what, "--metric", "l2", "--window", "3:20")
    assert said.stdout == ""
    head, rows = table(out.read_text(encoding="utf-8"))
    assert head == ["step", "distance[a, b]", "distance[c]", "w[0,0]", "w[0,1]", "w[1,0]", "w[1,1]", "b[0]", "b[1]"]
    with tt.open(twins) as run:
        x = [np.asarray(run.trajectory(i).window(3, 20)) for i in range(3)]
    np.testing.assert_array_equal(rows[:, 0], np.arange(3, 20))
    np.testing.assert_array_equal(rows[:, 3:], x[0])
    for i in (1, 2):
        np.testing.assert_allclose(rows[:, i], np.linalg.norm(x[i] - x[0], axis=1), rtol=1e-13)
    head, rows = table(call("export", twins, "--format", "csv", *what, "--member", 2).stdout)
    assert head[1:3] == ["distance[c]", "w[0,0]"]
    assert "member 0 of run 'one' is no perturbed copy" in call(
        "export", twins, "--format", "csv", *what, "--member", 0, code=1
    ).stderr  # fmt: skip


def test_stored_distances_are_exported_in_their_metric(tmp_path):
    members, path = [Member("net"), Member("copy", 0, 1e-3)], tmp_path / "x.h5"
    with Recorder(
        path, {"w": np.zeros((2, 3))}, members=members, store="distances", metric="linf", quiet=True
    ) as recorder:
        recorder.record({"w": np.array([[0.0, 0.0, 0.0], [1.0, -3.0, 2.0]])})
    what = ("export", path, "--format", "csv", "--what", "distances")
    np.testing.assert_array_equal(table(call(*what).stdout)[1], [[0, 0], [1, 3]])
    np.testing.assert_array_equal(table(call(*what, "--metric", "linf").stdout)[1], [[0, 0], [1, 3]])
    assert "--metric linf" in call(*what, "--metric", "l1", code=1).stderr


def test_numbers_that_are_none_stand_in_csv_as_such(tmp_path):
    states = np.array([[[1.0, np.nan, -np.inf, 1e-320]]]).repeat(3, axis=0)
    said = call("export", write(tmp_path / "x.h5", states), "--format", "csv", "--what", "weights").stdout
    assert said.splitlines()[1] == "0,1.0,nan,-inf,1e-320"


def test_too_wide_a_table_is_refused_before_it_is_made(tmp_path):
    wide = write(tmp_path / "wide.h5", np.ones((3, 1, 1200)))
    said = call("export", wide, "-o", tmp_path / "out.csv", "--what", "weights", code=1).stderr
    for words in ("1200 columns", "more than 1000", "--select", "--max-columns", "npz"):
        assert words in said
    assert not (tmp_path / "out.csv").exists()
    call("export", wide, "-o", tmp_path / "out.csv", "--what", "weights", "--max-columns", 1200)
    assert table((tmp_path / "out.csv").read_text())[1].shape == (3, 1201)


def test_names_in_a_table_cannot_command_the_terminal(tmp_path):
    members = [Member("\x1b[31mred"), Member("copy", 0)]
    path = write(tmp_path / "evil.h5", np.ones((3, 2, 2)), members=members)
    assert "\x1b" not in call("export", path, "--format", "csv", "--what", "distances").stdout
    with Recorder(tmp_path / "m.h5", {"w": np.ones(2)}, quiet=True) as recorder:
        recorder.record(**{"\x1b[31mred": 1.0})
    assert "\\x1b[31mred" in call("export", tmp_path / "m.h5", "--format", "csv").stdout


def test_a_table_goes_through_a_pipe(twins):
    done = process("export", twins, "--format", "csv", "--member", "0")
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 72


# State dicts


def load_npz(path):
    torch = pytest.importorskip("torch")
    with np.load(path) as found:
        return {name: torch.from_numpy(found[name]) for name in found.files}


def load_safetensors(path):
    return pytest.importorskip("safetensors.torch").load_file(path)


def load_pt(path):
    return pytest.importorskip("torch").load(path, weights_only=True)


LOADERS = {"npz": load_npz, "safetensors": load_safetensors, "pt": load_pt}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every kind of parameter, in float64, and the state dicts at all steps."""
    torch = pytest.importorskip("torch")
    from recorders.torch import Recorder as TorchRecorder

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 3, bias=False), torch.nn.PReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.LayerNorm(3)).double()
    path, dicts = tmp_path_factory.mktemp("torch") / "net.h5", []
    with TorchRecorder(path, model, quiet=True) as recorder:
        for _ in range(4):
            dicts.append({name: value.clone() for name, value in model.state_dict().items()})
            with torch.no_grad():
                for value in model.parameters():
                    value.add_(torch.randn_like(value))
            recorder.record()
        dicts.append(model.state_dict())
    return path, model, dicts


@pytest.mark.torch
@pytest.mark.parametrize("form", LOADERS)
def test_a_module_takes_what_was_exported(trained, tmp_path, form):
    import torch

    path, model, dicts = trained
    call("export", path, "-o", tmp_path / f"out.{form}", "--state", 1)
    loaded = LOADERS[form](tmp_path / f"out.{form}")
    assert list(loaded) == list(dicts[1]) or form == "safetensors"
    for name, value in dicts[1].items():
        assert (loaded[name].dtype, loaded[name].shape) == (torch.float64, value.shape)
        assert torch.equal(loaded[name], value), name
    model.load_state_dict(loaded)
    call("export", path, "--format", form, "-o", tmp_path / "all", "--window", "1:4")
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == [f"step_{s}.{form}" for s in (1, 2, 3)]
    assert torch.equal(LOADERS[form](tmp_path / "all" / f"step_3.{form}")["2.weight"], dicts[3]["2.weight"])


@pytest.mark.parametrize("form", ["npz", "safetensors", "pt"])
def test_a_folder_of_state_dicts_keeps_the_order_of_the_layers(tmp_path, form):
    rng = np.random.default_rng(0)
    shapes = {"stem.weight": (3, 4), "stem.bias": (3,), "body.weight": (2, 3), "body.bias": (2,), "a.weight": (2, 2)}
    with Recorder(tmp_path / "one.h5", {n: rng.normal(size=s) for n, s in shapes.items()}, quiet=True) as recorder:
        recorder.record({name: rng.normal(size=shape) for name, shape in shapes.items()})
    with tt.open(tmp_path / "one.h5") as run:
        tt.export(run, tmp_path / "all", format=form)
        tt.convert(tmp_path / "all", tmp_path / "two.h5")
        with tt.open(tmp_path / "two.h5") as again:
            assert [p.name for p in again.parameters] == list(shapes)
            assert again.nodes == run.nodes
            np.testing.assert_array_equal(again.states[:], run.states[:])


@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_state_dicts_go_round_through_a_file_and_back(converted, tmp_path, form):
    pytest.importorskip({"safetensors": "safetensors", "pt": "torch"}[form])
    call("export", converted, "--format", form, "-o", tmp_path / "again")
    convert(tmp_path / "again", tmp_path / "two.h5", order=list(SHAPES))
    with tt.open(tmp_path / "two.h5") as run:
        assert_states(run, STEPS)


def test_a_safetensors_file_says_where_it_comes_from(twins, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    call("export", twins, "--member", 1, "-o", tmp_path / "x.safetensors", "--step", 7, "-q")
    with safetensors.safe_open(tmp_path / "x.safetensors", "numpy") as file, tt.open(twins) as run:
        assert file.metadata() == {"run": "one", "member": "a, b", "step": "7", "time_unit": "step"}
        np.testing.assert_array_equal(file.get_tensor("b"), run.trajectory(1)[7][4:])


@pytest.mark.torch
@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_bfloat16_stays_bfloat16(tmp_path, form):
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**16, (5, 7), dtype=np.uint16)
    save_bfloat16(tmp_path / "saved" / "1.safetensors", bits)
    convert(tmp_path / "saved", tmp_path / "b.h5", include="w")
    call("export", tmp_path / "b.h5", "-o", tmp_path / f"out.{form}")
    loaded = LOADERS[form](tmp_path / f"out.{form}")["w"]
    assert loaded.dtype == torch.bfloat16
    np.testing.assert_array_equal(loaded.view(torch.int16).numpy().view(np.uint16), bits)


def test_several_states_do_not_go_to_one_state_dict(converted, tmp_path):
    for form in ("safetensors", "pt"):
        said = call("export", converted, "-o", tmp_path / f"x.{form}", code=1).stderr
        assert f"a .{form} file holds one state" in said
        assert f"--step 40 or --state -1, or a folder as output (--format {form})" in said
    assert list(tmp_path.iterdir()) == []


# Parquet, netCDF, zarr


def test_parquet_holds_what_csv_holds(twins, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for more in ((), ("--what", "weights", "--what", "distances", "--member", 1)):
        head, rows = table(call("export", twins, "--format", "csv", *more).stdout)
        call("export", twins, "-o", tmp_path / "x.parquet", "--force", *more)
        found = parquet.read_table(tmp_path / "x.parquet")
        assert found.column_names == head
        assert str(found.schema.field("step").type) == "int64"
        np.testing.assert_array_equal(np.array([c.to_numpy() for c in found.columns]).T, rows)


@pytest.mark.parametrize("form", ["nc", "zarr"])
def test_labelled_arrays_hold_parameters_and_metrics_over_steps(twins, tmp_path, form):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip({"nc": "h5netcdf", "zarr": "zarr"}[form])
    out = tmp_path / f"x.{form}"
    call("export", twins, "--member", 2, "-o", out, "--every", 3, "-q")
    opened = xarray.open_dataset(out) if form == "nc" else xarray.open_zarr(out, consolidated=False)
    with opened as found, tt.open(twins) as run:
        assert found.sizes["step"] == 24
        np.testing.assert_array_equal(found["step"], run.step[::3])
        np.testing.assert_array_equal(found["w"], run.states[::3, 2, :4].reshape(-1, 2, 2))
        np.testing.assert_array_equal(found["loss"], run.metrics["loss"][::3])
        np.testing.assert_array_equal(found["eigen"], run.metrics["eigen"][::3, 2])
        assert (found["w"].dims[0], found.attrs["member"]) == ("step", "c")
        assert found["loss"].sel(step=6) == run.metrics["loss"][6]
    call("export", twins, "-o", tmp_path / f"one.{form}", "--step", 5, "-q")


def test_a_name_that_is_a_parameter_and_a_metric_stays_two(tmp_path):
    pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    import xarray

    with Recorder(tmp_path / "x.h5", {"a/loss": np.ones(2), "loss": np.zeros(3)}, quiet=True) as recorder:
        recorder.record(loss=7.0)
    call("export", tmp_path / "x.h5", "-o", tmp_path / "x.nc")
    with xarray.open_dataset(tmp_path / "x.nc") as found:
        assert set(found.data_vars) == {"a.loss", "loss", "metrics.loss"}


@pytest.mark.parametrize(
    ("form", "package"), [("parquet", "pyarrow"), ("nc", "xarray"), ("zarr", "xarray"), ("zarr", "zarr")]
)
def test_a_missing_package_is_named_in_one_sentence(twins, tmp_path, monkeypatch, form, package):
    if package == "zarr":
        pytest.importorskip("xarray")
    monkeypatch.setitem(sys.modules, package, None)
    said = call("export", twins, "-q", "-o", tmp_path / f"x.{form}", code=1).stderr
    assert said == f'Error: the format {form} needs {package}, which is missing: pip install "trajtools[interop]"\n'
    assert list(tmp_path.iterdir()) == []


# Networks


@pytest.mark.parametrize("form", ["graphml", "gexf"])
def test_every_edge_has_an_id_of_its_own(converted, tmp_path, form):
    call("export", converted, "-o", tmp_path / f"x.{form}", "--step", 12)
    edges = [e for e in ElementTree.parse(tmp_path / f"x.{form}").iter() if e.tag.rpartition("}")[2] == "edge"]
    assert len(edges) == len({e.get("id") for e in edges}) == 67
    if form == "gexf":
        with tt.open(converted) as run:
            state = np.asarray(run.trajectory())[2]
        weights = {int(e.get("id")): float(e.get("weight")) for e in edges}
        assert all(repr(weight) == repr(float(state[entry])) for entry, weight in weights.items())
        assert edges[0].get("source").startswith("input:")


def test_graphml_holds_every_edge(converted, tmp_path):
    out = tmp_path / "state.graphml"
    call("export", converted, "-o", out, "--step", 12)
    graph = nx.read_graphml(out, force_multigraph=True)
    assert graph.graph["step"] == 12
    with tt.open(converted) as run:
        wanted = run.trajectory().network(2)
    assert {n: d["layer"] for n, d in graph.nodes(data=True)} == {f"{s}:{i}": s for s, i in wanted.nodes}

    def listed(edges, name):
        return {d["entry"]: (name(a), name(b), repr(d["weight"]), d["parameter"]) for a, b, d in edges}

    assert listed(graph.edges(data=True), str) == listed(wanted.edges(data=True), lambda n: f"{n[0]}:{n[1]}")
    call("export", converted, "-o", out, "--force", "--state", -1, "--select", "fc2.*")
    assert nx.read_graphml(out, force_multigraph=True).number_of_edges() == 27


def test_graphml_refuses_what_makes_no_sense(converted, twins, tmp_path):
    out = tmp_path / "state.graphml"
    said = call("export", converted, "-o", out, code=1).stderr
    assert "holds one state" in said
    assert "--step 40" in said
    said = call("export", converted, "-o", out, "--state", 0, "--max-edges", 60, code=1).stderr
    assert "67 edges, more than 60" in said
    assert "--select" in said
    assert (
        "no state of step 6; the nearest: 5 and 12" in call("export", converted, "-o", out, "--step", 6, code=1).stderr
    )
    assert "no state 4" in call("export", converted, "-o", out, "--state", 4, code=1).stderr
    assert "no member 3" in call("export", twins, "-o", out, "--state", 0, "--member", 3, code=1).stderr
    assert list(tmp_path.iterdir()) == []


# From Python


def test_a_run_is_exported_from_python_as_by_the_command(twins, tmp_path):
    with tt.open(twins) as run:
        out = tt.export(run, tmp_path / "x.npz", member=1, select="w", window=(10, 60), every=7)
        assert out == tmp_path / "x.npz"
        tt.export(run, tmp_path / "x.csv", series="loss", what="metrics")
        with pytest.raises(UnknownNameError, match="there is no format ''; there are npz, safetensors"):
            tt.export(run, tmp_path / "x.xlsx")
        with pytest.raises(UnknownNameError, match="there is no format 'xlsx'"):
            tt.export(run, tmp_path / "x.npz", format="xlsx")
    with pytest.raises(DataError, match="takes an open Run, got a str"):
        tt.export("run.h5", tmp_path / "y.npz")
    options = ("--member", 1, "--select", "w", "--window", "10:60", "--every", 7, "-q")
    call("export", twins, "-o", tmp_path / "y.npz", *options)
    assert_same(tmp_path / "x.npz", tmp_path / "y.npz")
    assert (tmp_path / "x.csv").read_text() == call(
        "export", twins, "--format", "csv", "--series", "loss"
    ).stdout  # fmt: skip


def assert_same(one, other):
    with np.load(one) as a, np.load(other) as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


# What every format promises


def test_the_output_is_there_whole_or_not_at_all(twins, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("mine")

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trajtools.exports._blocks", fail)
    assert "No space left" in call("export", twins, "-o", out, "--force", code=1).stderr
    assert out.read_text() == "mine"
    monkeypatch.setattr("trajtools.exports.write_npz", fail)
    assert "No space left" in call("export", twins, "-o", tmp_path / "f", "--format", "npz", code=1).stderr
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("name", ["out.csv", "out.npz", "out.graphml"])
def test_a_file_that_exists_is_overwritten_only_where_that_is_asked_for(twins, tmp_path, name):
    out = tmp_path / name
    out.write_text("mine")
    said = call("export", twins, "-o", out, "--state", 0, code=1).stderr
    assert "exists and is not overwritten" in said
    assert "--force" in said
    with tt.open(twins) as run:
        with pytest.raises(FileExistsError, match="mode='w'"):
            tt.export(run, out, state=0)
        with pytest.raises(UnknownNameError, match="no mode 'a'"):
            tt.export(run, out, state=0, mode="a")
        assert out.read_text() == "mine"
        tt.export(run, out, state=0, mode="w")
    written = out.read_bytes()
    assert written != b"mine"
    out.write_text("mine")
    call("export", twins, "-o", out, "--state", 0, "--force")
    if name != "out.npz":  # which holds the time of writing
        assert out.read_bytes() == written
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_folder_with_files_is_not_mixed_with_new_ones(converted, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.npz").write_text("mine")
    (tmp_path / "empty").mkdir()
    said = call("export", converted, "-o", tmp_path / "full", "--format", "npz", code=1).stderr
    assert "a folder that is not empty" in said
    call("export", converted, "-o", tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == len(STEPS)


def test_a_link_leads_to_the_output_and_what_is_no_file_is_not_replaced(twins, tmp_path, monkeypatch):
    (tmp_path / "link.csv").symlink_to(tmp_path / "there.csv")
    call("export", twins, "-o", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "there.csv").read_text().startswith("step,")
    os.mkfifo(tmp_path / "pipe.csv")
    said = call("export", twins, "-o", tmp_path / "pipe.csv", code=1).stderr
    assert "neither a file nor a folder" in said
    assert (tmp_path / "pipe.csv").is_fifo()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    said = call("export", twins, "--format", "npz", "-o", ".", code=1).stderr
    assert "the current folder" in said


def test_the_recording_is_never_overwritten(twins):
    before = twins.read_bytes()
    assert "one of the input files" in call("export", twins, "--format", "csv", "-o", twins, code=1).stderr
    assert twins.read_bytes() == before


@pytest.mark.parametrize(
    "wrong",
    [
        ["--format", "npz"],
        ["-o", "out.bin"],
        ["-o", "out.npz", "--what", "weights"],
        ["-o", "out.csv", "--max-edges", "5"],
        ["-o", "out.csv", "--format", "npz"],
        ["-o", "out.npz", "--step", "1", "--state", "1"],
        ["-o", "out.npz", "--step", "1", "--window", "1:2"],
        ["-o", "out.npz", "--every", "0"],
    ],
)
def test_contradictions_are_usage_errors(twins, tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    assert "Error:" in call("export", twins, *wrong, code=2).stderr
    assert list(tmp_path.iterdir()) == []
