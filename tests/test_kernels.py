"""The contract of every kernel of the twins: threads, NaN, inputs, compiled and interpreted."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from trajtools._kernels import _jit, distances
from trajtools.distances.metric import FORMATS, bits_of
from trajtools.types import L1, L2, LINF

PAIRS = (distances.pairs_l1, distances.pairs_l2, distances.pairs_linf)
LEFT, RIGHT = np.array([0, 2, 1]), np.array([1, 1, 0])


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def blocks(request):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(6, 3, 11)).astype(request.param) for _ in range(2))


@pytest.mark.parametrize("kernel", PAIRS, ids=lambda k: k.__name__)
def test_compiled_equals_interpreted(kernel, blocks):
    with np.errstate(all="ignore"):
        assert_allclose(kernel(*blocks, LEFT, RIGHT), kernel.py_func(*blocks, LEFT, RIGHT), rtol=1e-14)


def test_rounding_is_the_sum_of_spacings_over_all_finite_weights(blocks):
    block = blocks[0].copy()
    block[0, 0, :6] = [0.0, np.inf, np.nan, 1e-30, -np.inf, -5e-324]
    block[1, 1] = 0.0
    block[2, 2] *= 2.0**100
    single = block.dtype == np.float32
    layout = (23, 127, 23, -126) if single else (52, 1023, 52, -1022)
    bits = block.view(np.uint32 if single else np.uint64)
    spacing = np.spacing(np.abs(np.where(np.isfinite(block), block, 0))).astype(np.float64)
    spacing[~np.isfinite(block)] = 0
    expected = [spacing.sum(axis=2), np.sqrt((spacing**2).sum(axis=2)), spacing.max(axis=2)]
    assert_allclose(distances.rounding_rows(bits, *layout), expected, rtol=1e-14, atol=0)
    with np.errstate(all="ignore"):
        assert_allclose(distances.rounding_rows.py_func(bits, *layout), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("code", [L1, L2, LINF])
def test_one_pass_over_an_ensemble_is_that_of_each_pair(code, blocks):
    states = np.ascontiguousarray(blocks[0].transpose(1, 0, 2))
    kernel = {L1: PAIRS[0], L2: PAIRS[1], LINF: PAIRS[2]}[code]
    centre, zero = np.array([0, 2]), np.zeros_like(blocks[0][:, :1])
    distance = np.full((len(blocks[0]) + 1, len(LEFT)), -1.0)
    distances.twin_rows(states, LEFT, RIGHT, code, distance, 1, False)
    assert_array_equal(distance[1:], kernel(blocks[0], blocks[0], LEFT, RIGHT))
    interpreted = np.empty_like(distance)
    distances.twin_rows.py_func(states, LEFT, RIGHT, code, interpreted, 1, False)
    assert_allclose(interpreted[1:], distance[1:], rtol=1e-14)
    bits, *exponents = bits_of(states)
    layout = (*exponents, *FORMATS[states.dtype.name])
    previous = np.concatenate([blocks[1][-1:, centre], blocks[0][:-1, centre]])
    for row in (distances.reference_rows, distances.reference_rows.py_func):
        before = np.zeros((2, 20), states.dtype)
        before[:, 7:18] = blocks[1][-1, centre]
        norm, speed = np.full((2, len(distance), 2), -1.0)
        spacings = np.full((3, len(distance), 2), -1.0)
        row(states, bits, centre, before, 7, code, layout, norm, speed, spacings, 1, False)
        assert_allclose(norm[1:], kernel(blocks[0], zero, centre, np.zeros(2, np.int64)), rtol=1e-14)
        assert_allclose(speed[1:], np.abs(blocks[0][:, centre].astype(float) - previous).sum(axis=2), rtol=1e-14)
        expected = distances.rounding_rows(bits_of(blocks[0])[0], *layout)[:, :, centre]
        assert_allclose(spacings[:, 1:], expected, rtol=1e-14)
        assert_array_equal(before[:, 7:18], blocks[0][-1, centre])
        assert not before[:, :7].any()
        assert not before[:, 18:].any()
        for untouched in (distance[0], norm[0], speed[0], spacings[:, 0]):
            assert (untouched == -1).all()


@pytest.mark.parametrize("code", [L1, L2, LINF])
def test_passes_over_parts_of_the_entries_are_one_over_all(code, blocks):
    states = np.ascontiguousarray(blocks[0].transpose(1, 0, 2))
    centre, shape = np.array([0, 2]), (states.shape[1], 2)
    layout = (*bits_of(states)[1:], *FORMATS[states.dtype.name])
    results = []
    for edges in ((0, states.shape[2]), (0, 4, 5, states.shape[2])):
        before = blocks[1][-1, centre].copy()
        distance, norm, speed = np.empty((states.shape[1], len(LEFT))), np.empty(shape), np.empty(shape)
        spacings = np.empty((3, *shape))
        for start, stop in pairwise(edges):
            part = np.ascontiguousarray(states[:, :, start:stop])
            distances.twin_rows(part, LEFT, RIGHT, code, distance, 0, start > 0)
            distances.reference_rows(
                part, bits_of(part)[0], centre, before, start, code, layout, norm, speed, spacings, 0, start > 0
            )
        results.append((distance, norm, speed, spacings, before))
    for one, other in zip(*results, strict=True):
        assert_allclose(one, other, rtol=1e-14)


@pytest.mark.parametrize("kernel", PAIRS, ids=lambda k: k.__name__)
def test_inputs_are_left_unchanged(kernel, blocks):
    before = [block.copy() for block in blocks]
    for block in blocks:
        block.flags.writeable = False
    kernel(*blocks, LEFT, RIGHT)
    for block, old in zip(blocks, before, strict=True):
        assert_array_equal(block, old)


@pytest.mark.parametrize("kernel", PAIRS, ids=lambda k: k.__name__)
def test_threads_change_nothing(kernel, blocks):
    alone = kernel(*blocks, LEFT, RIGHT)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: kernel(*blocks, LEFT, RIGHT), range(16)):
            assert_array_equal(found, alone)


@pytest.mark.parametrize("kernel", PAIRS, ids=lambda k: k.__name__)
@pytest.mark.parametrize("place", [0, 5, 10])
def test_nan_anywhere_is_nan_in_that_row(kernel, blocks, place):
    a, b = blocks
    a = a.copy()
    a[2, 0, place] = np.nan
    found = kernel(a, b, LEFT, RIGHT)
    assert np.isnan(found[2, 0])
    assert np.isfinite(np.delete(found.ravel(), 2 * 3)).all()


@pytest.mark.parametrize("kernel", PAIRS, ids=lambda k: k.__name__)
def test_no_states_and_no_weights_are_no_error(kernel):
    assert kernel(np.empty((0, 1, 3)), np.empty((0, 1, 3)), np.zeros(1, int), np.zeros(1, int)).shape == (0, 1)
    assert kernel(np.empty((2, 1, 0)), np.empty((2, 1, 0)), np.zeros(1, int), np.zeros(1, int)).tolist() == [[0], [0]]


READ_ONLY = """
import numba.core.caching as caching

def refuse(self):
    raise PermissionError("read-only file system")

caching.InTreeCacheLocator.ensure_cache_path = refuse
"""


def without_cache(code, **more):
    """Run code where neither the folder of the package nor that of the user can be written."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG"))}
    environment |= dict.fromkeys(("HOME", "XDG_CACHE_HOME"), "/proc/nowhere") | {"PYTHONPATH": str(ROOT)} | more
    line = [sys.executable, "-c", READ_ONLY + code]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False, timeout=300)


ROOT = Path(__file__).parent.parent
DISTANCE = "import numpy as np, trajtools as tt; print(tt.distance(np.eye(3), 0 * np.eye(3)).sum())"
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, which nobody can write to")


@on_linux
def test_kernels_work_without_a_cache_and_say_once_how_to_get_one(tmp_path):
    done = without_cache(DISTANCE)
    assert (done.returncode, done.stdout.strip()) == (0, "3.0"), done.stderr
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1
    cached = without_cache(DISTANCE, NUMBA_CACHE_DIR=str(tmp_path))
    assert (cached.returncode, cached.stdout.strip(), cached.stderr) == (0, "3.0", "")
    assert list(tmp_path.rglob("*.nbi"))


@on_linux
def test_commands_say_in_one_line_that_there_is_no_cache():
    done = without_cache(f"from trajtools.cli.runner import compile_notice\nwith compile_notice(False): {DISTANCE}")
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Compiling kernels, in every process: neither")
    assert "NUMBA_CACHE_DIR" in line


class Kernel:
    """A kernel as numba's events name it."""

    def __init__(self, module="trajtools._kernels.distances"):
        self.data = {"dispatcher": self}
        self.py_func = type("function", (), {"__module__": module})


@pytest.fixture
def compiled():
    """Compile kernels of four seconds each with a new listener; a kernel calls another one of two seconds."""
    seconds = [0.0]

    def run(*kernels):
        for kernel in kernels:
            listener.on_start(kernel)
            for _ in range(2):
                listener.on_start(Kernel("numba.np.arrayobj"))
                seconds[0] += 1.0
                listener.on_end(Kernel("numba.np.arrayobj"))
            seconds[0] += 2.0
            listener.on_end(kernel)

    listener = _jit.Compilations(lambda: seconds[0])
    return run


def test_a_long_compilation_is_logged_once(compiled, caplog):
    compiled(Kernel())
    assert not caplog.records  # one kernel is no long wait
    compiled(Kernel(), Kernel())
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == ("trajtools", "WARNING", _jit.compile_message())


def test_kernels_of_others_and_silenced_logs_say_nothing(compiled, caplog):
    compiled(*[Kernel("mine")] * 3)
    assert not caplog.records
    caplog.set_level("ERROR", logger="trajtools")
    compiled(*[Kernel()] * 3)
    assert not caplog.records


def test_a_listener_is_notified_of_every_kernel_instead(compiled, caplog):
    heard = []
    with _jit.on_compile(lambda: heard.append(1)):
        compiled(*[Kernel()] * 3)
        assert len(heard) == 3
    compiled(*[Kernel()] * 3)
    assert not caplog.records  # a command that has said it does not say it again while it prints


def test_worker_processes_say_nothing(compiled, caplog, monkeypatch):
    monkeypatch.setattr(_jit, "parent_process", lambda: "the driver")
    compiled(*[Kernel()] * 3)
    assert not caplog.records


def test_numba_reports_the_compilations_of_our_kernels():
    def add(x):
        return x + 1

    heard = []
    with _jit.on_compile(lambda: heard.append(1)):
        assert numba.njit(add)(1) == 2
        assert not heard  # a function of the tests
        add.__module__ = "trajtools._kernels.distances"
        assert numba.njit(add)(1) == 2
    assert len(heard) == 1
