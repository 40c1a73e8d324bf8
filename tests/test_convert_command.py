"""Which step a saved file is, and the command that converts a folder of them."""

import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import ROOT, call
from saved_weights import STEPS, assert_nothing_left, assert_states, folder_of, save, weights

import trajtools as tt
from recorders import Recorder
from trajtools.checkpoints.steps import in_order, natural
from trajtools.errors import DataError, MissingDependencyError

# Which step a file is


@pytest.mark.parametrize(
    ("names", "steps", "example"),
    [
        (["w10.npz", "w9.npz"], (9, 10), "w<10>.npz"),
        (["00010.npz", "9.npz"], (9, 10), "<00010>.npz"),
        (["epoch4_step900_v2.npz", "epoch3_step50_v2.npz"], (50, 900), "epoch4_step<900>_v2.npz"),
        (["iter-12-loss0.3.npz", "iter-7-loss0.25.npz"], (7, 12), "iter-<12>-loss0.3.npz"),
        (["resnet18_5.npz", "resnet18_40.npz"], (5, 40), "resnet18_<40>.npz"),
        (["checkpoint-500/model.npz", "checkpoint-1000/model.npz"], (500, 1000), "checkpoint-<1000>/model.npz"),
        (["model_500.pt", "model_1k.pt", "model_2k.pt", "model_10k.pt"], (500, 1000, 2000, 10_000), "model_<10k>.pt"),
        (["500k", "1M", "1.5M", "2M"], (500_000, 1_000_000, 1_500_000, 2_000_000), "<2M>"),
        (["opt-125m-step2k.pt", "opt-125m-step10K.pt"], (2000, 10_000), "opt-125m-step<10K>.pt"),
        (["stage1-step500", "stage1-step1000", "stage2-step2000"], (500, 1000, 2000), "stage2-step<2000>"),
        (["epoch=3-val_loss=12.ckpt", "epoch=4-val_loss=3.ckpt"], (3, 4), "epoch=<4>-val_loss=3.ckpt"),
        (["epoch=0-step=900-v1.ckpt", "epoch=1-step=1800-v1.ckpt"], (900, 1800), "epoch=1-step=<1800>-v1.ckpt"),
        (["m-00001-of-00002-step5.pt", "m-00001-of-00002-step6.pt"], (5, 6), "m-00001-of-00002-step<6>.pt"),
        (["w_1.weights.h5", "w_2.weights.h5", "w_10.weights.h5"], (1, 2, 10), "w_<10>.weights.h5"),
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
        (["a1.npz"], r"b(\d)", r"--step-pattern 'b(\d)' matches nothing"),
        (["a1.npz"], "a", "gives 'a'"),
        (["a1.npz"], "(", "not a regular expression"),
        (["w٣.npz"], None, "has no number"),
        (["10h.pt", "2d.pt"], None, "only k, M and B are known"),
        (["stage1-step1000", "stage2-step500"], None, "its other number falls from 2 to 1"),
        (["epoch3_step900.pt", "epoch4_step50.pt"], None, "--step-pattern 'epoch(\\d+)'"),
        (["s1-step10", "s1-step20", "s2-step5"], None, "choose with --files 's1-step*'"),
        (["w1.5x.pt"], "w(\\d+[.])", "gives '1.'"),
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
    assert in_order(["a1_w2k.npz", "a1_w900.npz"], r"w(\d+)").steps == (900, 2000)
    assert in_order(["stage1-step1000", "stage2-step500"], r"step(\d+)").steps == (500, 1000)  # who says so means it


def test_names_with_numbers_are_sorted_as_people_do():
    names = ["l.10.w", "l.2.w", "l.2.b", "a", "10", "9", "l.2"]
    assert sorted(names, key=natural) == ["9", "10", "a", "l.2", "l.2.b", "l.2.w", "l.10.w"]


# The command


def test_the_command_converts_and_says_which_number_was_taken(tmp_path):
    folder = folder_of(tmp_path, "epoch1_step{}.npz")
    out = tmp_path / "out.h5"
    said = call("convert", folder, "-o", out, "--name", "eta=1", "--hparams", '{"lr": 0.5}', "--exclude", "*.bias")
    for words in ("eta=1", "3 (steps 3 to 100)", "fc1.weight 8x4", "input 4", "epoch1_step<100>.npz", "lr=0.5"):
        assert words in said.stdout, words
    with tt.open(out) as run:
        assert_states(run, STEPS)
        assert "convert" in run.provenance["command"] or run.provenance["command"] == sys.argv
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
    assert "end it in .h5" in call("convert", folder, "-o", tmp_path / "out.csv", code=1).stderr
    assert_nothing_left(tmp_path)
    for wrong in (
        ["--hparams", "lr=1"],
        ["--hparams", "[1]"],
        ["--hparams", '{"lr": NaN}'],
        ["--compress", "lzma"],
        [],
    ):
        out = ["-o", tmp_path / "out.h5"] if wrong else []
        assert "Error:" in call("convert", folder, *out, *wrong, code=2).stderr


def kinds(folder):
    save(folder / "1.npz", weights(1))
    save(folder / "2.npz", weights(2))
    (folder / "1.pkl").write_bytes(pickle.dumps(weights(1)))


def deep(folder):
    for step in STEPS:
        save(folder / "seed" / f"step{step}" / "model.npz", weights(step))


def final(folder):
    for step in STEPS:
        save(folder / f"checkpoint-{step}" / "model.npz", weights(step))
    save(folder / "model.npz", weights(1))


def two_models(folder):
    for step in STEPS:
        for name in ("ema", "net"):
            save(folder / f"checkpoint-{step}" / f"{name}.npz", weights(step))


def no_number(folder):
    for name in ("step1", "step2", "final"):
        save(folder / f"{name}.npz", weights(1))


def stages(folder):
    for name in ("stage1-step100", "stage1-step200", "stage2-step50"):
        save(folder / f"{name}.npz", weights(1))


def numbers(folder):
    for name in ("a1_2", "a2_3", "a3_5"):
        save(folder / f"{name}.npz", weights(1))


def prefixes(folder):
    save(folder / "1.npz", weights(1))
    save(folder / "2.npz", {f"net.{name}": array for name, array in weights(2).items()})


def more_arrays(folder):
    save(folder / "1.npz", weights(1))
    save(folder / "2.npz", {**weights(2), "new[0]": weights(2)["fc1.bias"]})


def other_dtype(folder):
    save(folder / "1.npz", weights(1))
    save(folder / "2.npz", {**weights(2), "fc1.bias": weights(2, "float64")["fc1.bias"]})


def strange_dtype(folder):
    save(folder / "1.npz", {**weights(1), "z": np.zeros(2, "c8"), "it's": np.zeros(1, "c8")})


def entries(folder):
    folder.mkdir()
    (folder / "1.pkl").write_bytes(pickle.dumps({"a b": {"net": weights(1)}, "ema": weights(1), "epoch": 3}))


@pytest.mark.parametrize(
    "fill",
    [
        kinds,
        deep,
        final,
        two_models,
        no_number,
        stages,
        numbers,
        prefixes,
        more_arrays,
        other_dtype,
        strange_dtype,
        entries,
    ],
)
def test_every_hint_works_when_it_is_typed(tmp_path, fill):
    fill(tmp_path / "saved")
    said = call("convert", tmp_path / "saved", "-o", tmp_path / "out.h5", code=1).stderr
    hints = re.findall(r"(?:--[a-z-]+ (?:'(?:[^']|'\\'')*'|[\w.]+(?=[ )]))(?: (?=--))?)+", said)
    assert hints, said
    for number, hint in enumerate(hints):
        result = call("convert", tmp_path / "saved", "-o", tmp_path / f"{number}.h5", *shlex.split(hint))
        assert "states" in result.stdout, hint


def test_the_command_says_what_was_left_out_and_what_is_odd(tmp_path):
    for step in (1, 2):
        arrays = {**weights(1), "bn.running_mean": np.zeros(3, "f4"), "count": np.array(step)}
        save(tmp_path / "saved" / f"{step}.npz", arrays)
    result = call("convert", tmp_path / "saved", "-o", tmp_path / "out.h5")
    assert "left out  running statistics: 'bn.running_mean'; integers: 'count'" in result.stdout
    assert result.stderr.startswith("Note: 1 of 2 states are byte for byte the same as an earlier one")
    document = json.loads(call("convert", tmp_path / "saved", "-o", tmp_path / "two.h5", "--json").stdout)
    assert document["left_out"] == ["running statistics: 'bn.running_mean'", "integers: 'count'"]
    assert len(document["notes"]) == 1


def test_the_command_takes_a_file_with_a_trajectory(tmp_path):
    np.save(tmp_path / "saved.npy", np.random.default_rng(0).normal(size=(9, 4)))
    assert "9 (steps 0 to 8)" in call("convert", tmp_path / "saved.npy", "-o", tmp_path / "out.h5").stdout


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
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 130, said
    assert said == "Interrupted.\n"
    assert_nothing_left(tmp_path)


def test_a_missing_package_for_compression_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingDependencyError, match=r"trajtools\[zstd\]"):
        Recorder(tmp_path / "run.h5", {"w": np.zeros(3)}, compress="zstd", quiet=True)
    assert list(tmp_path.iterdir()) == []
