"""Folders of saved weights become runs: bit for bit, in the order of their steps, whole or not at all."""

import io
import itertools
import pickle
import sys
import weakref
import zipfile

import numpy as np
import pytest
from saved_weights import SHAPES, STEPS, assert_nothing_left, assert_states, folder_of, save, save_bfloat16, weights

import trajtools as tt
from recorders.checkpoints import convert, formats
from trajtools.errors import ArchitectureError, DataError, MissingDependencyError, RecordingError, SelectionError

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
    pytest.importorskip("safetensors")
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
        np.testing.assert_array_equal(run.states(raw=True)[:, 0], bits.reshape(2, 35))


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
    with pytest.raises(DataError, match="--key net"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    convert(tmp_path / "saved", tmp_path / "out.h5", key="net")
    with tt.open(tmp_path / "out.h5") as run:
        assert_states(run, STEPS)


@pytest.mark.torch
def test_a_module_of_torch_keeps_its_bfloat16_and_leaves_counters_out(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "saved").mkdir()
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).bfloat16()
    torch.save(net.state_dict(), tmp_path / "saved" / "7.pt")
    with pytest.raises(RecordingError, match=r"--exclude '1.num_batches_tracked'"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    convert(tmp_path / "saved", tmp_path / "out.h5", exclude=["*.num_batches_tracked"])
    with tt.open(tmp_path / "out.h5") as run:
        assert run.logical_dtype == "bfloat16"
        flat = torch.cat([p.detach().reshape(-1) for n, p in net.state_dict().items() if "num" not in n])
        np.testing.assert_array_equal(run.states(raw=True)[0, 0], flat.view(torch.int16).numpy().view(np.uint16))


@pytest.mark.torch
def test_what_torch_would_have_to_run_is_not_loaded(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "saved").mkdir()
    torch.save(torch.nn.Linear(2, 2), tmp_path / "saved" / "1.pt")
    with pytest.raises(DataError, match=r"state_dict\(\)"):
        convert(tmp_path / "saved", tmp_path / "out.h5")


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
    from recorders import Recorder

    convert(folder_of(tmp_path), tmp_path / "out.h5", run="eta=1", hparams={"lr": 0.5})
    with Recorder(tmp_path / "recorded.h5", weights(3), quiet=True):
        pass
    with tt.open(tmp_path / "out.h5") as run, tt.open(tmp_path / "recorded.h5") as other:
        assert (run.parameters, run.nodes) == (other["run"].parameters, other["run"].nodes)
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
    for name, words in (("1.npz", "the file is empty"), ("2.npz", "needs at least one array")):
        with pytest.raises((DataError, SelectionError), match=words):
            convert(tmp_path / "saved", tmp_path / "out.h5", files=name)
    pytest.importorskip("torch")
    with pytest.raises(DataError, match="the file is empty"):
        convert(tmp_path / "saved", tmp_path / "out.h5", files="*.pt")
    assert_nothing_left(tmp_path)


def test_what_is_no_folder_of_checkpoints_is_refused_with_a_way_out(tmp_path):
    out = tmp_path / "out.h5"
    (tmp_path / "saved").mkdir()
    with pytest.raises(DataError, match=r"holds no checkpoint: .* it holds no file"):
        convert(tmp_path / "saved", out)
    folder_of(tmp_path, "run-{}/model.npz")
    with pytest.raises(DataError, match=r"--files '\*/model.npz'"):
        convert(tmp_path / "saved", out)
    folder_of(tmp_path, "{}.npz", (1,))
    save(tmp_path / "saved" / "2.safetensors", weights(2))
    with pytest.raises(DataError, match=r"several kinds .* --files '\*.npz'"):
        convert(tmp_path / "saved", out)
    with pytest.raises(DataError, match="does not exist"):
        convert(tmp_path / "no", out)
    with pytest.raises(DataError, match="is a file"):
        convert(tmp_path / "saved" / "1.npz", out)
    with pytest.raises(RecordingError, match="there is no folder"):
        convert(tmp_path / "saved", tmp_path / "no" / "out.h5", files="*.npz")
    assert_nothing_left(tmp_path)
    convert(tmp_path / "saved", out, files="*/*.npz")
    with tt.open(out) as run:
        assert_states(run, STEPS)


def test_a_missing_package_is_answered_with_how_to_install_it(tmp_path, monkeypatch):
    for ending, package in ((".safetensors", "safetensors"), (".pt", "torch")):
        folder = tmp_path / package
        folder.mkdir()
        (folder / f"1{ending}").write_bytes(b"")
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingDependencyError, match=rf"pip install 'trajtools\[{package}\]'"):
            convert(folder, tmp_path / "out.h5")


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
