"""Folders of saved weights become runs: bit for bit, in the order of their steps, whole or not at all."""

import io
import itertools
import json
import os
import pickle
import shutil
import sys
import warnings
import weakref
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import call
from saved_weights import SHAPES, STEPS, assert_nothing_left, assert_states, folder_of, save, save_bfloat16, weights

import trajtools as tt
from recorders import Recorder
from trajtools.checkpoints import arrays as formats, convert
from trajtools.errors import ArchitectureError, DataError, RecordingError, SelectionError, TrajtoolsError

# What comes out


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_npz_comes_out_bit_for_bit(tmp_path, dtype):
    order = convert(folder_of(tmp_path, dtype=dtype), tmp_path / "out.h5")
    assert order.steps == (3, 20, 100)
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS, lambda step: {n: a.astype(np.dtype(dtype).newbyteorder("=").name)
                                                        for n, a in weights(step, dtype).items()})  # fmt: skip
        assert [p.name for p in run.parameters] == list(SHAPES)
    assert tt.validate(tmp_path / "out.h5") == []


def test_safetensors_come_out_bit_for_bit(tmp_path):
    convert(folder_of(tmp_path, "{}.safetensors"), tmp_path / "out.h5")
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS)


def test_bfloat16_safetensors_come_out_bit_for_bit_without_another_package(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    bits = np.random.default_rng(0).integers(0, 2**16, (2, 5, 7), dtype=np.uint16)
    for step in (0, 1):
        save_bfloat16(tmp_path / "saved" / f"{step}.safetensors", bits[step])
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    convert(tmp_path / "saved", tmp_path / "out.h5", include="w")
    with tt.open(tmp_path / "out.h5") as run:
        assert run.logical_dtype == "bfloat16"
        np.testing.assert_array_equal(run.states.read(raw=True)[:, 0], bits.reshape(2, 35))


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_comes_out_bit_for_bit(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    (tmp_path / "saved").mkdir()
    for step in STEPS:
        state = {
            "args": {"lr": 0.1},
            "net": {n: torch.from_numpy(np.array(a)) for n, a in weights(step).items()},
            "epoch": 4,
        }
        torch.save(state, tmp_path / "saved" / f"{step}.pt", _use_new_zipfile_serialization=zipped)
    assert convert(tmp_path / "saved", tmp_path / "out.h5").entry == "net"
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS)
    (tmp_path / "out.h5").unlink()
    convert(tmp_path / "saved", tmp_path / "out.h5", key="net")
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS)


@pytest.mark.torch
def test_a_module_of_torch_keeps_its_bfloat16_and_leaves_counters_out(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "saved").mkdir()
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).bfloat16()
    torch.save(net.state_dict(), tmp_path / "saved" / "7.pt")
    done = convert(tmp_path / "saved", tmp_path / "out.h5")
    assert done.left_out == ("running statistics: '1.running_mean', '1.running_var', '1.num_batches_tracked'",)
    convert(tmp_path / "saved", tmp_path / "same.h5", exclude=["*.num_batches_tracked"])
    with tt.open(tmp_path / "out.h5") as run:
        assert run.logical_dtype == "bfloat16"
        flat = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
        np.testing.assert_array_equal(run.states.read(raw=True)[0, 0], flat.view(torch.int16).numpy().view(np.uint16))


def test_mixed_dtypes_are_promoted_without_loss_and_fortran_order_is_undone(tmp_path):
    def made(step):
        rng = np.random.default_rng(step)
        return {"a": rng.normal(size=(3, 5)).astype("f2"), "b": np.asfortranarray(rng.normal(size=(4, 2)))}

    (tmp_path / "saved").mkdir()
    for step in STEPS:
        np.savez_compressed(tmp_path / "saved" / f"{step}.npz", **made(step))
    convert(tmp_path / "saved", tmp_path / "out.h5")
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS, made)
        assert [p.dtype for p in run.parameters] == ["float16", "float64"]


def test_layers_and_nodes_are_inferred_as_the_recorder_does(tmp_path):
    convert(folder_of(tmp_path), tmp_path / "out.h5", name="eta=1", hparams={"lr": 0.5})
    with Recorder(tmp_path / "recorded.h5", weights(3), quiet=True):
        pass
    with tt.open(tmp_path / "out.h5") as run, tt.open(tmp_path / "recorded.h5") as other:
        assert (run.parameters, run.nodes) == (other.parameters, other.nodes)
        assert run.hparams == {"lr": 0.5}
        assert run.provenance["checkpoints"]["last"] == "step_100.npz"
        assert [p.source for p in run.parameters] == ["input", "bias", "fc1", "bias"]


def test_arrays_are_matched_by_name_however_they_are_ordered(tmp_path):
    folder = folder_of(tmp_path)
    arrays = weights(20)
    save(folder / "step_20.npz", {name: arrays[name] for name in reversed(arrays)})
    convert(folder, tmp_path / "out.h5")
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS)


def test_globs_choose_arrays_and_their_order(tmp_path):
    folder = folder_of(tmp_path)
    save(folder / "step_7.npz", weights(7) | {"count": np.array(3)})  # what is left out need not agree
    convert(folder, tmp_path / "out.h5", include=["fc*"], exclude=["*.bias"], order=["fc2.*"])
    with tt.open(tmp_path / "out.h5") as run:
        assert [p.name for p in run.parameters] == ["fc2.weight", "fc1.weight"]
        assert_states(run, (*STEPS, 7))
    for wrong in ({"include": ["conv*"]}, {"exclude": ["conv*"]}, {"order": ["conv*"]}):
        with pytest.raises(SelectionError, match=r"conv"):
            convert(folder, tmp_path / "no.h5", **wrong)


def test_one_checkpoint_is_in_memory_at_a_time(tmp_path, monkeypatch):
    alive, numbers, most = weakref.WeakValueDictionary(), itertools.count(), []
    read = formats.npy.read_array

    def watched(*arguments, **options):
        array = read(*arguments, **options)
        alive[next(numbers)] = array
        return array

    monkeypatch.setattr(formats.npy, "read_array", watched)
    convert(
        folder_of(tmp_path, steps=range(150)),
        tmp_path / "out.h5",
        progress=lambda done, states: most.append((done, states, len(alive))),
    )
    assert [(done, states) for done, states, _ in most] == [(i, 150) for i in range(1, 151)]
    assert max(count for _, _, count in most) <= len(SHAPES)
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, range(150))


# Which arrays are the state (cases D4 to D8)


def recorded(model, tmp_path):
    """Names and entries that the recorder of PyTorch takes of a model."""
    from recorders.torch import Recorder

    with Recorder(tmp_path / "recorded.h5", model, quiet=True):
        pass
    with tt.open(tmp_path / "recorded.h5") as run:
        return [(p.name, p.shape, p.dtype) for p in run.parameters], run.states.read(raw=True)[0, 0]


def converted(tmp_path, **options):
    """Convert the folder ``saved``; return the conversion, names of the parameters, and the last state."""
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}.h5"
    done = convert(tmp_path / "saved", out, **options)
    with tt.open(out) as run:
        return done, [(p.name, p.shape, p.dtype) for p in run.parameters], run.states.read(raw=True)[-1, 0]


def network(torch):
    """Make a network with tied weights, running statistics, integers and a frozen layer."""

    net = torch.nn.ModuleDict(
        {
            "embed": torch.nn.Embedding(7, 3),
            "body": torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)),
            "head": torch.nn.Linear(3, 7, bias=False),
        }
    )
    net["head"].weight = net["embed"].weight
    return net


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", ["state_dict", "lightning", "whole", "data parallel", "compiled"])
def test_the_state_is_the_one_that_the_recorder_takes(tmp_path, zipped, wrap):
    torch = pytest.importorskip("torch")
    net = network(torch)
    state = net.state_dict()
    content = {
        "state_dict": state,
        "lightning": {"epoch": 1, "state_dict": state, "hyper_parameters": {"where": Path("x"), "lr": np.float64(0.1)}},
        "whole": net,
        "data parallel": {f"module.{name}": value for name, value in state.items()},
        "compiled": {f"module._orig_mod.{name.replace('body', 'body._orig_mod')}": v for name, v in state.items()},
    }[wrap]
    (tmp_path / "saved").mkdir()
    torch.save(content, tmp_path / "saved" / "1.ckpt", _use_new_zipfile_serialization=zipped)
    done, names, values = converted(tmp_path)
    wanted, weights_now = recorded(net, tmp_path)
    assert names == wanted
    np.testing.assert_array_equal(values, weights_now)
    assert "tied to another: 'head.weight'" in done.left_out
    assert done.entry == ("state_dict" if wrap == "lightning" else "")


@pytest.mark.torch
def test_frozen_parameters_stay_out_where_the_file_says_it(tmp_path):
    torch = pytest.importorskip("torch")
    net = network(torch)
    net["body"][0].weight.requires_grad_(False)
    (tmp_path / "saved").mkdir()
    torch.save(dict(net.named_parameters()), tmp_path / "saved" / "1.pt")
    done, names, _ = converted(tmp_path)
    assert names == recorded(net, tmp_path)[0]
    assert done.left_out == ("not trained: 'body.0.weight'",)
    assert ("body.0.weight", (3, 3), "float32") in converted(tmp_path, include=["*", "body.0.weight"])[1]


@pytest.mark.torch
def test_pytorch_is_not_needed_to_read_its_files(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    folder = folder_of(tmp_path, "{}.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    convert(folder, tmp_path / "out.h5")
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS)


@pytest.mark.torch
def test_views_transposes_and_empty_tensors_come_out_as_they_are(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0, dtype=torch.float64)
    state = {
        "a": base[2:8].view(2, 3),
        "b": base.view(4, 6).T[1:, ::2],
        "c": base[5],
        "d": base[:0],
        "e": base.view(24),
    }
    (tmp_path / "saved").mkdir()
    torch.save(state, tmp_path / "saved" / "1.pt")
    _, names, values = converted(tmp_path)
    assert [name for name, _, _ in names] == list("abcde")
    np.testing.assert_array_equal(values, torch.cat([t.reshape(-1) for t in state.values()]).numpy())


@pytest.mark.torch
def test_prefixes_of_some_files_are_dropped_when_the_hint_is_typed(tmp_path):
    torch = pytest.importorskip("torch")
    folder = folder_of(tmp_path, "{}.pt")
    for step, prefix in ((3, "module."), (20, "_orig_mod."), (100, "model.")):
        torch.save({prefix + n: torch.from_numpy(a.copy()) for n, a in weights(step).items()}, folder / f"{step}.pt")
    with pytest.raises(ArchitectureError, match=r"100.pt .* --rename 'model.='"):
        convert(folder, tmp_path / "out.h5")
    convert(folder, tmp_path / "out.h5", rename=["model.="])
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS)
    convert(folder, tmp_path / "more.h5", rename=["model.=", "fc1=first"])
    with tt.open(tmp_path / "more.h5") as run:
        assert [p.name for p in run.parameters][:2] == ["first.weight", "first.bias"]
    for wrong in ("nothing=", "model"):
        with pytest.raises(SelectionError, match="--rename"):
            convert(folder, tmp_path / "no.h5", rename=["model.=", wrong])
    with pytest.raises(DataError, match=r"two arrays that are called 'x.weight'"):
        convert(folder, tmp_path / "no.h5", rename=["model.=", "fc1=x", "fc2=x"])


@pytest.mark.torch
def test_a_dotted_key_reaches_every_entry(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "saved").mkdir()
    generator, critic = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(generator.parameters())
    content = {
        "a": {"g.net": generator.state_dict(), "d": critic.state_dict()},
        "optimizer": optimizer.state_dict(),
        "names": ["x"],
    }
    torch.save(content, tmp_path / "saved" / "1.pt")
    with pytest.raises(DataError, match=r"choose with --key a.g.net or --key a.d "):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    for key, sizes in (("a.g.net", [6, 3]), ("a.d", [3, 1]), ("a", [6, 3, 3, 1]), (".", [6, 3, 3, 1])):
        done, names, _ = converted(tmp_path, key=key)
        assert [int(np.prod(shape)) for _, shape, _ in names] == sizes
        assert done.entry == key.removeprefix(".")
    with pytest.raises(DataError, match=r"has no entry 'a.x'; it holds 'a \(2 entries\)'"):
        convert(tmp_path / "saved", tmp_path / "out.h5", key="a.x")
    with pytest.raises(DataError, match="needed arrays by name"):
        convert(tmp_path / "saved", tmp_path / "out.h5", key="names")


class Strange:
    pass


@pytest.mark.torch
def test_an_object_is_named_by_its_class(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "saved").mkdir()
    path = tmp_path / "saved" / "1.pt"
    torch.save({"model": Strange(), "epoch": 3}, path)
    with pytest.raises(DataError, match=r"holds 'model \(an object of .*Strange\)', 'epoch \(int\)'"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    torch.save({"w": torch.zeros(2), "v": torch.eye(3).to_sparse()}, path)
    with pytest.raises(
        RecordingError, match=r"'v' \(an object of torch._utils._rebuild_sparse_tensor\).*--exclude 'v'"
    ):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    convert(tmp_path / "saved", tmp_path / "out.h5", exclude=["v"])


@pytest.mark.torch
@pytest.mark.parametrize("name", ["{}.t7", "{}.pth.tar", "pytorch_model-{}.bin", "{}.pth", "step{}", "{}.whatever"])
def test_files_are_known_by_their_content(tmp_path, name):
    torch = pytest.importorskip("torch")
    folder = tmp_path / "saved"
    folder.mkdir()
    for step in STEPS:
        state = {n: torch.from_numpy(a.copy()) for n, a in weights(step).items()}
        torch.save(state, folder / name.format(step), _use_new_zipfile_serialization=step > 3)
    (folder / "notes.txt").write_text("nothing of it")
    convert(folder, tmp_path / "out.h5")
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("1.t7", b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1", "Torch for Lua"),
        ("1.pth.tar", b"x" * 257 + b"ustar" + b"x" * 300, "tar archive"),
        ("1.pt.gz", b"\x1f\x8b\x08" + b"x" * 30, "compressed"),
        ("1.pt", b"x" * 50, "damaged"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, words):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        convert(tmp_path / "saved", tmp_path / "out.h5")


@pytest.mark.torch
def test_an_average_of_a_module_is_that_module(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "saved").mkdir()
    net = torch.nn.Linear(2, 3)
    torch.save(torch.optim.swa_utils.AveragedModel(net).state_dict(), tmp_path / "saved" / "1.pt")
    done, names, _ = converted(tmp_path)
    assert [name for name, _, _ in names] == ["weight", "bias"]
    assert done.left_out == ("integers: 'n_averaged'",)


@pytest.mark.parametrize(
    ("content", "entry", "wanted"),
    [
        ([(0, 1), (0, 1)], "", ["0.0", "0.1", "1.0", "1.1"]),
        ({"epoch": 3, "loss": 1, "net": {"d": {"w": 0, "b": 1}}}, "net", ["d.b", "d.w"]),
        ({"params": {"params": {"d": {"w": 0}}}, "step": 3}, "params.params", ["d.w"]),
        ({"w": 0, "b": 1, "opt_state": [0, 1]}, "", ["w", "b"]),
        ({"model": {"w": 0}, "optimizer": {"mu": {"w": 0}}}, "", ["model.w"]),
    ],
)
def test_trees_of_numpy_arrays_are_found_in_pickles(tmp_path, content, entry, wanted):
    arrays = [np.ones((3, 2)), np.zeros(2)]

    def fill(node):
        if isinstance(node, dict):
            return {name: value if name in ("epoch", "step") else fill(value) for name, value in node.items()}
        return [fill(value) for value in node] if isinstance(node, list) else (
            tuple(map(fill, node)) if isinstance(node, tuple) else arrays[node])  # fmt: skip

    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "1.pkl").write_bytes(pickle.dumps(fill(content)))
    done, names, _ = converted(tmp_path)
    assert (done.entry, [name for name, _, _ in names]) == (entry, wanted)


# Shards and company (cases D2 and D3)


def hugging_face(tmp_path, index=True, steps=(500, 1000)):
    """Make the folder of a Trainer: shards, their index, and what lies beside them."""
    for step in steps:
        folder = tmp_path / "saved" / f"checkpoint-{step}"
        shards = {1: ["fc1.weight", "fc1.bias"], 2: ["fc2.weight", "fc2.bias"]}
        for number, names in shards.items():
            arrays = {name: weights(step)[name] for name in names}
            save(folder / f"model-{number:05d}-of-00002.safetensors", arrays)
        if index:
            table = {n: f"model-{number:05d}-of-00002.safetensors" for number, names in shards.items() for n in names}
            (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (folder / name).write_bytes(pickle.dumps({"state": {}}))
        (folder / "trainer_state.json").write_text("{}")
    return tmp_path / "saved"


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("files", ["", "checkpoint-*", "*/model-00001-of-00002.safetensors", "*/*.safetensors"])
def test_all_shards_of_a_step_are_one_state(tmp_path, index, files):
    pytest.importorskip("safetensors")
    convert(hugging_face(tmp_path, index), tmp_path / "out.h5", files=files)
    with tt.open(tmp_path / "out.h5") as run:
        assert len(run.parameters) == 4
        assert_states(run, (500, 1000))


def test_numbered_folders_without_weights_are_said(tmp_path):
    pytest.importorskip("safetensors")
    folder = hugging_face(tmp_path)
    for name in ("logs", "checkpoint-1500"):
        (folder / name).mkdir()
        (folder / name / "optimizer.pt").write_bytes(pickle.dumps({"state": {}}))
    done, _, _ = converted(tmp_path)
    assert done.steps == (500, 1000)
    assert done.notes == (
        "'checkpoint-1500' passed over, where no weights can be read, or which lie beside files that hold them",
    )


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names are any bytes on Linux alone")
def test_names_that_are_no_utf_8_are_taken(tmp_path):
    folder = folder_of(tmp_path, "{}.npz", (1,))
    os.rename(os.fsencode(folder / "1.npz"), os.fsencode(folder) + b"/caf\xe9_1.npz")
    convert(folder, tmp_path / "out.h5")
    with tt.open(tmp_path / "out.h5") as run:
        assert run.provenance["checkpoints"]["first"] == r"caf\xe9_1.npz"


def test_what_lies_beside_the_checkpoints_is_passed_over(tmp_path):
    folder = folder_of(tmp_path, "{}.npz", (1, 2))
    convert(folder, folder / "old.h5")
    (folder / "plot_3.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    (folder / "optimizer_3.pt").write_bytes(pickle.dumps({"state": {}}))
    (folder / "log_3.txt.gz").write_bytes(b"\x1f\x8b\x08" + b"x" * 50)
    (folder / "config_3.json").write_text("{}")
    done, _, _ = converted(tmp_path)
    assert (done.steps, done.notes) == ((1, 2), ())
    (folder / "3.npz.gz").write_bytes(b"\x1f\x8b\x08" + b"x" * 50)
    assert "'3.npz.gz' passed over" in converted(tmp_path)[0].notes[0]


def test_missing_and_wrong_shards_are_refused(tmp_path):
    pytest.importorskip("safetensors")
    folder = hugging_face(tmp_path)
    second = folder / "checkpoint-1000" / "model-00002-of-00002.safetensors"
    whole = second.read_bytes()
    second.unlink()
    with pytest.raises(DataError, match=r"lists 'model-00002-of-00002\.safetensors', and there is no such file"):
        convert(folder, tmp_path / "out.h5")
    (folder / "checkpoint-1000" / "model.safetensors.index.json").unlink()
    with pytest.raises(DataError, match="is one of 2 shards"):
        convert(folder, tmp_path / "out.h5")
    folder = hugging_face(tmp_path)
    save(second, {"fc2.weight": weights(1000)["fc2.weight"]})
    with pytest.raises(DataError, match=r"lists 'fc2\.bias', which its shards do not hold"):
        convert(folder, tmp_path / "out.h5")
    second.write_bytes(whole)
    index = folder / "checkpoint-1000" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "../checkpoint-500/model-00001-of-00002.safetensors"}}))
    with pytest.raises(DataError, match="no index of shards"):
        convert(folder, tmp_path / "out.h5")


# Other frameworks


def keras_file(path, step):
    """Write what ``save_weights`` of Keras 3 writes of a convolution, a normalisation, two dense layers and a cell."""
    rng = np.random.default_rng(step)
    layers = {
        "layers/conv2d": ("conv2d", [(2, 2, 1, 3), (3,)]),
        "layers/batch_normalization": ("batch_normalization", [(3,)] * 4),
        "layers/dense": ("hidden", [(12, 4), (4,)]),
        "layers/dense_1": ("head", [(4, 2), (2,)]),
        "layers/gru/cell": ("gru_cell", [(2, 6), (2, 6), (2, 6)]),
        "optimizer": ("adam", [(12, 4)]),
    }
    with h5py.File(path, "w") as file:
        for place, (name, shapes) in layers.items():
            group = file.create_group(f"{place}/vars")
            group.attrs["name"] = name
            for number, shape in enumerate(shapes):
                group[str(number)] = rng.normal(size=shape).astype("f4")
        file["layers/dropout/seed/vars/0"] = np.array([1, 2], "u4")
    return rng


KERAS = ["hidden.kernel", "hidden.bias", "head.kernel", "head.bias", "gru.cell.kernel", "gru.cell.recurrent_kernel",
         "gru.cell.bias"]  # fmt: skip


def test_weights_of_keras_are_read_by_layer(tmp_path):
    (tmp_path / "saved").mkdir()
    for step in (1, 2):
        keras_file(tmp_path / "saved" / f"epoch_{step}.weights.h5", step)
    done, names, _ = converted(tmp_path)
    assert {name for name, _, _ in names} == {
        "conv2d.kernel", "conv2d.bias", "batch_normalization.gamma", "batch_normalization.beta", *KERAS
    }  # fmt: skip
    assert "running statistics: 'batch_normalization.moving_mean'" in done.left_out[0]
    with h5py.File(tmp_path / "saved" / "epoch_2.weights.h5") as file, tt.open(next(tmp_path.glob("*.h5"))) as out:
        (hidden,) = [p for p in out.parameters if p.name == "hidden.kernel"]
        there = out.states[1, 0, hidden.offset : hidden.offset + hidden.size]
        np.testing.assert_array_equal(there, file["layers/dense/vars/0"][()].reshape(-1))
        assert [p.kind for p in out.parameters if p.name.startswith("gru")] == ["dense", "recurrent", "other"]


def test_a_keras_archive_says_the_order_of_its_layers(tmp_path):
    (tmp_path / "saved").mkdir()
    keras_file(tmp_path / "inner.h5", 1)
    layers = [{"class_name": "x", "config": {"name": name}} for name in ("head", "hidden", "conv2d")]
    with zipfile.ZipFile(tmp_path / "saved" / "1.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": layers}}))
        archive.write(tmp_path / "inner.h5", "model.weights.h5")
    _, names, _ = converted(tmp_path)
    assert [name for name, _, _ in names][:5] == [
        "head.kernel",
        "head.bias",
        "hidden.kernel",
        "hidden.bias",
        "conv2d.kernel",
    ]


def test_files_of_earlier_keras_name_their_weights(tmp_path):
    (tmp_path / "saved").mkdir()
    with h5py.File(tmp_path / "saved" / "1.h5", "w") as file:
        file.attrs["layer_names"] = [b"out", b"in"]
        for layer, shape in (("out", (2, 3)), ("in", (4, 2))):
            file[f"{layer}/{layer}/kernel:0"] = np.ones(shape, "f4")
            file[layer].attrs["weight_names"] = [f"{layer}/kernel:0".encode()]
    assert [name for name, _, _ in converted(tmp_path)[1]] == ["out.kernel", "in.kernel"]


def test_other_hdf5_is_refused_and_nothing_outside_is_read(tmp_path):
    (tmp_path / "saved").mkdir()
    path = tmp_path / "saved" / "1.h5"
    keras_file(tmp_path / "other.h5", 1)
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros((3, 4))
    with pytest.raises(DataError, match=r"not one of Keras .* it holds weights"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "layers/dense/vars/0")
        file["layers/dense/vars/1"] = h5py.SoftLink("/layers/other")
    with pytest.raises(DataError, match="not one of Keras"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", (10**5, 10**4), "f4", chunks=(1000, 1000), compression="gzip")
    with pytest.raises(TrajtoolsError, match="declares 4000000000 bytes"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    folder_of(tmp_path, "9.npz", (1,))
    convert(tmp_path / "saved", tmp_path / "run.h5", files="*.npz")
    shutil.copy(tmp_path / "run.h5", path)
    with pytest.raises(DataError, match="is a run of trajtools already"):
        convert(tmp_path / "saved", tmp_path / "out.h5", files="1.h5")


FLAX = (  # flax.serialization.to_bytes of {"params": {"Dense_0": {"kernel": (2, 1), "bias": (1,)}}, "step": int32}
    b"\x82\xa6params\x81\xa7Dense_0\x82\xa6kernel\xc7\x16\x01\x93\x92\x02\x01\xa7float32\xc4\x08%s"
    b"\xa4bias\xc7\x11\x01\x93\x91\x01\xa7float32\xc4\x04%s\xa4step\xc7\x0e\x01\x93\x90\xa5int32\xc4\x04\x03\0\0\0"
)


def test_msgpack_of_flax_is_read(tmp_path):
    (tmp_path / "saved").mkdir()
    for step in (9, 10):
        kernel, bias = np.array([[step], [2]], "f4"), np.array([3], "f4")
        (tmp_path / "saved" / f"checkpoint_{step}").write_bytes(FLAX % (kernel.tobytes(), bias.tobytes()))
    done, names, values = converted(tmp_path)
    assert (done.entry, done.steps) == ("params", (9, 10))
    assert names == [("Dense_0.bias", (1,), "float32"), ("Dense_0.kernel", (2, 1), "float32")]
    np.testing.assert_array_equal(values, [3, 10, 2])
    whole = (tmp_path / "saved" / "checkpoint_9").read_bytes()
    for torn in (whole[:-1], whole[:40], whole + b"x", b"\xdf\xff\xff\xff\xff\xa1x", b"text", b""):
        (tmp_path / "saved" / "checkpoint_9").write_bytes(torn)
        with pytest.raises(DataError, match=r"checkpoint_9"):
            convert(tmp_path / "saved", tmp_path / "none.h5")


@pytest.mark.jax
@pytest.mark.parametrize("form", ["msgpack", "orbax", "pickle"])
def test_trees_of_jax_come_out_as_their_recorder_names_them(tmp_path, form):
    jnp = pytest.importorskip("jax.numpy")
    from recorders.jax import Recorder

    rng = np.random.default_rng(0)
    params = {
        "Dense_10": {"kernel": jnp.array(rng.normal(size=(3, 2)), jnp.float32), "bias": jnp.zeros(2)},
        "Dense_2": {"kernel": jnp.array(rng.normal(size=(4, 3)), jnp.float32), "bias": jnp.ones(3)},
    }
    tree = {"params": params, "step": jnp.array(7), "batch_stats": {"mean": jnp.zeros(3)}, "opt_state": [params]}
    if form == "msgpack":
        serialization = pytest.importorskip("flax.serialization")
        (tmp_path / "saved").mkdir()
        (tmp_path / "saved" / "7.msgpack").write_bytes(serialization.to_bytes(tree))
    elif form == "orbax":
        checkpoint = pytest.importorskip("orbax.checkpoint")
        pytest.importorskip("tensorstore")
        with checkpoint.StandardCheckpointer() as saver:
            saver.save(tmp_path / "saved" / "7", tree)
    else:
        (tmp_path / "saved").mkdir()
        (tmp_path / "saved" / "7.pkl").write_bytes(pickle.dumps({**tree, "epoch": 3}))
    done, names, values = converted(tmp_path)
    with Recorder(tmp_path / "recorded.h5", params, quiet=True):
        pass
    with tt.open(tmp_path / "recorded.h5") as run:
        assert names == [(p.name, p.shape, p.dtype) for p in run.parameters]
        np.testing.assert_array_equal(values, run.states.read(raw=True)[0, 0])
    assert (done.entry, done.steps) == ("params", (7,))


@pytest.mark.torch
def test_a_folder_of_distributed_checkpoints_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    saver = pytest.importorskip("torch.distributed.checkpoint")
    net = network(torch)
    for step in (5, 10):
        content = {"model": net.state_dict(), "optim": torch.optim.Adam(net.parameters()).state_dict(), "epoch": 3}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saver.save(content, checkpoint_id=tmp_path / "saved" / f"step-{step}", no_dist=True)
    done, names, values = converted(tmp_path)
    assert (done.entry, done.steps) == ("model", (5, 10))
    state = net.state_dict()
    assert names[:2] == [("embed.weight", (7, 3), "float32"), ("body.0.weight", (3, 3), "float32")]
    np.testing.assert_array_equal(values[:21], state["embed.weight"].reshape(-1).numpy())
    (tmp_path / "saved" / "step-10" / "__0_0.distcp").write_bytes(b"x" * 10)
    with pytest.raises(DataError, match="step-10"):
        converted(tmp_path)


# A file with the whole trajectory


@pytest.mark.parametrize("form", ["npy", "npz", "compressed", "stacked", "torch", "list", "steps", "safetensors"])
def test_one_file_with_all_states_is_a_run(tmp_path, form):
    states = np.random.default_rng(0).normal(size=(5, 6)).astype("f4")
    stacked = {"W": states[:, :4].copy().reshape(5, 2, 2), "b": states[:, 4:].copy()}
    path, steps = tmp_path / "all.bin", range(5)
    with path.open("wb") as stream:
        if form == "npy":
            np.save(stream, states)
        elif form == "npz":
            np.savez(stream, x=states)
        elif form == "compressed":
            np.savez_compressed(stream, **stacked)
        elif form == "stacked":
            steps = range(0, 50, 10)
            np.savez(stream, step=np.array(steps), **stacked, **{"metrics/loss": np.arange(5.0)})
        elif form == "safetensors":
            numpy = pytest.importorskip("safetensors.numpy")
            stream.write(numpy.save(stacked))
        else:
            torch = pytest.importorskip("torch")
            each = [{name: torch.from_numpy(a[i].copy()) for name, a in stacked.items()} for i in range(5)]
            steps = (2, 3, 5, 7, 11) if form == "steps" else steps
            content = {"list": each, "steps": dict(zip(steps, each, strict=True))}.get(form)
            torch.save(content or {n: torch.from_numpy(a) for n, a in stacked.items()}, stream)
    done = convert(path, tmp_path / "out.h5")
    assert done.steps == tuple(steps)
    with tt.open(tmp_path / "out.h5") as run:
        np.testing.assert_array_equal(run.states.read()[:, 0], states)
        if form == "stacked":
            np.testing.assert_array_equal(run.metrics["loss"], np.arange(5.0))
    with pytest.raises(DataError, match="--files"):
        convert(path, tmp_path / "no.h5", files="*")


def test_what_was_exported_is_converted_back(tmp_path):
    state = {"fc.weight": np.arange(12.0).reshape(3, 4), "fc.bias": np.zeros(3)}
    with Recorder(tmp_path / "run.h5", state, quiet=True) as recorder:
        for step in range(4):
            recorder.record(loss=step / 2)
            recorder.record({name: array + step for name, array in state.items()}, step=3 * step + 1)
    call("export", tmp_path / "run.h5", "-o", tmp_path / "all.npz")
    done = convert(tmp_path / "all.npz", tmp_path / "back.h5")
    assert (done.rule, done.left_out) == ("the steps in the file", ())
    with tt.open(tmp_path / "run.h5") as one, tt.open(tmp_path / "back.h5") as other:
        run, back = one, other
        assert run.parameters == back.parameters
        for before, after in ((run.step, back.step), (run.states.read(), back.states[:])):
            np.testing.assert_array_equal(before, after)
        np.testing.assert_array_equal(run.metrics["loss"], back.metrics["loss"])


def test_one_checkpoint_is_no_trajectory(tmp_path):
    folder = folder_of(tmp_path)
    for path in (folder / "step_3.npz", tmp_path / "series.npy"):
        np.save(tmp_path / "series.npy", np.arange(5.0))
        with pytest.raises(DataError, match=r"holds one state or one series, .* convert their folder"):
            convert(path, tmp_path / "out.h5")
    np.savez(tmp_path / "back.npz", w=np.zeros((3, 2)), step=[3, 2, 1])
    with pytest.raises(DataError, match="whole numbers from 0 that rise"):
        convert(tmp_path / "back.npz", tmp_path / "out.h5")


def test_copies_that_never_move_are_said(tmp_path):
    folder = folder_of(tmp_path, steps=(1, 2, 3))
    assert converted(tmp_path)[0].notes == ()
    for step in (4, 5):
        shutil.copy(folder / "step_2.npz", folder / f"step_{step}.npz")
    (note,) = converted(tmp_path)[0].notes
    assert "2 of 5 states are byte for byte the same as an earlier one, first step_4.npz as step_2.npz" in note


# What is refused


def test_a_differing_checkpoint_is_refused_by_name(tmp_path):
    folder = folder_of(tmp_path)
    wrong = {
        "shape": weights(50) | {"fc1.bias": np.zeros(9, "f4")},
        "dtype": weights(50) | {"fc1.bias": np.zeros(8)},
        "gone": {n: a for n, a in weights(50).items() if n != "fc1.bias"},
        "new": weights(50) | {"fc3.bias": np.zeros(2, "f4")},
    }
    words = {
        "shape": r"step_50.npz: 'fc1.bias' is float32 of shape \(9,\); needed float32 of shape \(8,\), as in step_3",
        "dtype": r"step_50.npz: 'fc1.bias' is float64 of shape \(8,\); needed float32",
        "gone": "step_50.npz lacks 'fc1.bias', compared with step_3.npz",
        "new": "step_50.npz has the new 'fc3.bias'",
    }
    for what, arrays in wrong.items():
        save(folder / "step_50.npz", arrays)
        with pytest.raises(ArchitectureError, match=words[what]):
            convert(folder, tmp_path / "out.h5")
        assert_nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["step_{}.npz", "step_{}.safetensors"])
def test_a_torn_checkpoint_is_refused_wherever_it_is_torn(tmp_path, name):
    pytest.importorskip("safetensors")
    folder = folder_of(tmp_path, name)
    torn = folder / name.format(20)
    whole = torn.read_bytes()
    for size in (0, 5, 40, len(whole) // 2, len(whole) - 1):
        torn.write_bytes(whole[:size])
        with pytest.raises(DataError, match=torn.name):
            convert(folder, tmp_path / "out.h5")
        assert_nothing_left(tmp_path)


def test_a_flipped_bit_is_noticed(tmp_path):
    folder = folder_of(tmp_path, shapes={"w": (50, 50)})
    damaged = bytearray((folder / "step_20.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / "step_20.npz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"step_20.npz cannot be read: Bad CRC"):
        convert(folder, tmp_path / "out.h5")


@pytest.mark.torch
def test_torn_files_of_torch_are_refused(tmp_path):
    pytest.importorskip("torch")
    folder = folder_of(tmp_path, "{}.pt")
    whole = (folder / "20.pt").read_bytes()
    for content in (whole[:0], whole[:40], whole[: len(whole) // 2], b"hello" * 9, pickle.dumps([1])):
        (folder / "20.pt").write_bytes(content)
        with pytest.raises(DataError, match=r"20\.pt"):
            convert(folder, tmp_path / "out.h5")
        assert_nothing_left(tmp_path)


def test_pickled_objects_and_lying_headers_are_never_loaded(tmp_path):
    (tmp_path / "saved").mkdir()
    path = tmp_path / "saved" / "1.npz"
    np.savez(path, w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="pickled object"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", header.getvalue() + b"\0" * 64)
    with pytest.raises(DataError, match="1000000000000000"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    assert_nothing_left(tmp_path)


def test_empty_files_and_files_without_arrays_are_told_apart(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "1.pt").touch()
    (tmp_path / "saved" / "1.npz").touch()
    np.savez(tmp_path / "saved" / "2.npz")
    for name, words in (("1.npz", "the file is empty"), ("2.npz", "2.npz holds nothing")):
        with pytest.raises((DataError, SelectionError), match=words):
            convert(tmp_path / "saved", tmp_path / "out.h5", files=name)
    with pytest.raises(DataError, match="the file is empty"):
        convert(tmp_path / "saved", tmp_path / "out.h5", files="*.pt")
    assert_nothing_left(tmp_path)


def test_what_is_no_folder_of_checkpoints_is_refused_with_a_way_out(tmp_path):
    out = tmp_path / "out.h5"
    (tmp_path / "saved").mkdir()
    with pytest.raises(DataError, match=r"holds no checkpoint: .* it holds nothing"):
        convert(tmp_path / "saved", out)
    folder_of(tmp_path, "seed/run-{}/model.npz")
    with pytest.raises(DataError, match=r"--files '\*/\*/model.npz'"):
        convert(tmp_path / "saved", out)
    folder_of(tmp_path, "{}.npz", (1,))
    save(tmp_path / "saved" / "2.safetensors", weights(2))
    with pytest.raises(DataError, match=r"several kinds .* --files '\*.npz'"):
        convert(tmp_path / "saved", out)
    with pytest.raises(DataError, match="does not exist"):
        convert(tmp_path / "no", out)
    with pytest.raises(DataError, match="holds one state"):
        convert(tmp_path / "saved" / "1.npz", out)
    with pytest.raises(RecordingError, match="there is no folder"):
        convert(tmp_path / "saved", tmp_path / "no" / "out.h5", files="*.npz")
    assert_nothing_left(tmp_path)
    convert(tmp_path / "saved", out, files="*/*/model.npz")
    with tt.open(out) as run:
        assert_states(run, STEPS)


def test_what_goes_wrong_beside_a_checkpoint_is_not_blamed_on_it(tmp_path):
    pytest.importorskip("safetensors")
    for ending in ("npz", "safetensors"):
        save(tmp_path / "saved" / f"1.{ending}", weights(1))

        def fail(done, states):
            raise ValueError("something else")

        with pytest.raises(ValueError, match=r"^something else$"):
            convert(tmp_path / "saved", tmp_path / "out.h5", files=f"*.{ending}", progress=fail)
    assert_nothing_left(tmp_path)


def test_an_existing_file_is_never_overwritten(tmp_path):
    folder = folder_of(tmp_path)
    (tmp_path / "out.h5").write_text("mine")
    (tmp_path / "link.h5").symlink_to(tmp_path / "nowhere.h5")
    for name in ("out.h5", "link.h5"):
        with pytest.raises(FileExistsError, match="never overwritten"):
            convert(folder, tmp_path / name)

    def steal(done, states):
        (tmp_path / "late.h5").write_text("mine")

    with pytest.raises(FileExistsError, match="meanwhile"):
        convert(folder, tmp_path / "late.h5", progress=steal)
    assert (tmp_path / "out.h5").read_text() == (tmp_path / "late.h5").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 4
