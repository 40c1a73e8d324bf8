import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import ROOT, call, process


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    done = process(
        "demo", "-o", folder, "--inits", "8", "--copies", "2", "--steps", "120", "--rates", "0.01,1", "--json"
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_demo_records_analyses_and_reports(demo):
    folder, done = demo
    document = json.loads(done.stdout)
    assert document["schema"] == "trajtools/demo/1"
    assert [r["hparams"]["learning_rate"] for r in document["results"]] == [0.01, 1.0]
    assert all({"exponent", "published"} <= set(r) for r in document["results"])
    assert document["results"][0]["exponent"]["verdict"] != "chaotic"
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "report.html" in done.stderr
    assert call("validate", folder)


def test_demo_measures_what_lyapunov_measures(demo):
    folder, done = demo
    again = json.loads(call("lyapunov", folder, "--json").stdout)["results"]
    for one, two in zip(json.loads(done.stdout)["results"], again, strict=True):
        assert one["exponent"] == two["exponent"]


def test_demo_never_overwrites_unless_forced(demo):
    folder, _ = demo
    before = (folder / "eta=1.h5").read_bytes()
    said = call("demo", "-o", folder, code=1).stderr
    assert "--force" in said
    assert (folder / "eta=1.h5").read_bytes() == before


def test_forced_demo_is_reproducible_and_prints_a_table(demo):
    folder, done = demo
    small = ["--inits", "8", "--copies", "2", "--steps", "120", "--rates", "0.01,1"]
    again = process("demo", "-o", folder, *small, "--force", "--json")
    assert again.stdout == done.stdout
    text = process("demo", "-o", folder, *small, "--force", "-q")
    assert text.returncode == 0
    assert text.stderr == ""
    answer, _, head, *rows = text.stdout.splitlines()
    assert answer.startswith(("At learning rate", "At every learning rate"))
    assert head.split()[:2] == ["learning", "rate"]
    assert "papers' procedure" in head
    assert "waiting" in head
    assert [row.split()[0] for row in rows[:2]] == ["0.01", "1"]
    assert any(row.startswith("  - 0.01: Nearby copies") for row in rows)
    assert "How to read it:" in rows


@pytest.mark.parametrize("rates", ["fast", "-1", "0", "inf", ""])
def test_demo_refuses_learning_rates_that_are_none(tmp_path, rates):
    assert "--rates" in call("demo", "-o", tmp_path / "out", "--rates", rates, code=2).stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_from_the_keyboard_leaves_with_130(tmp_path):
    line = [sys.executable, "-m", "trajtools", "demo", "-o", str(tmp_path), "--inits", "400", "--steps", "2000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A shell may have started the tests in the background, where interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert running.stderr.readline().startswith("Training")
    while not (tmp_path / "eta=0.01.h5").exists():
        time.sleep(0.05)
        assert running.poll() is None
    time.sleep(0.5)
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert "Interrupted" in said
