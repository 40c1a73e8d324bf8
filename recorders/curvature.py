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

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recorders.lanczos import Floats
from trajtools.errors import DataError, UnknownNameError

EXTENTS = ("full", "subset", "batch")


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
        return mean_and_error((self.weights * self.nodes**power).sum(1))

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
    """Check the label that says whose Hessian is measured."""
    if of not in EXTENTS:
        raise UnknownNameError(f'of={of!r}: say whose Hessian it is, "full", "subset" or "batch"')
    return of


def mean_and_error(samples: Floats) -> tuple[float, float]:
    """Mean and its standard error; NaN where the numbers do not tell."""
    if not len(samples):
        return float("nan"), float("nan")
    error = float(samples.std(ddof=1) / np.sqrt(len(samples))) if len(samples) > 1 else float("nan")
    return float(samples.mean()), error
