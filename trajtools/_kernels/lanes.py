"""Eight numbers at once: distances of a point to the points of a bucket or to boxes, and comparisons as bits.

numba has no vector types, so these functions are written for LLVM. Each is wrapped into a section, so that the loops
that call them also run interpreted.
"""

# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import alloca_once, for_range, get_or_insert_function, unpack_tuple
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from trajtools._kernels._jit import section
from trajtools.types import L1, L2, L2_SCALED

LANES = 8
FOUR = 4
DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
WORD = ir.IntType(64)
_QUAD = ir.VectorType(ir.DoubleType(), FOUR)
WORDS = ir.VectorType(WORD, LANES)
_SMALLEST = 1 << 61  # the bits of 2 ** -511; numbers up to 2 ** 513 differ from them in the lowest 62 bits only
_ZERO = ir.Constant(DOUBLES, [0.0] * LANES)
_NEVER = ir.Constant(DOUBLES, [float("inf")] * LANES)


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


def add_square(builder: Any, total: Any, step: Any) -> Any:
    """Eight totals and the squares of eight steps."""
    return builder.fadd(total, builder.fmul(step, step))


def add_size(builder: Any, total: Any, step: Any) -> Any:
    """Eight totals and the magnitudes of eight steps."""
    return builder.fadd(total, magnitude(builder, step))


def keep_largest(builder: Any, total: Any, step: Any) -> Any:
    """The larger of eight totals and the magnitudes of eight steps."""
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


_bucket_l2, _bucket_l1, _bucket_linf = (_sums(_from_bucket, add) for add in (add_square, add_size, keep_largest))
_boxes_l2, _boxes_l1, _boxes_linf = (_sums(_from_box, add) for add in (add_square, add_size, keep_largest))


def _paths(add: Callable[..., Any], close: Callable[..., Any], dimension: int | None = None, both: bool = False) -> Any:
    """Add functions of the gaps of two states and their successors to running sums, four steps at a time.

    A known dimension saves a loop for each four steps. For `both`, each is added at two places of the sums.
    """

    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        *places, steps, rows, i, j = values[1:]
        out = make_array(signature.args[0])(context, builder, values[0])
        states = make_array(signature.args[-3])(context, builder, rows)
        coordinates, length = unpack_tuple(builder, states.shape)
        gaps = alloca_once(builder, _QUAD)

        def add_one(here: Any, there: Any, coordinate: Any) -> None:
            shift = builder.mul(coordinate, length)
            a, b = (eight(builder, states.data, builder.add(at, shift), _QUAD) for at in (here, there))
            builder.store(add(builder, builder.load(gaps), builder.fsub(a, b)), gaps)

        with for_range(builder, builder.sdiv(steps, ir.Constant(WORD, FOUR))) as group:
            first = builder.mul(group.index, ir.Constant(WORD, FOUR))
            here, there = builder.add(i, first), builder.add(j, first)
            builder.store(ir.Constant(_QUAD, [0.0] * FOUR), gaps)
            if dimension is None:
                with for_range(builder, coordinates) as coordinate:
                    add_one(here, there, coordinate.index)
            else:
                for at in range(dimension):
                    add_one(here, there, ir.Constant(WORD, at))
            closed = close(builder, builder.load(gaps))
            for start in places or [ir.Constant(WORD, 0)]:
                place = _place(builder, out.data, builder.add(start, first), _QUAD)
                builder.store(builder.fadd(builder.load(place, align=8), closed), place, align=8)
        return context.get_dummy_value()

    def one_place(typing: Any, total: Any, steps: Any, lags: Any, i: Any, j: Any) -> Any:
        return types.void(total, types.intp, lags, types.intp, types.intp), generate

    def two_places(typing: Any, total: Any, one: Any, other: Any, steps: Any, lags: Any, i: Any, j: Any) -> Any:
        return types.void(total, *3 * (types.intp,), lags, types.intp, types.intp), generate

    return intrinsic(two_places if both else one_place)


def _root(builder: Any, gaps: Any) -> Any:
    kind = ir.FunctionType(gaps.type, [gaps.type])
    return builder.call(get_or_insert_function(builder.module, kind, "llvm.sqrt.v4f64"), [gaps])


def _square(builder: Any, gaps: Any) -> Any:
    return builder.fmul(gaps, gaps)


def _same(builder: Any, gaps: Any) -> Any:
    return gaps


_roots_of_two, _roots_of_three = _paths(add_square, _root, 2), _paths(add_square, _root, 3)
_roots_l2, _squares_l2 = _paths(add_square, _root), _paths(add_square, _same)
_sums_l1, _squares_l1 = _paths(add_size, _same), _paths(add_size, _square)
_sums_linf, _squares_linf = _paths(keep_largest, _same), _paths(keep_largest, _square)
_both_roots_of_two, _both_roots_of_three = (_paths(add_square, _root, d, both=True) for d in (2, 3))
_both_roots_l2, _both_squares_l2 = (_paths(add_square, close, both=True) for close in (_root, _same))
_both_sums_l1, _both_squares_l1 = (_paths(add_size, close, both=True) for close in (_same, _square))
_both_sums_linf, _both_squares_linf = (_paths(keep_largest, close, both=True) for close in (_same, _square))


def _products(add: Callable[..., Any], dimension: int | None = None) -> Any:
    """Multiply products by the gaps of two states and their successors; eight steps stay in registers."""

    @intrinsic
    def products(typing: Any, old: Any, new: Any, lags: Any, i: Any, j: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
            before, after, states = (make_array(signature.args[k])(context, builder, values[k]) for k in range(3))
            coordinates, length = unpack_tuple(builder, states.shape)
            gaps, wrong = alloca_once(builder, DOUBLES), alloca_once(builder, WORDS)
            builder.store(ir.Constant(WORDS, [0] * LANES), wrong)

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
                    far = builder.sub(builder.bitcast(number, WORDS), ir.Constant(WORDS, [_SMALLEST] * LANES))
                    builder.store(builder.or_(builder.load(wrong), far), wrong)
            outside = builder.icmp_signed(
                "!=",
                builder.lshr(builder.load(wrong), ir.Constant(WORDS, [62] * LANES)),
                ir.Constant(WORDS, [0] * LANES),
            )
            return bits(builder, outside)

        return types.uint64(old, new, lags, types.intp, types.intp), generate

    return products


_products_l2, _products_l1, _products_linf = (_products(add) for add in (add_square, add_size, keep_largest))
_products_of_two, _products_of_three = _products(add_square, 2), _products(add_square, 3)


def _meetings(add: Callable[..., Any], dimension: int | None = None, scaled: bool = False) -> Any:
    """Gaps of the eight points of a bucket to each point of another one, in eight registers."""

    @intrinsic
    def meetings(typing: Any, out: Any, buckets: Any, home: Any, other: Any, best: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
            gaps, rows, nearest = (make_array(signature.args[k])(context, builder, values[k]) for k in (0, 1, 4))
            numbers = _gaps_of_buckets(builder, rows, values[2], values[3], add, dimension, scaled)
            least = numbers
            while len(least) > 1:
                least = [_smaller(builder, a, b) for a, b in zip(least[::2], least[1::2], strict=True)]
            near = bits(builder, builder.fcmp_ordered("<=", least[0], _last_row(builder, nearest)))
            with builder.if_then(builder.icmp_unsigned("!=", near, number_of(0))):
                for k, gap in enumerate(numbers):
                    builder.store(gap, _place(builder, gaps.data, number_of(k * LANES), DOUBLES), align=8)
            return near

        return types.uint64(out, buckets, types.intp, types.intp, best), generate

    return meetings


def _gaps_of_buckets(
    builder: Any, rows: Any, home: Any, other: Any, add: Callable[..., Any], dimension: int | None, scaled: bool
) -> list[Any]:
    """Vectors of the gaps of the points of the bucket `home` to each point of another one."""
    coordinates = unpack_tuple(builder, rows.shape)[1]
    size = builder.mul(coordinates, number_of(LANES))
    here, there = (builder.mul(bucket, size) for bucket in (home, other))
    totals = [alloca_once(builder, DOUBLES) for _ in range(LANES)]

    def over_coordinates(work: Callable[[Any], None]) -> None:
        if dimension is None:
            with for_range(builder, coordinates) as coordinate:
                work(coordinate.index)
        else:
            for at in range(dimension):
                work(number_of(at))

    def steps(coordinate: Any) -> list[Any]:
        shift = builder.mul(coordinate, number_of(LANES))
        own, start = eight(builder, rows.data, builder.add(here, shift)), builder.add(there, shift)
        others = (builder.load(builder.gep(rows.data, [builder.add(start, number_of(k))])) for k in range(LANES))
        return [builder.fsub(spread(builder, other), own) for other in others]

    def add_one(coordinate: Any) -> None:
        for total, step in zip(totals, steps(coordinate), strict=True):
            builder.store(add(builder, builder.load(total), step), total)

    def add_scaled(coordinate: Any) -> None:
        """Add squares of differences over the largest one; lanes without a difference are put right below."""
        for total, size, step in zip(totals, largest, steps(coordinate), strict=True):
            builder.store(add_square(builder, builder.load(total), builder.fdiv(step, size)), total)

    for total in totals:
        builder.store(_ZERO, total)
    over_coordinates(add_one)
    largest = [builder.load(total) for total in totals]
    if not scaled:
        return largest
    for total in totals:
        builder.store(_ZERO, total)
    over_coordinates(add_scaled)
    return [_stretched(builder, size, builder.load(total)) for size, total in zip(largest, totals, strict=True)]


def _encounters(add: Callable[..., Any], dimension: int | None = None) -> Any:
    """Pairs of two buckets that are near in space and not in time, as bits; their gaps are written."""

    @intrinsic
    def encounters(
        typing: Any, out: Any, at: Any, buckets: Any, times: Any, home: Any, other: Any, theiler: Any, limit: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
            gaps, rows, when = (make_array(signature.args[k])(context, builder, values[k]) for k in (0, 2, 3))
            home, other = values[4:6]
            numbers = _gaps_of_buckets(builder, rows, home, other, add, dimension, False)
            most, window = spread(builder, values[7]), spread(builder, values[6], WORDS)
            own = eight(builder, when.data, builder.mul(home, number_of(LANES)), WORDS)
            before, after = builder.sub(own, window), builder.add(own, window)
            first, word = builder.mul(other, number_of(LANES)), number_of(0)
            for k, gap in enumerate(numbers):
                shift = number_of(k * LANES)
                moment = spread(
                    builder, builder.load(builder.gep(when.data, [builder.add(first, number_of(k))])), WORDS
                )
                late = builder.or_(builder.icmp_signed("<=", moment, before), builder.icmp_signed(">=", moment, after))
                near = builder.and_(late, builder.fcmp_ordered("<=", gap, most))
                word = builder.or_(word, builder.shl(bits(builder, near), shift))
                builder.store(gap, _place(builder, gaps.data, builder.add(values[1], shift), DOUBLES), align=8)
            return word

        kinds = types.intp, types.intp, types.int64, types.float64
        return types.uint64(out, types.intp, buckets, times, *kinds), generate

    return encounters


_encounters_of_two, _encounters_of_three = _encounters(add_square, 2), _encounters(add_square, 3)
_encounters_l2, _encounters_l1, _encounters_linf = (_encounters(add) for add in (add_square, add_size, keep_largest))


def _stretched(builder: Any, largest: Any, total: Any) -> Any:
    """Euclidean distances from the largest differences; zero and infinite ones, whose ratios are NaN, stay."""
    kind = ir.FunctionType(total.type, [total.type])
    root = builder.call(get_or_insert_function(builder.module, kind, "llvm.sqrt.v8f64"), [total])
    plain = builder.and_(builder.fcmp_ordered(">", largest, _ZERO), builder.fcmp_ordered("<", largest, _NEVER))
    return builder.select(plain, builder.fmul(largest, root), largest)


def number_of(value: int) -> Any:
    """A constant of the width of an index."""
    return ir.Constant(WORD, value)


def _smaller(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _last_row(builder: Any, rows: Any) -> Any:
    """Last of some rows of eight numbers."""
    last = builder.sub(unpack_tuple(builder, rows.shape)[0], number_of(1))
    return eight(builder, rows.data, builder.mul(last, number_of(LANES)))


_meet_l2, _meet_l1, _meet_linf = (_meetings(add) for add in (add_square, add_size, keep_largest))
_meet_two, _meet_three = _meetings(add_square, 2), _meetings(add_square, 3)
_meet_scaled = _meetings(keep_largest, scaled=True)


def _keeping(single: bool) -> Any:
    """Insert candidates into lists of nearest ones, one list in each lane."""

    @intrinsic
    def keep(typing: Any, gaps: Any, times: Any, row: Any, own: Any, theiler: Any, best: Any, near: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
            gap, time, mine, nearest, when = (
                make_array(signature.args[k])(context, builder, values[k]) for k in (0, 1, 3, 5, 6)
            )
            size = number_of(1) if single else unpack_tuple(builder, nearest.shape)[0]
            query, window = eight(builder, mine.data, number_of(0), WORDS), spread(builder, values[4], WORDS)
            before, after = builder.sub(query, window), builder.add(query, window)
            found = alloca_once(builder, DOUBLES), alloca_once(builder, WORDS)
            kept = alloca_once(builder, DOUBLES), alloca_once(builder, WORDS)
            zeros: Any = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [0] * LANES)

            def insert(lists: tuple[Any, Any]) -> None:
                """Exchange what was found with what is in the lists where it is nearer, or as near and earlier."""
                (distance, moment), (old, past) = (
                    [builder.load(each, align=8) for each in both] for both in (found, lists)
                )
                same = builder.and_(builder.fcmp_ordered("==", distance, old), builder.icmp_signed("<", moment, past))
                nearer = builder.or_(builder.fcmp_ordered("<", distance, old), same)
                builder.store(builder.select(nearer, distance, old), lists[0], align=8)
                builder.store(builder.select(nearer, moment, past), lists[1], align=8)
                if not single:
                    builder.store(builder.select(nearer, old, distance), found[0])
                    builder.store(builder.select(nearer, past, moment), found[1])

            def place(row: Any) -> tuple[Any, Any]:
                at = builder.mul(row, number_of(LANES))
                return _place(builder, nearest.data, at, DOUBLES), _place(builder, when.data, at, WORDS)

            if single:
                for slot, memory in zip(kept, place(number_of(0)), strict=True):
                    builder.store(builder.load(memory, align=8), slot)
            start = builder.mul(values[2], number_of(LANES))
            for k in range(LANES):
                number = eight(builder, gap.data, number_of(k * LANES))
                other = spread(builder, builder.load(builder.gep(time.data, [builder.add(start, number_of(k))])), WORDS)
                apart = builder.or_(builder.icmp_signed("<=", other, before), builder.icmp_signed(">=", other, after))
                zeros = builder.or_(zeros, builder.and_(apart, builder.fcmp_ordered("==", number, _ZERO)))
                fits = builder.and_(apart, builder.fcmp_ordered(">", number, _ZERO))
                builder.store(builder.select(fits, number, _NEVER), found[0])
                builder.store(other, found[1])
                if single:
                    insert(kept)
                else:
                    close = builder.fcmp_ordered("<=", builder.load(found[0]), _last_row(builder, nearest))
                    with (
                        builder.if_then(builder.icmp_unsigned("!=", bits(builder, close), number_of(0))),
                        for_range(builder, size) as level,
                    ):
                        insert(place(level.index))
            if single:
                for slot, memory in zip(kept, place(number_of(0)), strict=True):
                    builder.store(builder.load(slot), memory, align=8)
            return bits(builder, zeros)

        return types.uint64(gaps, times, types.intp, own, types.int64, best, near), generate

    return keep


_keep_one, _keep_several = _keeping(True), _keeping(False)


@intrinsic
def _reached(typing: Any, buckets: Any, home: Any, axis: Any, edge: Any, sign: Any, squared: Any, best: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        rows, nearest = (make_array(signature.args[k])(context, builder, values[k]) for k in (0, 6))
        first = builder.mul(values[1], unpack_tuple(builder, rows.shape)[1])
        own = eight(builder, rows.data, builder.mul(builder.add(first, values[2]), number_of(LANES)))
        step = builder.fmul(builder.fsub(spread(builder, values[3]), own), spread(builder, values[4]))
        step = _larger(builder, step, _ZERO)
        one = builder.trunc(values[5], ir.IntType(1))
        gap = builder.select(one, builder.fmul(step, step), step)
        return bits(builder, builder.fcmp_ordered("<=", gap, _last_row(builder, nearest)))

    kinds = types.uint64, buckets, types.intp, types.intp, types.float64, types.float64, types.int64, best
    return kinds[0](*kinds[1:]), generate


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
        step = builder.sub(eight(builder, data, start, WORDS), spread(builder, values[2], WORDS))
        least = spread(builder, values[3], WORDS)
        late = builder.icmp_signed(">=", step, least)
        return bits(builder, builder.or_(late, builder.icmp_signed("<=", step, builder.neg(least))))

    return types.uint64(times, types.intp, types.int64, types.int64), generate


@intrinsic
def _lowest(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@section()
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


@section()
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


@section()
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


@section()
def add_to_both(
    totals: Any, one: Any, other: Any, steps: Any, lags: Any, i: Any, j: Any, metric: Any, squared: Any
) -> Any:
    """`add_distances` to both totals[one : one + steps] and totals[other : other + steps]."""
    if metric == L2:
        if squared:
            _both_squares_l2(totals, one, other, steps, lags, i, j)
        elif lags.shape[0] == 2:
            _both_roots_of_two(totals, one, other, steps, lags, i, j)
        elif lags.shape[0] == 3:
            _both_roots_of_three(totals, one, other, steps, lags, i, j)
        else:
            _both_roots_l2(totals, one, other, steps, lags, i, j)
    elif metric == L1:
        if squared:
            _both_squares_l1(totals, one, other, steps, lags, i, j)
        else:
            _both_sums_l1(totals, one, other, steps, lags, i, j)
    elif squared:
        _both_squares_linf(totals, one, other, steps, lags, i, j)
    else:
        _both_sums_linf(totals, one, other, steps, lags, i, j)


@section()
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


@section()
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


@section()
def within(gaps: Any, at: Any, limit: Any) -> Any:
    """Bit q: whether gaps[at + q] is at most the limit, for eight of them."""
    return _within(gaps, at, limit)


@section()
def apart(times: Any, row: Any, time: Any, least: Any) -> Any:
    """Bit q: whether times[row, q] is at least `least` away from a time."""
    return _apart(times, row, time, least)


@section()
def lowest(word: Any) -> Any:
    """Index of the lowest set bit of a word; 64 if none is set."""
    return _lowest(word)


@section()
def meet(gaps: Any, buckets: Any, home: Any, other: Any, best: Any, metric: Any) -> Any:
    """Bit q: whether point q of the bucket `home` has a gap to a point of another one of at most that in best[-1, q].

    If one has, the gap of point q to point k of the other bucket is written into gaps[8 * k + q].
    """
    if metric == L2:
        if buckets.shape[1] == 2:
            return _meet_two(gaps, buckets, home, other, best)
        if buckets.shape[1] == 3:
            return _meet_three(gaps, buckets, home, other, best)
        return _meet_l2(gaps, buckets, home, other, best)
    if metric == L1:
        return _meet_l1(gaps, buckets, home, other, best)
    if metric == L2_SCALED:
        return _meet_scaled(gaps, buckets, home, other, best)
    return _meet_linf(gaps, buckets, home, other, best)


@section()
def encounters(
    gaps: Any, at: Any, buckets: Any, times: Any, home: Any, other: Any, theiler: Any, limit: Any, metric: Any
) -> Any:
    """Bit 8 * k + q: whether the gap of point q of a bucket to point k of another one is at most the limit.

    And their times are at least `theiler` apart. The gaps are written into gaps[at : at + 64], in this order.
    """
    if metric == L2:
        if buckets.shape[1] == 2:
            return _encounters_of_two(gaps, at, buckets, times, home, other, theiler, limit)
        if buckets.shape[1] == 3:
            return _encounters_of_three(gaps, at, buckets, times, home, other, theiler, limit)
        return _encounters_l2(gaps, at, buckets, times, home, other, theiler, limit)
    if metric == L1:
        return _encounters_l1(gaps, at, buckets, times, home, other, theiler, limit)
    return _encounters_linf(gaps, at, buckets, times, home, other, theiler, limit)


@section()
def keep_nearest(gaps: Any, times: Any, row: Any, own: Any, theiler: Any, best: Any, near: Any) -> Any:
    """Insert the points of times[row], whose gaps `meet` has written, into the lists of nearest ones of eight points.

    `best` and `near` (k, 8) are the gaps and times of these lists, sorted; of equal gaps, the earlier time comes first.
    `own` are the times of the eight points. Bit q: whether a point outside the Theiler window is at distance zero.
    """
    if best.shape[0] == 1:
        return _keep_one(gaps, times, row, own, theiler, best, near)
    return _keep_several(gaps, times, row, own, theiler, best, near)


@section()
def reached(buckets: Any, home: Any, axis: Any, edge: Any, sign: Any, metric: Any, best: Any) -> Any:
    """Bit q: whether what lies beyond an edge along an axis (above it, or for the sign -1.0 below it) can be as near.

    That is, whether its gap to point q of a bucket may be that in best[-1, q], or less.
    """
    return _reached(buckets, home, axis, edge, sign, np.int64(metric == L2), best)
