"""What the Hessian of a loss tells, from its products with vectors: ends of the spectrum, trace, density.

Framework-free: `recorders.torch` and `recorders.jax` bring the products. Every result says whose Hessian it is, in
`of`: "full" (the whole training set), "subset" (a fixed part of it) or "batch" (what one step sees), and carries its
numbers as `metrics`, named ``<what>_<of>``, ready for ``rec.record(**found.metrics)``:

========================== ======================================================================
``h_max_full``             largest eigenvalue ("sharpness")
``h_min_full``             smallest eigenvalue
``h_largest_full``         the k largest, where more than one was asked for (``h_smallest_full`` likewise)
``trace_full``             Hutchinson's estimate; ``trace_error_full`` its standard error
``batch_sharpness``        mean of g H g / g g over batches; ``batch_sharpness_error`` its standard error
========================== ======================================================================

An eigenvalue has the unit of the loss over that of a weight squared. What weight decay inside an optimiser adds to the
Hessian (its coefficient times the identity, for SGD) is not in the loss and not in these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recorders.lanczos import Floats, Product, ends, quadrature
from trajtools.store import DataError, UnknownNameError

EXTENTS = ("full", "subset", "batch")
WHICH = ("both", "largest", "smallest")


@dataclass(frozen=True, eq=False)
class Sharpness:
    """Eigenvalues at the ends of a Hessian's spectrum.

    Attributes
    ----------
    largest : ndarray of float64, shape (k,)
        Largest eigenvalues, largest first; empty if they were not asked for.
    smallest : ndarray of float64, shape (k,)
        Smallest eigenvalues, smallest (most negative) first.
    largest_residuals, smallest_residuals : ndarray of float64, shape (k,)
        |H v - h v| of each: a true eigenvalue lies that near.
    largest_vectors, smallest_vectors : ndarray of float64, shape (k, P)
        Unit eigenvectors, in the order of the recorded state.
    converged : bool
        Whether every residual is below ``tolerance`` times the largest |eigenvalue|.
    of : str
        Whose Hessian: ``"full"``, ``"subset"`` or ``"batch"``.
    n_products : int
        Hessian-vector products that it took; each costs two to three gradients of the same data.
    settings : dict
        Every parameter as used.
    warnings : tuple of str
        What the reader should know before believing the numbers.
    """

    largest: Floats
    smallest: Floats
    largest_residuals: Floats
    smallest_residuals: Floats
    largest_vectors: Floats = field(repr=False)
    smallest_vectors: Floats = field(repr=False)
    converged: bool
    of: str
    n_products: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def h_max(self) -> float:
        """The largest eigenvalue; NaN if it was not asked for."""
        return float(self.largest[0]) if len(self.largest) else float("nan")

    @property
    def h_min(self) -> float:
        """The smallest eigenvalue; NaN if it was not asked for."""
        return float(self.smallest[0]) if len(self.smallest) else float("nan")

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers under the names by which they are recorded."""
        found: dict[str, Any] = {}
        for end, short, values in (("largest", "h_max", self.largest), ("smallest", "h_min", self.smallest)):
            if len(values):
                found[f"{short}_{self.of}"] = float(values[0])
            if len(values) > 1:
                found[f"h_{end}_{self.of}"] = values
        return found


@dataclass(frozen=True, eq=False)
class Trace:
    """The trace of a Hessian, from random vectors.

    Attributes
    ----------
    value : float
        Mean of z H z over the vectors.
    standard_error : float
        Of the mean; NaN for a single vector.
    samples : ndarray of float64, shape (n_samples,)
        z H z of each vector.
    of : str
        Whose Hessian.
    settings : dict
        Every parameter as used.
    """

    value: float
    standard_error: float
    samples: Floats = field(repr=False)
    of: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers under the names by which they are recorded."""
        return {f"trace_{self.of}": self.value, f"trace_error_{self.of}": self.standard_error}


@dataclass(frozen=True, eq=False)
class BatchSharpness:
    """Curvature along the gradient, g H g / g g, every batch with its own gradient and its own Hessian.

    Attributes
    ----------
    value : float
        Mean over the batches; those without a gradient (g = 0) do not count.
    standard_error : float
        Of the mean; NaN for a single batch.
    samples : ndarray of float64, shape (n_batches,)
        Of each batch; NaN where g = 0.
    settings : dict
        Every parameter as used.
    """

    value: float
    standard_error: float
    samples: Floats = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers under the names by which they are recorded."""
        return {"batch_sharpness": self.value, "batch_sharpness_error": self.standard_error}


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """How the eigenvalues of a Hessian are spread, by stochastic Lanczos quadrature.

    Attributes
    ----------
    nodes, weights : ndarray of float64, shape (n_samples, steps)
        Gauss quadratures of the random vectors: where, and which share of all eigenvalues (a row sums to 1). Rows
        that ended early are filled up with nodes of weight 0.
    n : int
        Number of eigenvalues, P.
    of : str
        Whose Hessian.
    settings : dict
        Every parameter as used.
    """

    nodes: Floats = field(repr=False)
    weights: Floats = field(repr=False)
    n: int
    of: str
    settings: dict[str, Any] = field(default_factory=dict)

    def moment(self, power: int) -> tuple[float, float]:
        """Mean of the eigenvalues to a power, with its standard error.

        Parameters
        ----------
        power : int
            From 0 to 2 steps - 1: there the quadrature is exact but for the choice of vectors.

        Returns
        -------
        tuple of (float, float)
            Mean over the P eigenvalues; standard error over the vectors, NaN for a single one.
        """
        return _mean_and_error((self.weights * self.nodes**power).sum(1))

    def density(self, at: Any, width: float) -> Floats:
        """Density of the eigenvalues, every node smoothed by a Gaussian.

        Parameters
        ----------
        at : array_like of float, shape (g,)
            Where.
        width : float
            Standard deviation of the Gaussian, in the unit of an eigenvalue.

        Returns
        -------
        ndarray of float64, shape (g,)
            Share of the eigenvalues per unit; it integrates to 1.

        Raises
        ------
        DataError
            If the width is not positive.
        """
        if not width > 0:
            raise DataError(f"width={width}: it must be positive, e.g. a hundredth of the range of the eigenvalues")
        apart = (np.asarray(at, np.float64)[:, None, None] - self.nodes) / width
        kernel = np.exp(-0.5 * apart**2) / (width * np.sqrt(2 * np.pi))
        return (kernel * self.weights).sum((1, 2)) / len(self.nodes)


def label(of: str) -> str:
    """Check the label that says whose Hessian is measured.

    Parameters
    ----------
    of : str
        As given.

    Returns
    -------
    str
        The same.

    Raises
    ------
    UnknownNameError
        If it is none of "full", "subset", "batch".
    """
    if of not in EXTENTS:
        raise UnknownNameError(f'of={of!r}: say whose Hessian it is, "full", "subset" or "batch"')
    return of


def extremes(
    product: Product, n: int, *, k: int, which: str, of: str, tolerance: float, max_products: int, seed: int
) -> Sharpness:
    """Find the ends of a spectrum, see `recorders.torch.sharpness`.

    Parameters
    ----------
    product : callable
        ``product(v)`` -> H v, float64 of shape (n,).
    n : int
        Size of H.
    k, which, of, tolerance, max_products, seed
        As for `recorders.torch.sharpness`.

    Returns
    -------
    Sharpness
        With residuals.

    Raises
    ------
    DataError, UnknownNameError
        If an argument makes no sense, or a product is not finite.
    """
    label(of)
    if which not in WHICH:
        raise UnknownNameError(f'which={which!r}: it must be "both", "largest" or "smallest"')
    if not 1 <= k <= n:
        raise DataError(f"k={k} eigenvalues were asked for: there are {n}, and at least one is needed")
    if not (tolerance > 0 and max_products >= 2 * k + 2):
        raise DataError(
            f"tolerance={tolerance}, max_products={max_products}: the tolerance must be positive, and {k} eigenvalues "
            f"need at least {2 * k + 2} products"
        )
    low, high = (k if which in ("both", end) else 0 for end in ("smallest", "largest"))
    found = ends(product, n, smallest=low, largest=high, tolerance=tolerance, max_products=max_products, seed=seed)
    values, residuals, vectors = found.values, found.residuals, found.vectors
    converged = bool((residuals <= tolerance * found.scale).all())
    warnings = () if converged else (_unconverged(found.n_products, float(residuals.max()), found.scale),)
    top, bottom = np.arange(len(values))[::-1][:high], np.arange(low)
    return Sharpness(
        values[top],
        values[bottom],
        residuals[top],
        residuals[bottom],
        vectors[top],
        vectors[bottom],
        converged,
        of,
        found.n_products,
        {"k": k, "which": which, "of": of, "tolerance": tolerance, "max_products": max_products, "seed": seed, "n": n},
        warnings,
    )


def _unconverged(n_products: int, residual: float, scale: float) -> str:
    return (
        f"not converged after {n_products} products: the worst residual is {residual:.2g}, the largest |eigenvalue| "
        f"{scale:.3g}. Raise max_products, or the tolerance to what the dtype can give (float32: about 1e-5)"
    )


def hutchinson(product: Product, n: int, *, samples: int, of: str, seed: int) -> Trace:
    """Estimate a trace, see `recorders.torch.trace`.

    Parameters
    ----------
    product : callable
        ``product(v)`` -> H v.
    n : int
        Size of H.
    samples, of, seed
        As for `recorders.torch.trace`.

    Returns
    -------
    Trace
        With its standard error.

    Raises
    ------
    DataError, UnknownNameError
        If an argument makes no sense, or a product is not finite.
    """
    label(of)
    _some(samples)
    rng = np.random.default_rng(seed)
    found = np.empty(samples)
    for i in range(samples):
        z = rademacher(n, rng)
        found[i] = z @ np.asarray(product(z), np.float64)
    if not np.isfinite(found).all():
        raise DataError("a Hessian-vector product is not finite: the loss or its curvature is NaN or infinite here")
    value, error = _mean_and_error(found)
    return Trace(value, error, found, of, {"samples": samples, "of": of, "seed": seed, "n": n})


def lanczos_quadrature(product: Product, n: int, *, steps: int, samples: int, of: str, seed: int) -> SpectralDensity:
    """Estimate a spectral density, see `recorders.torch.spectral_density`.

    Parameters
    ----------
    product : callable
        ``product(v)`` -> H v.
    n : int
        Size of H.
    steps, samples, of, seed
        As for `recorders.torch.spectral_density`.

    Returns
    -------
    SpectralDensity
        Nodes and weights.

    Raises
    ------
    DataError, UnknownNameError
        If an argument makes no sense, or a product is not finite.
    """
    label(of)
    _some(samples)
    if steps < 1:
        raise DataError(f"steps={steps}: at least one Lanczos step is needed, 50 to 100 are usual")
    rng = np.random.default_rng(seed)
    nodes, weights = np.zeros((2, samples, min(steps, n)))
    for i in range(samples):
        t, w = quadrature(product, rademacher(n, rng), steps, rng)
        nodes[i, : len(t)], nodes[i, len(t) :], weights[i, : len(w)] = t, t[-1], w
    settings = {"steps": steps, "samples": samples, "of": of, "seed": seed, "n": n}
    return SpectralDensity(nodes, weights, n, of, settings)


def along_gradients(pairs: Sequence[tuple[float, float]]) -> BatchSharpness:
    """Average g H g / g g over batches.

    Parameters
    ----------
    pairs : sequence of (float, float)
        g H g and g g of each batch.

    Returns
    -------
    BatchSharpness
        With its standard error.
    """
    numbers = np.array(pairs, np.float64).reshape(-1, 2)
    moving = numbers[:, 1] > 0
    samples = np.full(len(numbers), np.nan)
    samples[moving] = numbers[moving, 0] / numbers[moving, 1]
    value, error = _mean_and_error(samples[moving])
    return BatchSharpness(
        value, error, samples, {"n_batches": len(samples), "n_without_gradient": int((~moving).sum())}
    )


def rademacher(n: int, rng: np.random.Generator) -> Floats:
    """Draw a vector of signs.

    Parameters
    ----------
    n : int
        Its length.
    rng : numpy.random.Generator
        Where it is drawn.

    Returns
    -------
    ndarray of float64, shape (n,)
        +1 and -1, each with probability one half.
    """
    return np.where(rng.integers(0, 2, n) == 1, 1.0, -1.0)


def _some(samples: int) -> None:
    if samples < 1:
        raise DataError(f"samples={samples}: at least one random vector is needed, two for a standard error")


def _mean_and_error(samples: Floats) -> tuple[float, float]:
    """Mean and its standard error; NaN where the numbers do not tell."""
    if not len(samples):
        return float("nan"), float("nan")
    error = float(samples.std(ddof=1) / np.sqrt(len(samples))) if len(samples) > 1 else float("nan")
    return float(samples.mean()), error


def of_length(vector: Any, n: int) -> Floats:
    """Check a flat vector.

    Parameters
    ----------
    vector : array_like, shape (n,)
        As given.
    n : int
        Number of weights.

    Returns
    -------
    ndarray of float64, shape (n,)
        The same numbers.

    Raises
    ------
    DataError
        If it has another shape.
    """
    found: Floats = np.asarray(vector, np.float64)
    if found.shape != (n,):
        raise DataError(f"the vector has shape {found.shape}; there are {n} weights, so give ({n},)")
    return found
