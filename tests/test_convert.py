"""Folders of saved weights become runs: bit for bit, in the order of their steps, whole or not at all."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from command_line import ROOT, call
from saved_weights import SHAPES, assert_states, save, save_bfloat16, weights

import trajtools as tt
from recorders.checkpoints import convert
from recorders.checkpoints.archives import natural
from recorders.checkpoints.naming import in_order
from trajtools.errors import ArchitectureError, DataError, MissingDependencyError, RecordingError, SelectionError

STEPS = (100, 20, 3)


def folder_of(tmp_path, name="step_{}.npz", steps=STEPS, **options):
    for step in steps:
        save(tmp_path / "saved" / name.format(step), weights(step, **options))
    return tmp_path / "saved"


def assert_nothing_left(tmp_path):
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


# What comes out


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_npz_comes_out_bit_for_bit(tmp_path, dtype):
    order = convert(folder_of(tmp_path, dtype=dtype), tmp_path / "out.h5")
    assert order.steps == (3, 20, 100)
    with tt.open(tmp_path / "out.h5") as file:
        assert_states(file["run"], STEPS, lambda step: {n: a.astype(np.dtype(dtype).newbyteorder("=").name)
                                                        for n, a in weights(step, dtype).items()})  # fmt: skip
        assert [p.name for p in file["run"].parameters] == list(SHAPES)
    assert tt.validate(tmp_path / "out.h5") == []


def test_safetensors_come_out_bit_for_bit(tmp_path):
    pytest.importorskip("safetensors")
    convert(folder_of(tmp_path, "{}.safetensors"), tmp_path / "out.h5")
    with tt.open(tmp_path / "out.h5") as file:
        assert_states(file["run"], STEPS)


def test_bfloat16_safetensors_come_out_bit_for_bit_without_another_package(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    bits = np.random.default_rng(0).integers(0, 2**16, (2, 5, 7), dtype=np.uint16)
    for step in (0, 1):
        save_bfloat16(tmp_path / "saved" / f"{step}.safetensors", bits[step])
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    convert(tmp_path / "saved", tmp_path / "out.h5", include="w")
    with tt.open(tmp_path / "out.h5") as file:
        assert file["run"].logical_dtype == "bfloat16"
        np.testing.assert_array_equal(file["run"].states(raw=True)[:, 0], bits.reshape(2, 35))


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_comes_out_bit_for_bit(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    (tmp_path / "saved").mkdir()
    for step in STEPS:
        state = {"model": {n: torch.from_numpy(np.array(a)) for n, a in weights(step).items()}, "epoch": 4}
        torch.save(state, tmp_path / "saved" / f"{step}.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match="--key model"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    convert(tmp_path / "saved", tmp_path / "out.h5", key="model")
    with tt.open(tmp_path / "out.h5") as file:
        assert_states(file["run"], STEPS)


@pytest.mark.torch
def test_a_module_of_torch_keeps_its_bfloat16_and_leaves_counters_out(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "saved").mkdir()
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).bfloat16()
    torch.save(net.state_dict(), tmp_path / "saved" / "7.pt")
    with pytest.raises(RecordingError, match=r"--exclude '1.num_batches_tracked'"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    convert(tmp_path / "saved", tmp_path / "out.h5", exclude=["*.num_batches_tracked"])
    with tt.open(tmp_path / "out.h5") as file:
        run = file["run"]
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
    with tt.open(tmp_path / "out.h5") as file:
        assert_states(file["run"], STEPS, made)
        assert [p.dtype for p in file["run"].parameters] == ["float16", "float64"]


def test_layers_and_nodes_are_inferred_as_the_recorder_does(tmp_path):
    from recorders import Recorder

    convert(folder_of(tmp_path), tmp_path / "out.h5", run="eta=1", hparams={"lr": 0.5})
    with Recorder(tmp_path / "recorded.h5", weights(3), quiet=True):
        pass
    with tt.open(tmp_path / "out.h5") as file, tt.open(tmp_path / "recorded.h5") as other:
        run = file["eta=1"]
        assert (run.parameters, run.nodes) == (other["run"].parameters, other["run"].nodes)
        assert run.hparams == {"lr": 0.5}
        assert run.provenance["checkpoints"]["last"] == "step_100.npz"
        assert [p.source for p in run.parameters] == ["input", "bias", "fc1", "bias"]


def test_arrays_are_matched_by_name_however_they_are_ordered(tmp_path):
    folder = folder_of(tmp_path)
    arrays = weights(20)
    save(folder / "step_20.npz", {name: arrays[name] for name in reversed(arrays)})
    convert(folder, tmp_path / "out.h5")
    with tt.open(tmp_path / "out.h5") as file:
        assert_states(file["run"], STEPS)


def test_globs_choose_arrays_and_their_order(tmp_path):
    folder = folder_of(tmp_path)
    save(folder / "step_7.npz", weights(7) | {"count": np.array(3)})  # what is left out need not agree
    convert(folder, tmp_path / "out.h5", include=["fc*"], exclude=["*.bias"], order=["fc2.*"])
    with tt.open(tmp_path / "out.h5") as file:
        assert [p.name for p in file["run"].parameters] == ["fc2.weight", "fc1.weight"]
        assert_states(file["run"], (*STEPS, 7))
    for wrong in ({"include": ["conv*"]}, {"exclude": ["conv*"]}, {"order": ["conv*"]}):
        with pytest.raises(SelectionError, match=r"conv"):
            convert(folder, tmp_path / "no.h5", **wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in the units of Linux")
def test_many_states_take_the_memory_of_few(tmp_path):
    for step in range(40):
        save(tmp_path / "saved" / f"{step}.npz", {"w": np.full(2**20, step, np.float32)})
    code = (
        "import resource, sys\nfrom recorders.checkpoints import convert\n"
        "import recorders.recorder\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"convert({str(tmp_path / 'saved')!r}, {str(tmp_path / 'out.h5')!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert int(done.stdout) < 180 * 1024  # two blocks of 16 states are 128 MiB; all states are 160 beside these
    with tt.open(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["run"].weights[:, 0, -1], np.arange(40))


# Which step a file is


@pytest.mark.parametrize(
    ("names", "steps", "example"),
    [
        (["w10.npz", "w9.npz"], (9, 10), "w<10>.npz"),
        (["00010.npz", "9.npz"], (9, 10), "<00010>.npz"),
        (["epoch3_step900_v2.npz", "epoch4_step50_v2.npz"], (50, 900), "epoch3_step<900>_v2.npz"),
        (["iter-12-loss0.3.npz", "iter-7-loss0.25.npz"], (7, 12), "iter-<12>-loss0.3.npz"),
        (["resnet18_5.npz", "resnet18_40.npz"], (5, 40), "resnet18_<40>.npz"),
        (["checkpoint-500/model.npz", "checkpoint-1000/model.npz"], (500, 1000), "checkpoint-<1000>/model.npz"),
    ],
)
def test_the_step_is_the_number_that_people_mean(names, steps, example):
    order = in_order(names)
    assert order.steps == steps
    assert order.example == example


@pytest.mark.parametrize(
    ("names", "pattern", "words"),
    [
        (["a1_2.npz", "a2_3.npz"], None, "--step-pattern"),
        (["final.npz", "w1.npz"], None, "'final.npz' has no number"),
        (["a1.npz", "b1.npz"], None, "both step 1"),
        (["w001.npz", "w1.npz"], None, "both step 1"),
        ([f"w{2**63}.npz"], None, "beyond the largest"),
        (["a1.npz"], "epoch", "matches nothing"),
        (["a1.npz"], "a", "gives 'a'"),
        (["a1.npz"], "(", "no regular expression"),
        (["w٣.npz"], None, "has no number"),
    ],
)
def test_an_unclear_step_is_refused(names, pattern, words):
    with pytest.raises(DataError) as caught:
        in_order(names, pattern)
    assert words in str(caught.value)


def test_a_pattern_chooses_the_number(tmp_path):
    names = ["e1_s10.npz", "e2_s5.npz"]
    assert in_order(names, r"_s(\d+)").steps == (5, 10)
    assert in_order(names, r"\d+").steps == (1, 2)
    assert in_order(names, r"_s(\d+)").example == "e1_s<10>.npz"


def test_names_with_numbers_are_sorted_as_people_do():
    names = ["l.10.w", "l.2.w", "l.2.b", "a", "10", "9", "l.2"]
    assert sorted(names, key=natural) == ["9", "10", "a", "l.2", "l.2.b", "l.2.w", "l.10.w"]


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
    with tt.open(out) as file:
        assert_states(file["run"], STEPS)


def test_a_missing_package_is_answered_with_how_to_install_it(tmp_path, monkeypatch):
    for ending, package in ((".safetensors", "safetensors"), (".pt", "torch")):
        folder = tmp_path / package
        folder.mkdir()
        (folder / f"1{ending}").write_bytes(b"")
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, "recorders.torch", raising=False)
        monkeypatch.delitem(sys.modules, "recorders.torch.checkpoints", raising=False)
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
    with pytest.raises(FileExistsError, match="never overwritten"):
        convert(folder, tmp_path / "out.h5")

    def steal(done, states):
        (tmp_path / "late.h5").write_text("mine")

    with pytest.raises(FileExistsError, match="meanwhile"):
        convert(folder, tmp_path / "late.h5", progress=steal)
    assert (tmp_path / "out.h5").read_text() == (tmp_path / "late.h5").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


# The command


def test_the_command_converts_and_says_which_number_was_taken(tmp_path):
    folder = folder_of(tmp_path, "epoch1_step{}.npz")
    out = tmp_path / "out.h5"
    said = call("convert", folder, "-o", out, "--run", "eta=1", "--hparams", '{"lr": 0.5}', "--exclude", "*.bias")
    for words in ("run eta=1", "3 (steps 3 to 100)", "fc1.weight 8x4", "input 4", "epoch1_step<100>.npz", "lr=0.5"):
        assert words in said.stdout, words
    with tt.open(out) as file:
        assert_states(file["eta=1"], STEPS)
        assert "convert" in file["eta=1"].provenance["command"] or file["eta=1"].provenance["command"] == sys.argv
    assert "never overwritten" in call("convert", folder, "-o", out, code=1).stderr
    document = json.loads(call("convert", folder, "-o", tmp_path / "two.h5", "--json").stdout)
    assert document["schema"] == "trajtools/convert/1"
    assert document["steps"]["files"] == [f"epoch1_step{s}.npz" for s in (3, 20, 100)]


def test_the_command_refuses_in_one_sentence(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "step_20.npz").write_bytes(b"x")
    result = call("convert", folder, "-o", tmp_path / "out.h5", code=1)
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert_nothing_left(tmp_path)
    (folder / "step_20.npz").unlink()
    assert "cannot name a run" in call("convert", folder, "-o", tmp_path / "out.h5", "--run", "a/b", code=1).stderr
    for wrong in (["--hparams", "lr=1"], ["--hparams", "[1]"], ["--compress", "lzma"], []):
        out = ["-o", tmp_path / "out.h5"] if wrong else []
        assert "Error:" in call("convert", folder, *out, *wrong, code=2).stderr


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("everybody", [True, False])
def test_an_interrupted_conversion_leaves_nothing_behind(tmp_path, everybody):
    folder = folder_of(tmp_path, "{}.npz", [0])
    for step in range(1, 4000):
        os.link(folder / "0.npz", folder / f"{step}.npz")
    line = [sys.executable, "-m", "trajtools", "convert", str(folder), "-o", str(tmp_path / "out.h5")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A shell may have started the tests in the background, where interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    while not list(tmp_path.glob("out.h5.part-*")):
        time.sleep(0.01)
        assert running.poll() is None
    (os.killpg if everybody else os.kill)(running.pid, signal.SIGINT)
    said = running.communicate(timeout=30)[1]
    assert running.returncode == 130, said
    assert said == "Interrupted.\n"
    assert_nothing_left(tmp_path)
