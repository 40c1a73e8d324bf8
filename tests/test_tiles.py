"""The contract of the kernels of all distances: compiled and interpreted, input, threads, every width."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from trajtools import types
from trajtools._kernels import tiles

OPERATIONS = {
    types.L1: lambda d: np.abs(d).sum(axis=-1),
    types.L2: lambda d: (d * d).sum(axis=-1),
    types.LINF: lambda d: np.abs(d).max(axis=-1),
    types.DIFFERING: lambda d: np.count_nonzero(d, axis=-1),
}
KINDS = (np.float32, np.float64)


def packed(states, pack=tiles.pack):
    lanes = 64 // states.itemsize
    groups, steps = -(-len(states) // tiles.GROUP), tiles.BLOCK_BYTES // 64
    panel = np.full((groups, steps, tiles.GROUP, lanes), np.nan, states.dtype)
    scale = np.ones(len(states), states.dtype)
    count = pack(states.reshape(-1), states.shape[1], len(states), scale, False, 0, states.shape[1], panel)
    return panel, count


def added(operation, a, b, triangle=False, add=tiles.add_block):
    (left, steps), (right, _) = packed(a), packed(b)
    out = np.zeros((len(a), len(b)))
    add(operation, triangle, left, right, steps, np.zeros(tiles.GROUP**2 * 8), out)
    return out


def drawn(kind, size, count=(7, 5)):
    rng = np.random.default_rng(size)
    a, b = (rng.integers(-8, 8, (n, size)).astype(kind) for n in count)  # sums of these are exact in any order
    return a, b


@pytest.mark.parametrize("operation", list(OPERATIONS))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 15, 64, 65, 300])
def test_sums_are_those_of_the_definition(operation, kind, size):
    a, b = drawn(kind, size)
    assert_array_equal(added(operation, a, b), OPERATIONS[operation](a[:, None].astype(float) - b[None]))


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_compiled_equals_interpreted(operation):
    a, b = drawn(np.float64, 70)
    assert_array_equal(added(operation, a, b, add=tiles.add_block.py_func), added(operation, a, b))
    for states in (a, a.astype(np.float32)):
        panel, steps = packed(states)
        again, count = packed(states, tiles.pack.py_func)
        assert steps == count
        assert_array_equal(panel[:, :steps], again[:, :steps])


def test_a_triangle_is_the_lower_half():
    a, _ = drawn(np.float32, 50, (13, 1))
    whole, half = added(types.L1, a, a), added(types.L1, a, a, triangle=True)
    assert_array_equal(np.tril(half), np.tril(whole))


def test_inputs_are_left_unchanged_and_threads_change_nothing():
    a, b = (x + np.float32(0.1) for x in drawn(np.float32, 900))
    (left, steps), (right, _) = packed(a), packed(b)
    before = left.copy(), right.copy()
    for panel in (left, right):
        panel.flags.writeable = False
    alone = added(types.L1, a, b)

    def work(_):
        out = np.zeros((len(a), len(b)))
        tiles.add_block(types.L1, False, left, right, steps, np.zeros(tiles.GROUP**2 * 8), out)
        return out

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(8)):
            assert_array_equal(found, alone)
    assert_array_equal(left, before[0])
    assert_array_equal(right, before[1])


@pytest.mark.parametrize(
    ("kind", "word", "shift", "bins"), [(np.float32, np.int32, 23, 256), (np.float64, np.int64, 52, 2048)]
)
def test_exponents_are_counted(kind, word, shift, bins):
    x = np.array([[1.0, 1.5, -2.0, 0.0, 3.9], [np.nan, np.inf, 1e-3, 4.0, -0.5]], kind)
    counts = np.zeros((2, bins), np.int64)
    tiles.count_exponents(x.view(word).reshape(-1), 5, 5, shift, counts)
    again = np.zeros_like(counts)
    tiles.count_exponents.py_func(x.view(word).reshape(-1), 5, 5, shift, again)
    assert_array_equal(counts, again)
    bias = bins // 2 - 1
    assert counts[0, bias] == 2
    assert counts[0, bias + 1] == 2
    assert counts[0, 0] == 1
    assert counts[1, -1] == 2
    assert_array_equal(counts.sum(axis=1), 5)


def test_narrower_machines_add_in_the_same_order():
    """16 lanes, two sums in turn, then eight a pair, whatever GROUP is: the order of a sum does not depend on it."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 3000)).astype(np.float32)
    lanes = np.abs(a[:, None] - b[None])
    lanes = np.pad(lanes, ((0, 0), (0, 0), (0, -3000 % 128))).reshape(4, 4, -1, 16)
    total = np.zeros((4, 4))
    steps_of_block = tiles.BLOCK_BYTES // 64
    for start in range(0, lanes.shape[2], steps_of_block):
        eight = np.zeros((4, 4, 8))
        block = lanes[:, :, start : start + steps_of_block]
        for span in range(0, block.shape[2], tiles.SPAN):
            turns = np.zeros((2, 4, 4, 16), np.float32)
            for step in range(span, min(span + tiles.SPAN, block.shape[2]), 4):
                part = block[:, :, step]
                for ahead in range(1, 4):
                    part = part + block[:, :, step + ahead]
                turns[step // 4 % 2] += part
            sums = turns[0] + turns[1]
            eight = (eight + sums[..., :8]) + sums[..., 8:]
        total += ((eight[..., 0] + eight[..., 1]) + (eight[..., 2] + eight[..., 3])) + (
            (eight[..., 4] + eight[..., 5]) + (eight[..., 6] + eight[..., 7])
        )
    found = np.zeros((4, 4))
    entries = tiles.BLOCK_BYTES // 4
    for first in range(0, 3000, entries):
        part = [np.ascontiguousarray(x[:, first : first + entries]) for x in (a, b)]
        (left, steps), (right, _) = packed(part[0]), packed(part[1])
        tiles.add_block(types.L1, False, left, right, steps, np.zeros(tiles.GROUP**2 * 8), found)
    assert_allclose(found, total, rtol=0)
