"""Words of 64 bits: 64 comparisons at once, and where bits are set.

numba knows no vectors, so these are written for LLVM. Every one is wrapped into a kernel, so that the loops above them
also run interpreted.
"""

# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.cgutils import alloca_once, for_range, get_or_insert_function, unpack_tuple
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from trajtools._kernels._jit import kernel

_LANES = 8
_DOUBLES = ir.VectorType(ir.DoubleType(), _LANES)
_WORD = ir.IntType(64)


def _load(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Eight numbers of an array from `at` on."""
    return _eight(builder, make_array(kind)(context, builder, array).data, at)


def _eight(builder: Any, data: Any, at: Any) -> Any:
    return builder.load(builder.bitcast(builder.gep(data, [at]), _DOUBLES.as_pointer()), align=8)


def _magnitude(builder: Any) -> Any:
    kind = ir.FunctionType(_DOUBLES, [_DOUBLES])
    return get_or_insert_function(builder.module, kind, f"llvm.fabs.v{_LANES}f64")


def _spread(builder: Any, number: Any) -> Any:
    """Eight copies of a number."""
    one = builder.insert_element(ir.Constant(_DOUBLES, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
    return builder.shuffle_vector(one, ir.Constant(_DOUBLES, ir.Undefined), lanes)


def _word(builder: Any, compare: Any) -> Any:
    """Bits of eight comparisons of eight numbers each."""
    word = ir.Constant(_WORD, 0)
    for group in range(64 // _LANES):
        bits = builder.zext(builder.bitcast(compare(group * _LANES), ir.IntType(_LANES)), _WORD)
        word = builder.or_(word, builder.shl(bits, ir.Constant(_WORD, group * _LANES)))
    return word


@intrinsic
def _near(typing: Any, a: Any, at: Any, b: Any, other: Any, level: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        x, i, y, j, limit = values
        limits = _spread(builder, limit)
        magnitude = _magnitude(builder)

        def compare(offset: int) -> Any:
            shift = ir.Constant(_WORD, offset)
            left = _load(context, builder, signature.args[0], x, builder.add(i, shift))
            right = _load(context, builder, signature.args[2], y, builder.add(j, shift))
            return builder.fcmp_ordered("<=", builder.call(magnitude, [builder.fsub(left, right)]), limits)

        return _word(builder, compare)

    return types.uint64(a, types.int64, b, types.int64, types.float64), generate


def _sums_within(squared: bool) -> Any:
    """Sums over coordinates stay in registers: in memory they would take most of the time."""

    def _within(typing: Any, a: Any, at: Any, b: Any, other: Any, offsets: Any, level: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
            x, i, y, j, delays, limit = values
            left, right = (make_array(signature.args[k])(context, builder, v) for k, v in ((0, x), (2, y)))
            steps = make_array(signature.args[4])(context, builder, delays)
            channels, width = unpack_tuple(builder, left.shape)
            _, other_width = unpack_tuple(builder, right.shape)
            magnitude = _magnitude(builder)
            sums = [alloca_once(builder, _DOUBLES) for _ in range(64 // _LANES)]
            for place in sums:
                builder.store(ir.Constant(_DOUBLES, [0.0] * _LANES), place)
            with for_range(builder, unpack_tuple(builder, steps.shape)[0]) as delay:
                step = builder.load(builder.gep(steps.data, [delay.index]))
                with for_range(builder, channels) as channel:
                    here = builder.add(builder.add(i, step), builder.mul(channel.index, width))
                    there = builder.add(builder.add(j, step), builder.mul(channel.index, other_width))
                    for group, place in enumerate(sums):
                        shift = ir.Constant(_WORD, group * _LANES)
                        gap = builder.fsub(
                            _eight(builder, left.data, builder.add(here, shift)),
                            _eight(builder, right.data, builder.add(there, shift)),
                        )
                        part = builder.fmul(gap, gap) if squared else builder.call(magnitude, [gap])
                        builder.store(builder.fadd(builder.load(place), part), place)
            limits = _spread(builder, limit)
            return _word(builder, lambda q: builder.fcmp_ordered("<=", builder.load(sums[q // _LANES]), limits))

        return types.uint64(a, types.int64, b, types.int64, offsets, types.float64), generate

    return _within


_squares_within, _gaps_within = intrinsic(_sums_within(True)), intrinsic(_sums_within(False))


@intrinsic
def _below(typing: Any, a: Any, at: Any, level: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        x, i, limit = values
        limits = _spread(builder, limit)

        def compare(offset: int) -> Any:
            left = _load(context, builder, signature.args[0], x, builder.add(i, ir.Constant(_WORD, offset)))
            return builder.fcmp_ordered("<=", left, limits)

        return _word(builder, compare)

    return types.uint64(a, types.int64, types.float64), generate


@intrinsic
def _lowest(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def _count(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.int64(types.uint64), generate


@kernel(nogil=True, _nrt=False, forceinline=True)
def near(a: Any, at: Any, b: Any, other: Any, level: Any) -> Any:
    """Bit q: whether a[at + q] and b[other + q] differ by at most the level. NaN is near nothing."""
    return _near(a, at, b, other, level)


@kernel(nogil=True, _nrt=False, forceinline=True)
def squares_within(a: Any, at: Any, b: Any, other: Any, offsets: Any, level: Any) -> Any:
    """Bit q: whether the squares of ``a[c, at + q + o] - b[c, other + q + o]``, over all c and o, sum to the level."""
    return _squares_within(a, at, b, other, offsets, level)


@kernel(nogil=True, _nrt=False, forceinline=True)
def gaps_within(a: Any, at: Any, b: Any, other: Any, offsets: Any, level: Any) -> Any:
    """Bit q: whether the magnitudes of ``a[c, at + q + o] - b[c, other + q + o]`` sum to at most the level."""
    return _gaps_within(a, at, b, other, offsets, level)


@kernel(nogil=True, _nrt=False, forceinline=True)
def below(a: Any, at: Any, level: Any) -> Any:
    """Bit q: whether a[at + q] is at most the level."""
    return _below(a, at, level)


@kernel(nogil=True, _nrt=False, forceinline=True)
def lowest(word: Any) -> Any:
    """Place of the lowest bit of a word; 64 where none is set."""
    return _lowest(word)


@kernel(nogil=True, _nrt=False, forceinline=True)
def count(word: Any) -> Any:
    """Number of bits."""
    return _count(word)


@kernel(nogil=True, _nrt=False, forceinline=True)
def bits_between(low: Any, high: Any) -> Any:
    """A word with the bits low .. high - 1, for 0 <= low, high <= 64; empty if low >= high."""
    if low >= high:
        return np.uint64(0)
    filled = ~np.uint64(0) >> np.uint64(64 - (high - low))
    return filled << np.uint64(low)
