"""Eight numbers at once: distances of a point to the points of a bucket or to boxes, and comparisons as bits.

numba has no vector types, so these functions are written for LLVM. Each is wrapped into a kernel, so that the loops
that call them also run interpreted.
"""

# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import alloca_once, for_range, get_or_insert_function, unpack_tuple
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from trajtools._kernels._jit import kernel
from trajtools.types import L1, L2

LANES = 8
FOUR = 4
DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
WORD = ir.IntType(64)
_QUAD = ir.VectorType(ir.DoubleType(), FOUR)
_WORDS = ir.VectorType(WORD, LANES)
_SMALLEST = 1 << 61  # the bits of 2 ** -511; numbers up to 2 ** 513 differ from them in the lowest 62 bits only
_ZERO = ir.Constant(DOUBLES, [0.0] * LANES)


def eight(builder: Any, data: Any, at: Any, kind: Any = DOUBLES) -> Any:
    """Load eight numbers from `at` on."""
    return builder.load(_place(builder, data, at, kind), align=8)


def _place(builder: Any, data: Any, at: Any, kind: Any) -> Any:
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def spread(builder: Any, number: Any, kind: Any = DOUBLES) -> Any:
    """Broadcast a number to eight lanes."""
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def magnitude(builder: Any, numbers: Any) -> Any:
    """Absolute values of a vector."""
    kind = ir.FunctionType(numbers.type, [numbers.type])
    return builder.call(get_or_insert_function(builder.module, kind, f"llvm.fabs.v{numbers.type.count}f64"), [numbers])


def bits(builder: Any, compared: Any) -> Any:
    """Eight comparisons as the lowest bits of a word."""
    return builder.zext(builder.bitcast(compared, ir.IntType(LANES)), WORD)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _add_square(builder: Any, total: Any, step: Any) -> Any:
    return builder.fadd(total, builder.fmul(step, step))


def _add_size(builder: Any, total: Any, step: Any) -> Any:
    return builder.fadd(total, magnitude(builder, step))


def _keep_largest(builder: Any, total: Any, step: Any) -> Any:
    return _larger(builder, magnitude(builder, step), total)


def _from_bucket(builder: Any, data: Any, at: Any, number: Any) -> Any:
    return builder.fsub(eight(builder, data, at), number)


def _from_box(builder: Any, data: Any, at: Any, number: Any) -> Any:
    """Distance to the nearer side; zero between the two."""
    upper = builder.add(at, ir.Constant(WORD, LANES))
    below, above = builder.fsub(eight(builder, data, at), number), builder.fsub(number, eight(builder, data, upper))
    return _larger(builder, _larger(builder, below, above), _ZERO)


def _sums(reach: Callable[..., Any], add: Callable[..., Any]) -> Any:
    """Sum over the coordinates of a point, in a register."""

    @intrinsic
    def sums(typing: Any, out: Any, at: Any, eights: Any, row: Any, point: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
            gaps, rows, numbers = (make_array(signature.args[k])(context, builder, values[k]) for k in (0, 2, 4))
            shape = unpack_tuple(builder, rows.shape)
            size = shape[-1]
            for length in shape[2:-1]:
                size = builder.mul(size, length)
            start = builder.mul(values[3], builder.mul(size, shape[1]))
            total = alloca_once(builder, DOUBLES)
            builder.store(_ZERO, total)
            with for_range(builder, shape[1]) as coordinate:
                number = spread(builder, builder.load(builder.gep(numbers.data, [coordinate.index])))
                place = builder.add(start, builder.mul(coordinate.index, size))
                step = reach(builder, rows.data, place, number)
                builder.store(add(builder, builder.load(total), step), total)
            builder.store(builder.load(total), _place(builder, gaps.data, values[1], DOUBLES), align=8)
            return context.get_dummy_value()

        return types.void(out, types.intp, eights, types.intp, point), generate

    return sums


_bucket_l2, _bucket_l1, _bucket_linf = (_sums(_from_bucket, add) for add in (_add_square, _add_size, _keep_largest))
_boxes_l2, _boxes_l1, _boxes_linf = (_sums(_from_box, add) for add in (_add_square, _add_size, _keep_largest))


def _paths(add: Callable[..., Any], close: Callable[..., Any], dimension: int | None = None) -> Any:
    """Add functions of the gaps of two states and their successors to running sums, four steps at a time.

    A known dimension saves a loop for each four steps.
    """

    @intrinsic
    def paths(typing: Any, total: Any, steps: Any, lags: Any, i: Any, j: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
            out, states = (make_array(signature.args[k])(context, builder, values[k]) for k in (0, 2))
            coordinates, length = unpack_tuple(builder, states.shape)
            gaps = alloca_once(builder, _QUAD)

            def add_one(here: Any, there: Any, coordinate: Any) -> None:
                shift = builder.mul(coordinate, length)
                a, b = (eight(builder, states.data, builder.add(at, shift), _QUAD) for at in (here, there))
                builder.store(add(builder, builder.load(gaps), builder.fsub(a, b)), gaps)

            with for_range(builder, builder.sdiv(values[1], ir.Constant(WORD, FOUR))) as group:
                first = builder.mul(group.index, ir.Constant(WORD, FOUR))
                here, there = builder.add(values[3], first), builder.add(values[4], first)
                builder.store(ir.Constant(_QUAD, [0.0] * FOUR), gaps)
                if dimension is None:
                    with for_range(builder, coordinates) as coordinate:
                        add_one(here, there, coordinate.index)
                else:
                    for at in range(dimension):
                        add_one(here, there, ir.Constant(WORD, at))
                place = _place(builder, out.data, first, _QUAD)
                new = builder.fadd(builder.load(place, align=8), close(builder, builder.load(gaps)))
                builder.store(new, place, align=8)
            return context.get_dummy_value()

        return types.void(total, types.intp, lags, types.intp, types.intp), generate

    return paths


def _root(builder: Any, gaps: Any) -> Any:
    kind = ir.FunctionType(gaps.type, [gaps.type])
    return builder.call(get_or_insert_function(builder.module, kind, "llvm.sqrt.v4f64"), [gaps])


def _square(builder: Any, gaps: Any) -> Any:
    return builder.fmul(gaps, gaps)


def _same(builder: Any, gaps: Any) -> Any:
    return gaps


_roots_of_two, _roots_of_three = _paths(_add_square, _root, 2), _paths(_add_square, _root, 3)
_roots_l2, _squares_l2 = _paths(_add_square, _root), _paths(_add_square, _same)
_sums_l1, _squares_l1 = _paths(_add_size, _same), _paths(_add_size, _square)
_sums_linf, _squares_linf = _paths(_keep_largest, _same), _paths(_keep_largest, _square)


def _products(add: Callable[..., Any], dimension: int | None = None) -> Any:
    """Multiply products by the gaps of two states and their successors; eight steps stay in registers."""

    @intrinsic
    def products(typing: Any, old: Any, new: Any, lags: Any, i: Any, j: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
            before, after, states = (make_array(signature.args[k])(context, builder, values[k]) for k in range(3))
            coordinates, length = unpack_tuple(builder, states.shape)
            gaps, wrong = alloca_once(builder, DOUBLES), alloca_once(builder, _WORDS)
            builder.store(ir.Constant(_WORDS, [0] * LANES), wrong)

            def add_one(first: Any, coordinate: Any) -> None:
                start = builder.add(first, builder.mul(coordinate, length))
                a, b = (eight(builder, states.data, builder.add(start, at)) for at in values[3:])
                builder.store(add(builder, builder.load(gaps), builder.fsub(a, b)), gaps)

            with for_range(
                builder, builder.sdiv(unpack_tuple(builder, before.shape)[0], ir.Constant(WORD, LANES))
            ) as q:
                first = builder.mul(q.index, ir.Constant(WORD, LANES))
                builder.store(_ZERO, gaps)
                if dimension is None:
                    with for_range(builder, coordinates) as coordinate:
                        add_one(first, coordinate.index)
                else:
                    for at in range(dimension):
                        add_one(first, ir.Constant(WORD, at))
                gap = builder.load(gaps)
                product = builder.fmul(eight(builder, before.data, first), gap)
                builder.store(product, _place(builder, after.data, first, DOUBLES), align=8)
                for number in (gap, product):
                    far = builder.sub(builder.bitcast(number, _WORDS), ir.Constant(_WORDS, [_SMALLEST] * LANES))
                    builder.store(builder.or_(builder.load(wrong), far), wrong)
            outside = builder.icmp_signed(
                "!=",
                builder.lshr(builder.load(wrong), ir.Constant(_WORDS, [62] * LANES)),
                ir.Constant(_WORDS, [0] * LANES),
            )
            return bits(builder, outside)

        return types.uint64(old, new, lags, types.intp, types.intp), generate

    return products


_products_l2, _products_l1, _products_linf = (_products(add) for add in (_add_square, _add_size, _keep_largest))
_products_of_two, _products_of_three = _products(_add_square, 2), _products(_add_square, 3)


@intrinsic
def _within(typing: Any, gaps: Any, at: Any, limit: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, values[0]).data
        return bits(builder, builder.fcmp_ordered("<=", eight(builder, data, values[1]), spread(builder, values[2])))

    return types.uint64(gaps, types.intp, types.float64), generate


@intrinsic
def _apart(typing: Any, times: Any, row: Any, time: Any, least: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, values[0]).data
        start = builder.mul(values[1], ir.Constant(WORD, LANES))
        step = builder.sub(eight(builder, data, start, _WORDS), spread(builder, values[2], _WORDS))
        least = spread(builder, values[3], _WORDS)
        late = builder.icmp_signed(">=", step, least)
        return bits(builder, builder.or_(late, builder.icmp_signed("<=", step, builder.neg(least))))

    return types.uint64(times, types.intp, types.int64, types.int64), generate


@intrinsic
def _lowest(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@kernel(nogil=True, _nrt=False, forceinline=True)
def bucket_gaps(gaps: Any, at: Any, buckets: Any, bucket: Any, point: Any, metric: Any) -> Any:
    """Write the gaps between a point and the points of a bucket (coordinates, lanes) into gaps[at : at + 8].

    Squared distances for L2, sums for L1, else largest differences.
    """
    if metric == L2:
        _bucket_l2(gaps, at, buckets, bucket, point)
    elif metric == L1:
        _bucket_l1(gaps, at, buckets, bucket, point)
    else:
        _bucket_linf(gaps, at, buckets, bucket, point)


@kernel(nogil=True, _nrt=False, forceinline=True)
def box_gaps(gaps: Any, at: Any, boxes: Any, row: Any, point: Any, metric: Any) -> Any:
    """Write lower bounds of the gaps to the points of eight boxes, which hold also with rounding.

    `boxes` is (rows, coordinates, 2, lanes): their lower and upper sides.
    """
    if metric == L2:
        _boxes_l2(gaps, at, boxes, row, point)
    elif metric == L1:
        _boxes_l1(gaps, at, boxes, row, point)
    else:
        _boxes_linf(gaps, at, boxes, row, point)


@kernel(nogil=True, _nrt=False, forceinline=True)
def add_distances(total: Any, steps: Any, lags: Any, i: Any, j: Any, metric: Any, squared: Any) -> Any:
    """Add the distances of states i and j and their successors, or their squares, to total[:steps], a multiple of 4."""
    if metric == L2:
        if squared:
            _squares_l2(total, steps, lags, i, j)
        elif lags.shape[0] == 2:
            _roots_of_two(total, steps, lags, i, j)
        elif lags.shape[0] == 3:
            _roots_of_three(total, steps, lags, i, j)
        else:
            _roots_l2(total, steps, lags, i, j)
    elif metric == L1:
        if squared:
            _squares_l1(total, steps, lags, i, j)
        else:
            _sums_l1(total, steps, lags, i, j)
    elif squared:
        _squares_linf(total, steps, lags, i, j)
    else:
        _sums_linf(total, steps, lags, i, j)


@kernel(nogil=True, _nrt=False, forceinline=True)
def write_gaps(gaps: Any, lags: Any, i: Any, j: Any, metric: Any) -> Any:
    """Write the gaps of states i and j and their successors: squared distances for L2, sums for L1, else largest."""
    for k in range(gaps.shape[0]):
        gaps[k] = 0.0
    if metric == L2:
        _squares_l2(gaps, gaps.shape[0], lags, i, j)
    elif metric == L1:
        _sums_l1(gaps, gaps.shape[0], lags, i, j)
    else:
        _sums_linf(gaps, gaps.shape[0], lags, i, j)


@kernel(nogil=True, _nrt=False, forceinline=True)
def multiply_distances(old: Any, new: Any, lags: Any, i: Any, j: Any, metric: Any) -> Any:
    """Write `old`, a product for every step, times the gaps of states i and j and their successors into `new`.

    Returns 0, or some bits if a gap or a product is zero, NaN, below 2 ** -511 or above 2 ** 513: `new` is then void.
    """
    if metric == L2:
        if lags.shape[0] == 2:
            return _products_of_two(old, new, lags, i, j)
        if lags.shape[0] == 3:
            return _products_of_three(old, new, lags, i, j)
        return _products_l2(old, new, lags, i, j)
    if metric == L1:
        return _products_l1(old, new, lags, i, j)
    return _products_linf(old, new, lags, i, j)


@kernel(nogil=True, _nrt=False, forceinline=True)
def within(gaps: Any, at: Any, limit: Any) -> Any:
    """Bit q: whether gaps[at + q] is at most the limit, for eight of them."""
    return _within(gaps, at, limit)


@kernel(nogil=True, _nrt=False, forceinline=True)
def apart(times: Any, row: Any, time: Any, least: Any) -> Any:
    """Bit q: whether times[row, q] is at least `least` away from a time."""
    return _apart(times, row, time, least)


@kernel(nogil=True, _nrt=False, forceinline=True)
def lowest(word: Any) -> Any:
    """Index of the lowest set bit of a word; 64 if none is set."""
    return _lowest(word)
