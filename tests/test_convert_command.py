"""Which step a saved file is, and the command that converts a folder of them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import ROOT, call
from saved_weights import STEPS, assert_nothing_left, assert_states, folder_of

import trajtools as tt
from recorders.checkpoints.convert import in_order
from recorders.checkpoints.formats import natural
from trajtools.errors import DataError

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
        (["a1.npz"], r"b(\d)", r"--step-pattern 'b(\d)' matches nothing"),
        (["a1.npz"], "a", "gives 'a'"),
        (["a1.npz"], "(", "not a regular expression"),
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


# The command


def test_the_command_converts_and_says_which_number_was_taken(tmp_path):
    folder = folder_of(tmp_path, "epoch1_step{}.npz")
    out = tmp_path / "out.h5"
    said = call("convert", folder, "-o", out, "--run", "eta=1", "--hparams", '{"lr": 0.5}', "--exclude", "*.bias")
    for words in ("run eta=1", "3 (steps 3 to 100)", "fc1.weight 8x4", "input 4", "epoch1_step<100>.npz", "lr=0.5"):
        assert words in said.stdout, words
    with tt.open(out / "eta=1.h5") as run:
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
    assert (
        "is not a valid run name" in call("convert", folder, "-o", tmp_path / "out.h5", "--run", "a/b", code=1).stderr
    )
    for wrong in (
        ["--hparams", "lr=1"],
        ["--hparams", "[1]"],
        ["--hparams", '{"lr": NaN}'],
        ["--compress", "lzma"],
        [],
    ):
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
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 130, said
    assert said == "Interrupted.\n"
    assert_nothing_left(tmp_path)
