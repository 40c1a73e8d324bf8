"""Exponent from Jacobians fitted to neighbourhoods of a fixed share of the record: does growth survive noise?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.neighbors.theiler import lagged_autocorrelation
from trajtools.reasons import Reason
from trajtools.statistics import DECISION
from trajtools.types import Bools, Floats, Ints
from trajtools.wording import one_unit

SHARES = (0.015, 0.03)  # of the states in one neighbourhood, small and large, up to `COMMON` states
COMMON = 5000  # states; of more, the neighbours increase as their square root
FEWEST = (10, 15)  # neighbours for each of the d + 1 coefficients of a map, at least
DECORRELATED = 0.5  # autocorrelation over the time span of one map
ROUGH = 1.2  # second over first differences above which a record is sampled like a map; 1.4 for a random walk
DISCARDED = 20  # maps in which the tangent vector turns into the growing direction
BLOCKS = 10  # of time, for the standard error
FEWEST_MAPS = 60  # after the discarded ones
NOISY = 0.7  # of what a neighbourhood twice as large leaves unexplained: curvature alone leaves at most 0.6
LEAST_NOISE = 0.002  # of the variance
MOST_UNEXPLAINED = 0.5  # largest share of the variance of images that maps may leave
REDRAWN = 3  # times that the errors of the maps are drawn again
DIMENSION = 6  # leading principal components that the maps act on, at most
MOST_STATES = 20_000  # among which neighbours are searched
MOST_MAPS = 4000
BATCH = 2_000_000  # neighbour coordinates held at a time


@dataclass(frozen=True, eq=False)
class LocalJacobian:
    """Exponents of products of fitted Jacobians, at two neighbourhood sizes.

    Attributes
    ----------
    values : tuple of (float, float)
        Exponent per sample at the small and at the large size, less `inflation` where that is positive.
    errors : tuple of (float, float)
        Their standard errors, from blocks of time.
    inflation : tuple of (float, float)
        Rise of each exponent when errors of the size of the fit's are added to the maps once more.
    unexplained : tuple of (float, float)
        Share of the variance of the images that the maps leave unexplained, median.
    neighbors : tuple of (int, int)
        Neighbours of each fit.
    span : int
        Samples from a state to the image that its map predicts.
    maps : int
        Maps in the product.
    components : int
        Coordinates that the maps act on.
    critical : float
        Student's quantile: an exponent is positive where it exceeds this many standard errors.
    """

    values: tuple[float, float]
    errors: tuple[float, float]
    inflation: tuple[float, float]
    unexplained: tuple[float, float]
    neighbors: tuple[int, int]
    span: int
    maps: int
    components: int
    critical: float

    @property
    def positive(self) -> bool:
        """Whether both exponents are above zero at the 1 % level, and above what noise alone adds to an image."""
        sizes = zip(self.values, self.errors, self.unexplained, strict=True)
        return all(
            value > self.critical * error and share < MOST_UNEXPLAINED and value * self.span > -0.5 * np.log1p(-share)
            for value, error, share in sizes
        )

    @property
    def noisy(self) -> bool:
        """Whether the states hold noise: what the smaller neighbourhood leaves unexplained is as much as the larger.

        Curvature leaves a share that grows with the neighbourhood, noise one that shrinks.
        """
        small, large = self.unexplained
        return small > LEAST_NOISE and small > NOISY * large

    @property
    def noise_reason(self) -> Reason:
        """Say that noise flattens the slopes."""
        text = (
            "the states hold noise: maps of {few} neighbours leave {small:.2g} of the variance unexplained, those of "
            "{many} {large:.2g}, and curvature alone would leave much less to the smaller; noise flattens the slopes, "
            "so the value is too low (a tenth at 1 % of the spread), which the interval does not cover"
        )
        (few, many), (small, large) = self.neighbors, self.unexplained
        return Reason.of("measurement-noise", text, few=few, many=many, small=small, large=large)

    def reason(self, dt: float, unit: str) -> Reason:
        """Put the numbers in one sentence, in the unit of the exponent; `dt` is the time between two samples."""
        text = (
            "{maps} Jacobians over {span} {samples}, each fitted to the {small} or {large} nearest states, stretch a "
            "tangent vector at {first:.3g} (standard error {first_error:.2g}) or {second:.3g} ({second_error:.2g}) per "
            "{unit}, and leave {share:.1%} of the variance unexplained: "
            + ("the growth is in the dynamics and not in noise" if self.positive else "growth is not shown")
            + " (only the sign of these rates is used)"
        )
        return Reason.of(
            "local-jacobian" if self.positive else "local-jacobian-not-positive",
            text,
            maps=self.maps,
            span=self.span,
            samples="sample" if self.span == 1 else "samples",
            small=self.neighbors[0],
            large=self.neighbors[1],
            first=self.values[0] / dt,
            first_error=self.errors[0] / dt,
            second=self.values[1] / dt,
            second_error=self.errors[1] / dt,
            unit=one_unit(unit),
            share=max(self.unexplained),
        )

    def to_settings(self) -> dict[str, Any]:
        """Entries for the settings of an exponent."""
        return {
            "local_jacobian": {
                "values": self.values,
                "errors": self.errors,
                "inflation": self.inflation,
                "unexplained": self.unexplained,
                "neighbors": self.neighbors,
                "span": self.span,
                "maps": self.maps,
                "components": self.components,
                "critical": self.critical,
                "positive": self.positive,
            }
        }


def local_jacobian(states: Floats, *, rng: np.random.Generator) -> LocalJacobian | None:
    r"""Exponents of products of Jacobians fitted to large neighbourhoods; None if the record is too short.

    Notes
    -----
    Noise parts neighbours whatever the dynamics do, and the closer the neighbours the more of their separation is
    noise. A regression averages it out: at every `span`-th state an affine map is fitted by least squares to a share of
    all states, and its slopes are multiplied along the record. The errors of the slopes still inflate the product.
    Errors with the covariance of the regression, drawn again and added, show by how much.

    Noise that the maps leave unexplained, a share u of the variance, enlarges an image by :math:`-\ln(1 - u) / 2`. A
    stretching per map that is not larger, or u above a half, is no evidence.

    Only the sign has a meaning. Large neighbourhoods are curved, which biases the value, and an embedding in too many
    dimensions adds spurious exponents.
    """
    points = _standardised(states)
    fine = np.asarray(np.isfinite(points).all(axis=1))
    points = _leading(points, fine)
    span = _span(points, fine)
    d = points.shape[1]
    chain = _longest_chain(fine, span)
    stride = max(1, min(span // 2, len(points) // MOST_STATES))
    candidates = np.arange(0, len(points) - span, stride)
    candidates = candidates[fine[candidates] & fine[candidates + span]]
    candidates = candidates[:MOST_STATES]
    size = min(len(candidates), np.sqrt(COMMON * len(candidates)))
    counts = [max(int(share * size), few * (d + 1)) for share, few in zip(SHARES, FEWEST, strict=True)]
    if len(chain) < DISCARDED + FEWEST_MAPS or counts[1] > len(candidates) // 4:
        return None
    values, errors, inflation, unexplained = [], [], [], []
    from scipy.special import stdtrit

    nearest = _nearest(points, chain, candidates, counts[1], theiler=2 * span)
    for count in counts:
        maps, covariance, left = _fit(points, chain, nearest[:, :count], span)
        logs = _stretching(maps)
        blocks = np.array([part.mean() for part in np.array_split(logs[DISCARDED:], BLOCKS)]) / span
        redrawn = [_stretching(maps + _errors(covariance, rng))[DISCARDED:].mean() / span for _ in range(REDRAWN)]
        rise = float(np.mean(redrawn) - blocks.mean())
        values.append(float(blocks.mean()) - max(rise, 0.0))
        errors.append(float(blocks.std(ddof=1) / np.sqrt(BLOCKS)))
        inflation.append(rise)
        unexplained.append(float(np.median(left)))
    return LocalJacobian(
        values=(values[0], values[1]),
        errors=(errors[0], errors[1]),
        inflation=(inflation[0], inflation[1]),
        unexplained=(unexplained[0], unexplained[1]),
        neighbors=(counts[0], counts[1]),
        span=span,
        maps=len(chain),
        components=d,
        critical=float(stdtrit(BLOCKS - 1, 1 - DECISION)),
    )


def _standardised(states: Floats) -> Floats:
    fine = np.isfinite(states).all(axis=1)
    spread = states[fine].std(axis=0)
    moving = spread > 1e-12 * spread.max()
    return (states[:, moving] - states[fine][:, moving].mean(axis=0)) / spread[moving]


def _leading(points: Floats, fine: Bools) -> Floats:
    """Leading principal components of states of many dimensions."""
    if points.shape[1] <= DIMENSION:
        return points
    _, axes = np.linalg.eigh(np.cov(points[fine].T))
    return np.asarray(points @ axes[:, -DIMENSION:])


def _span(points: Floats, fine: Bools) -> int:
    """1 for maps; else the first lag at which the mean autocorrelation of the coordinates is below `DECORRELATED`."""
    if roughness(points) > ROUGH:
        return 1
    whole = np.where(fine[:, None], points, np.nan)
    longest = max(2, len(points) // 10)
    correlation = np.mean([lagged_autocorrelation(column, longest) for column in whole.T], axis=0)
    below = np.flatnonzero(correlation < DECORRELATED)
    return int(below[0]) if len(below) else longest


def roughness(states: Floats) -> float:
    """Median size of the second differences over that of the first; NaN without three states that move."""
    if len(states) < 3:
        return float("nan")
    first, second = np.diff(states, axis=0), np.diff(states, n=2, axis=0)
    size = float(np.nanmedian(np.linalg.norm(first, axis=1)))
    return float(np.nanmedian(np.linalg.norm(second, axis=1))) / size if size > 0 else float("nan")


def _longest_chain(fine: Bools, span: int) -> Ints:
    """States `span` apart in the longest finite stretch, with an image each."""
    broken = np.flatnonzero(~fine)
    edges = np.concatenate([[-1], broken, [len(fine)]])
    at = int(np.argmax(np.diff(edges)))
    chain = np.arange(edges[at] + 1, edges[at + 1] - span, span)
    return np.asarray(chain[:MOST_MAPS])


def _nearest(points: Floats, chain: Ints, candidates: Ints, count: int, *, theiler: int) -> Ints:
    """The `count` nearest candidates of each state of the chain at least `theiler` samples away, nearest first."""
    from scipy.spatial import cKDTree  # takes a quarter of a second to import

    tree = cKDTree(points[candidates])
    inside = int(np.count_nonzero(np.abs(candidates - chain[len(chain) // 2]) < theiler))
    asked = min(count + inside + 2, len(candidates))
    _, index = tree.query(points[chain], asked)
    near = candidates[index]
    order = np.argsort(np.abs(near - chain[:, None]) < theiler, axis=1, kind="stable")
    return np.take_along_axis(near, order[:, :count], axis=1)


def _fit(points: Floats, chain: Ints, near: Ints, span: int) -> tuple[Floats, tuple[Floats, Floats], Floats]:
    """Slopes (n, d, d) of affine maps, factors of the covariance of their errors, and unexplained shares (n,).

    The factors are of the covariances of the images and of the states.
    """
    n, count, d = len(chain), near.shape[1], points.shape[1]
    left = np.empty(n)
    maps, images, spreads = np.empty((n, d, d)), np.empty((n, d, d)), np.empty((n, d, d))
    batch = max(1, BATCH // (count * d))
    for start in range(0, n, batch):
        part = slice(start, min(start + batch, n))
        before, after = points[near[part]], points[near[part] + span]
        before = before - before.mean(axis=1, keepdims=True)
        after = after - after.mean(axis=1, keepdims=True)
        size, axes = np.linalg.eigh(np.swapaxes(before, 1, 2) @ before)
        resolved = size > 1e-12 * size[:, -1:]
        inverse = np.where(resolved, 1.0 / np.where(resolved, size, 1.0), 0.0)
        slopes = (axes * inverse[:, None]) @ np.swapaxes(axes, 1, 2) @ (np.swapaxes(before, 1, 2) @ after)
        rest = after - before @ slopes
        left[part] = np.sum(rest**2, axis=(1, 2)) / np.maximum(np.sum(after**2, axis=(1, 2)), 1e-300)
        noise = np.swapaxes(rest, 1, 2) @ rest / (count - 1 - d)
        power, directions = np.linalg.eigh(noise)
        maps[part] = np.swapaxes(slopes, 1, 2)
        images[part] = directions * np.sqrt(np.maximum(power, 0.0))[:, None]
        spreads[part] = axes * np.sqrt(inverse)[:, None]
    return maps, (images, spreads), left


def _errors(covariance: tuple[Floats, Floats], rng: np.random.Generator) -> Floats:
    images, spreads = covariance
    return np.asarray(images @ rng.standard_normal(images.shape) @ np.swapaxes(spreads, 1, 2))


def _stretching(maps: Floats) -> Floats:
    """Logarithms of the stretching of one tangent vector along the product."""
    from trajtools._kernels.tangents import tangent_logs

    logs, _ = tangent_logs(np.ascontiguousarray(maps), np.ones(len(maps), dtype=np.bool_), None, 1)
    return np.asarray(np.maximum(logs[:, 0], -700.0))
