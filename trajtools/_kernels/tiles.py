"""Sums over the weights for all pairs of two blocks of states. See trajtools.distances.pairwise.

A register tile compares GROUP x GROUP states, 16 float32 or 8 float64 weights at a time. Sums of float32 differences
stay in float32 for a few steps only and are then added to float64 sums. The order of the additions of one pair depends
on the number of weights only, so results do not depend on tiles, threads or the vector width of the machine, bit for
bit. numba has no vector types, so the innermost loop is written for LLVM.
"""

# Arrays are passed one by one to functions called for every tile.
# ruff: noqa: PLR0917

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from trajtools._kernels._jit import kernel
from trajtools.types import L1, L2, LINF

BLOCK_BYTES = 4096  # of one state compared at a time: two groups of states fit into the L1 cache
PANEL = 64  # groups of states compared with one group: fit into the L2 cache
SPAN = 32  # steps summed in float32
_UNROLL = 4  # consecutive steps summed before they join the sums, for accuracy
_SUMS_OF_SINGLES = 2  # of a pair in turn, joined at the end of a span: as accurate as spans of half the length
_DOUBLES, _SINGLES = 8, 16  # numbers in a vector
_VECTOR_BYTES = 64

# Half of a tile at a time: its sums, the terms that join them and the states use 22 of the 32 registers of AVX-512;
# other machines have half of the space or less.
GROUP = 4 if binding.get_host_cpu_features().get("avx512f", False) else 2
_ROWS = GROUP // 2

_WORD = ir.IntType(64)
_SUMS = ir.VectorType(ir.DoubleType(), _DOUBLES)


def _vector(kind: Any) -> Any:
    """LLVM vector of 64 bytes for a dtype, and the suffix of its intrinsics."""
    single = kind.dtype == types.float32
    lanes = _VECTOR_BYTES // (4 if single else 8)
    return ir.VectorType(ir.FloatType() if single else ir.DoubleType(), lanes), f"v{lanes}f{32 if single else 64}"


def _function(builder: Any, name: str, vector: Any, ending: str, arguments: int) -> Any:
    return get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * arguments), f"llvm.{name}.{ending}"
    )


def _add_l1(builder: Any, sums: Any, difference: Any, vector: Any, ending: str) -> Any:
    term = builder.call(_function(builder, "fabs", vector, ending, 1), [difference])
    return term if sums is None else builder.fadd(sums, term)


def _add_l2(builder: Any, sums: Any, difference: Any, vector: Any, ending: str) -> Any:
    if sums is None:
        return builder.fmul(difference, difference)
    return builder.call(_function(builder, "fma", vector, ending, 3), [difference, difference, sums])


def _add_linf(builder: Any, sums: Any, difference: Any, vector: Any, ending: str) -> Any:
    term = builder.call(_function(builder, "fabs", vector, ending, 1), [difference])
    return term if sums is None else _larger(builder, sums, term)


def _add_differing(builder: Any, sums: Any, difference: Any, vector: Any, ending: str) -> Any:
    zero, one = (ir.Constant(vector, [number] * vector.count) for number in (0.0, 1.0))
    term = builder.select(builder.fcmp_unordered("!=", difference, zero), one, zero)
    return term if sums is None else builder.fadd(sums, term)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _plus(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b)


def _doubles(builder: Any, vector: Any) -> list[Any]:
    """Split a vector into vectors of eight float64."""
    if vector.type == _SUMS:
        return [vector]
    halves = []
    for first in range(0, vector.type.count, _DOUBLES):
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), _DOUBLES), list(range(first, first + _DOUBLES)))
        part = builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), lanes)
        halves.append(builder.fpext(part, _SUMS))
    return halves


def _span(add: Any, merge: Any) -> Any:
    """Generate the innermost loops: GROUP x GROUP pairs over some steps, merged into eight float64 per pair."""

    @intrinsic
    def span(typing: Any, a: Any, at: Any, b: Any, other: Any, steps: Any, sums: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            vector, ending = _vector(signature.args[0])

            def start(array: int, index: int, kind: Any) -> Any:
                data = make_array(signature.args[array])(context, builder, values[array]).data
                return builder.bitcast(builder.gep(data, [values[index]]) if index else data, kind.as_pointer())

            def term(sums: Any, difference: Any) -> Any:
                return add(builder, sums, difference, vector, ending)

            left, right, room = start(0, 1, vector), start(2, 3, vector), start(5, 0, _SUMS)
            for first in range(0, GROUP, _ROWS):
                rows = range(first, first + _ROWS)
                sums_of_pairs = _loop(builder, (left, right), rows, values[4], vector, term, merge)
                for pair, new in enumerate(sums_of_pairs, first * GROUP):
                    place = builder.gep(room, [ir.Constant(_WORD, pair)])
                    total = builder.load(place, align=8)
                    for half in _doubles(builder, new):
                        total = merge(builder, total, half)
                    builder.store(total, place, align=8)
            return context.get_dummy_value()

        return types.void(a, types.intp, b, types.intp, types.intp, sums), generate

    return span


def _loop(builder: Any, sides: Any, rows: range, steps: Any, vector: Any, term: Any, merge: Any) -> list[Any]:
    """Sum over the steps for some rows of the tile, with sums and terms in registers."""
    pairs = [(row, column) for row in rows for column in range(GROUP)]
    entry, loop, exit_block = builder.block, builder.append_basic_block("steps"), builder.append_basic_block("sums")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(_WORD)
    step.add_incoming(ir.Constant(_WORD, 0), entry)
    running = [[builder.phi(vector) for _ in pairs] for _ in range(_SUMS_OF_SINGLES if vector.count == _SINGLES else 1)]
    for number, sums in enumerate(running):
        parts: list[Any] = [None] * len(pairs)
        for ahead in range(number * _UNROLL, (number + 1) * _UNROLL):
            start = builder.mul(builder.add(step, ir.Constant(_WORD, ahead)), ir.Constant(_WORD, GROUP))
            places = [builder.add(start, ir.Constant(_WORD, lane)) for lane in range(GROUP)]
            a, b = ([builder.load(builder.gep(side, [place]), align=4) for place in places] for side in sides)
            parts = [
                term(part, builder.fsub(a[row], b[column])) for part, (row, column) in zip(parts, pairs, strict=True)
            ]
        for old, part in zip(sums, parts, strict=True):
            old.add_incoming(ir.Constant(vector, [0.0] * vector.count), entry)
            old.add_incoming(merge(builder, old, part), loop)
    following = builder.add(step, ir.Constant(_WORD, len(running) * _UNROLL))
    step.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, exit_block)
    builder.position_at_end(exit_block)
    latest = [[old.incomings[-1][0] for old in sums] for sums in running]
    return [reduce(partial(merge, builder), sums) for sums in zip(*latest, strict=True)]


_span_l1 = _span(_add_l1, _plus)
_span_l2 = _span(_add_l2, _plus)
_span_linf = _span(_add_linf, _larger)
_span_differing = _span(_add_differing, _plus)


@intrinsic
def _fetch(typing: Any, entries: Any, at: Any) -> Any:
    """Have the cache line of an entry read ahead; `at` may lie outside the array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, values[0]).data
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        flags = [ir.Constant(flag, number) for number in (0, 3, 1)]  # to read, into all caches, data
        builder.call(fetch, [builder.bitcast(builder.gep(data, [values[1]]), byte), *flags])
        return context.get_dummy_value()

    return types.void(entries, types.intp), generate


@kernel(nogil=True)
def _sum_l1(a: Any, at: Any, b: Any, other: Any, steps: Any, sums: Any) -> None:
    _span_l1(a, at, b, other, steps, sums)


@kernel(nogil=True)
def _sum_l2(a: Any, at: Any, b: Any, other: Any, steps: Any, sums: Any) -> None:
    _span_l2(a, at, b, other, steps, sums)


@kernel(nogil=True)
def _sum_linf(a: Any, at: Any, b: Any, other: Any, steps: Any, sums: Any) -> None:
    _span_linf(a, at, b, other, steps, sums)


@kernel(nogil=True)
def _sum_differing(a: Any, at: Any, b: Any, other: Any, steps: Any, sums: Any) -> None:
    _span_differing(a, at, b, other, steps, sums)


@kernel(nogil=True)
def pack(entries: Any, stride: Any, count: Any, scale: Any, signs: Any, first: Any, last: Any, panel: Any) -> Any:
    """Pack entries first .. last of states, scaled per state, in the order that a tile reads.

    State i begins at ``entries[i * stride]``. `panel` (groups, steps, GROUP, lanes) is padded with zeros. Returns
    the number of steps, a multiple of those that are summed in one turn.
    """
    lanes = panel.shape[3]
    turn = (_SUMS_OF_SINGLES if lanes == _SINGLES else 1) * _UNROLL
    steps = -(-(last - first) // (lanes * turn)) * turn
    for group in range(panel.shape[0]):
        for row in range(GROUP):
            state = group * GROUP + row
            start = state * stride + first
            whole = (last - first) // lanes if state < count else 0
            _pack_whole(panel, group, row, entries, start, stride, whole, scale[min(state, count - 1)], signs)
            for step in range(whole, steps):
                for lane in range(lanes):
                    at = step * lanes + lane
                    value = entries[start + at] * scale[state] if state < count and at < last - first else scale[0] * 0
                    panel[group, step, row, lane] = np.sign(value) if signs else value
    return steps


@kernel(nogil=True)
def _pack_whole(
    panel: Any, group: Any, row: Any, entries: Any, start: Any, stride: Any, steps: Any, factor: Any, signs: Any
) -> None:
    """Pack the steps of one state that are filled with entries; loops of a known length become one vector.

    The entries of the following state are far away in memory and too few for the processor to read ahead by itself.
    """
    lanes = panel.shape[3]
    if signs:
        for step in range(steps):
            for lane in range(lanes):
                panel[group, step, row, lane] = np.sign(entries[start + step * lanes + lane] * factor)
    elif lanes == _SINGLES:
        for step in range(steps):
            _fetch(entries, start + stride + step * _SINGLES)
            for lane in range(_SINGLES):
                panel[group, step, row, lane] = entries[start + step * _SINGLES + lane] * factor
    else:
        for step in range(steps):
            _fetch(entries, start + stride + step * _DOUBLES)
            for lane in range(_DOUBLES):
                panel[group, step, row, lane] = entries[start + step * _DOUBLES + lane] * factor


@kernel(nogil=True)
def add_block(operation: Any, triangle: Any, a: Any, b: Any, steps: Any, sums: Any, out: Any) -> None:
    """Add one packed block of weights to the pairs out (n, m), only the lower half for `triangle`."""
    left, right = a.reshape(-1), b.reshape(-1)
    width = a.shape[2] * a.shape[3]
    size = a.shape[1] * width
    for panel in range(0, b.shape[0], PANEL):
        for i in range(a.shape[0]):
            end = min(panel + PANEL, b.shape[0])
            for j in range(panel, min(end, i + 1) if triangle else end):
                sums[:] = 0.0
                for step in range(0, steps, SPAN):
                    at, other, count = i * size + step * width, j * size + step * width, min(SPAN, steps - step)
                    if operation == L1:
                        _sum_l1(left, at, right, other, count, sums)
                    elif operation == L2:
                        _sum_l2(left, at, right, other, count, sums)
                    elif operation == LINF:
                        _sum_linf(left, at, right, other, count, sums)
                    else:
                        _sum_differing(left, at, right, other, count, sums)
                for row in range(min(GROUP, out.shape[0] - i * GROUP)):
                    for column in range(min(GROUP, out.shape[1] - j * GROUP)):
                        s = sums[(row * GROUP + column) * _DOUBLES : (row * GROUP + column + 1) * _DOUBLES]
                        place = i * GROUP + row, j * GROUP + column
                        if operation == LINF:
                            out[place] = max(out[place], s.max())
                        else:
                            out[place] += ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))


@kernel(nogil=True)
def count_exponents(bits: Any, stride: Any, size: Any, shift: Any, counts: Any) -> None:
    """Count the exponents of the entries of each state: counts (n, bins).

    State i begins at ``bits[i * stride]``. Four counters in turn hide the latency of equal exponents.
    """
    bins = counts.shape[1]
    mask = bins - 1
    parts = np.zeros((4, bins), np.int64)
    for state in range(counts.shape[0]):
        parts[:] = 0
        start = state * stride
        whole = size // 4 * 4
        for entry in range(start, start + whole, 4):
            parts[0, (bits[entry] >> shift) & mask] += 1
            parts[1, (bits[entry + 1] >> shift) & mask] += 1
            parts[2, (bits[entry + 2] >> shift) & mask] += 1
            parts[3, (bits[entry + 3] >> shift) & mask] += 1
        for entry in range(start + whole, start + size):
            parts[0, (bits[entry] >> shift) & mask] += 1
        for part in range(4):
            for place in range(bins):
                counts[state, place] += parts[part, place]
