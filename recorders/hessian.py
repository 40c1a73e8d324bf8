"""Curvature of a loss from Hessian-vector products: extreme eigenvalues, trace, spectral density.

Framework-free; `recorders.torch` and `recorders.jax` provide the products. Every result states the data of the Hessian
in `of`: "full" (the whole training set), "subset" (a fixed part of it) or "batch" (the data of one step), and has its
numbers as `metrics`, named ``<what>_<of>``, for ``rec.record(**result.metrics)``:

============================= ===================================================================
``h_max_full``                largest eigenvalue ("sharpness")
``h_min_full``                smallest eigenvalue
``preconditioned_h_max_full`` the same of the Hessian in units of a preconditioner (likewise ``..._h_min_full``)
``h_largest_full``            the k largest, for k > 1 (``h_smallest_full`` likewise)
``trace_full``                Hutchinson's estimate; ``trace_error_full`` its standard error
``batch_sharpness``           mean of g H g / g g over batches; ``batch_sharpness_error`` its standard error
============================= ===================================================================

An eigenvalue has the unit of the loss over that of a weight squared. Weight decay inside an optimiser adds to the
Hessian (its coefficient times the identity, for SGD) but is not part of the loss and not included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.types import Floats
from trajtools.wording import counted, spoken

EXTENTS = ("full", "subset", "batch")
WHICH = ("both", "largest", "smallest")
BREAKDOWN = 1e-13  # of the largest eigenvalue: smaller remainders are rounding
SUM_BLOCK = 2**16  # entries that are summed in float32
MIX_BLOCK = 2**12  # entries of all vectors that fit into the cache
SMALLEST_SQUARE = 1e-25  # smaller sums of squares may have lost terms to the range of float32
LEAST_STEPS = 8  # before convergence at an end of the spectrum is accepted
LOOK_EVERY = 4
LARGEST_BASIS = 64
BASIS_BYTES = 2 * 2**30
Product = Callable[[Floats], Any]


class HessianProbes:
    """The probes of the Hessian, functions in `recorders.torch` and `recorders.jax`.

    Parameters
    ----------
    hessian : callable
        ``hessian(network, loss_fn, batch)`` -> `Hessian`.
    """

    def __init__(self, hessian: Callable[[Any, Callable[..., Any], tuple[Any, ...]], Hessian]) -> None:
        self._hessian = hessian

    def sharpness(
        self,
        network: Any,
        loss_fn: Callable[..., Any],
        *batch: Any,
        k: int = 1,
        which: str = "both",
        of: str = "batch",
        preconditioner: Any = None,
        tolerance: float = 1e-5,
        max_products: int = 200,
        seed: int = 0,
    ) -> Sharpness:
        """Largest and smallest eigenvalues of the Hessian, by Lanczos over Hessian-vector products.

        Parameters
        ----------
        network : torch.nn.Module, or pytree of arrays
            The network at the weights of the Hessian; not modified.
        loss_fn : callable
            torch: ``loss_fn(model(x), *targets)`` -> scalar Tensor. JAX: ``loss_fn(params, *batch)`` -> scalar;
            compiled once per function object, so do not redefine it for every call.
        *batch : object
            torch: ``x, *targets``. JAX: the arguments of the loss function after the parameters. Or `Batches`, for the
            mean over many batches.
        k : int
            Number of eigenvalues at each end.
        which : {"both", "largest", "smallest"}
            End of the spectrum.
        of : {"batch", "subset", "full"}
            Extent of the data, for the record: those of one step, a fixed part of the training set, all of it.
        preconditioner : array_like of shape (P,), a mapping or pytree like the weights, or None
            Diagonal of the matrix P by whose inverse the optimiser multiplies the gradient (`preconditioner`, for
            Adam); the eigenvalues are then those of P^-1 H, the eigenvectors those of P^-1/2 H P^-1/2.
        tolerance : float
            An eigenvalue has converged when its residual ``|H v - h v|`` is below this times the largest in size. Its
            error is then usually far smaller (of the order of the squared residual over the gap to its neighbour).
        max_products : int
            Largest number of products; a result without convergence has a warning.
        seed : int
            Seed of the first vector; no generator or key of the framework is used.

        Returns
        -------
        Sharpness
            Eigenvalues, vectors and residuals; ``rec.record(**result.metrics)`` records ``h_max_<of>`` and
            ``h_min_<of>``, with a preconditioner as ``preconditioned_h_max_<of>``, ...

        Raises
        ------
        DataError
            If a product is not finite, there are no data, or an argument is invalid.
        ArchitectureError
            If the network is sharded or has no trainable weights.
        UnknownNameError
            If `which` or `of` is not one of the values above.

        Notes
        -----
        The weights keep their dtype: float32 products are accurate to about 1e-6 of the largest eigenvalue; a float64
        copy of the network is more precise. Basis vectors (float32 for weights of at most 32 bits, else float64; on the
        host) take at most 2 GiB. They are orthogonalised again only where rounding requires it.

        Examples
        --------
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x, y = torch.eye(2).double(), torch.zeros(2, 1).double()
        >>> loss_fn = torch.nn.functional.mse_loss
        >>> from recorders.torch import sharpness
        >>> round(float(sharpness(model, loss_fn, x, y).largest[0]), 6)
        1.0
        """
        hessian = self._hessian(network, loss_fn, batch)
        product: Product = hessian if preconditioner is None else preconditioned(hessian, preconditioner)
        check_extent(of)
        if which not in WHICH:
            raise UnknownNameError(f'which={which!r}: it must be "both", "largest" or "smallest"')
        if not 1 <= k <= hessian.n:
            raise DataError(f"k={k} eigenvalues: it must be 1 to {hessian.n}")
        if not (tolerance > 0 and max_products >= 2 * k + 2):
            raise DataError(
                f"tolerance={tolerance}, max_products={max_products}: the tolerance must be positive, and {k} "
                f"eigenvalues need at least {2 * k + 2} products"
            )
        low, high = (k if which in ("both", end) else 0 for end in ("smallest", "largest"))
        ends = extreme_eigenvalues(
            product,
            hessian.n,
            smallest=low,
            largest=high,
            tolerance=tolerance,
            max_products=max_products,
            seed=seed,
            precision=hessian.precision,
        )
        values, residuals, vectors = ends.values, ends.residuals, ends.vectors
        converged = bool((residuals <= tolerance * ends.scale).all())
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
            ends.n_products,
            settings={
                "k": k, "which": which, "of": of, "tolerance": tolerance, "max_products": max_products, "seed": seed,
                "n": hessian.n, "preconditioned": preconditioner is not None,
            },
            warnings=() if converged else (_unconverged(ends.n_products, float(residuals.max()), ends.scale),),
        )  # fmt: skip

    def hessian_vector_product(self, network: Any, loss_fn: Callable[..., Any], vector: Any, *batch: Any) -> Any:
        """Multiply the Hessian of the loss by a vector.

        Parameters
        ----------
        network, loss_fn : object
            As in `sharpness`.
        vector : array_like of shape (P,); torch: or {name: Tensor}; JAX: or a pytree like the parameters
            Vector over the trainable weights, in the order of a recorded state or by names.
        *batch : object
            As in `sharpness`.

        Returns
        -------
        ndarray of float64, shape (P,), or dict of str to Tensor, or pytree
            H v, in the form of `vector` (JAX: None for leaves that are not weights).

        Raises
        ------
        DataError, ArchitectureError
            If the vector does not fit the weights, or there are no data.

        Examples
        --------
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x, y = torch.eye(2).double(), torch.zeros(2, 1).double()
        >>> loss_fn = torch.nn.functional.mse_loss
        >>> from recorders.torch import hessian_vector_product
        >>> hessian_vector_product(model, loss_fn, torch.ones(2).double(), x, y)
        array([1., 1.])
        """
        hessian = self._hessian(network, loss_fn, batch)
        flat, restore = hessian.flatten(vector)
        return restore(np.asarray(hessian(flat), np.float64))

    def batch_sharpness(self, network: Any, loss_fn: Callable[..., Any], *batch: Any) -> BatchSharpness:
        """Curvature of the loss of a batch along its own gradient, g H g / g g, averaged over batches.

        Parameters
        ----------
        network, loss_fn : object
            As in `sharpness`.
        *batch : object
            One batch, as in `sharpness`; or `Batches`, with one sample per batch.

        Returns
        -------
        BatchSharpness
            Mean over the batches, its standard error, and the samples.

        Raises
        ------
        DataError, ArchitectureError
            If there are no data, or the network is sharded or has no trainable weights.

        Notes
        -----
        Gradient and Hessian are those of the same batch: the mean of the ratios, not the ratio of the means.

        Examples
        --------
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x, y = torch.eye(2).double(), torch.zeros(2, 1).double()
        >>> loss_fn = torch.nn.functional.mse_loss
        >>> from recorders.torch import batch_sharpness
        >>> batch_sharpness(model, loss_fn, x, y).value > 0
        True
        """
        pairs = np.array(list(self._hessian(network, loss_fn, batch).along_gradients()), np.float64).reshape(-1, 2)
        moving = pairs[:, 1] > 0
        samples = np.full(len(pairs), np.nan)
        samples[moving] = pairs[moving, 0] / pairs[moving, 1]
        value, error = mean_and_error(samples[moving])
        settings = {"n_batches": len(samples), "n_without_gradient": int((~moving).sum())}
        return BatchSharpness(value, error, samples, settings)

    def trace(
        self,
        network: Any,
        loss_fn: Callable[..., Any],
        *batch: Any,
        samples: int = 30,
        of: str = "batch",
        seed: int = 0,
    ) -> Trace:
        """Trace of the Hessian, by Hutchinson's method with Rademacher vectors.

        Parameters
        ----------
        network, loss_fn : object
            As in `sharpness`.
        *batch : object
            As in `sharpness`.
        samples : int
            Number of random vectors, with one Hessian-vector product each.
        of : {"batch", "subset", "full"}
            Extent of the data, for the record.
        seed : int
            Seed of the vectors.

        Returns
        -------
        Trace
            Estimate with its standard error; exact for a diagonal Hessian.

        Raises
        ------
        DataError, ArchitectureError, UnknownNameError
            As in `sharpness`.

        Examples
        --------
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x, y = torch.eye(2).double(), torch.zeros(2, 1).double()
        >>> loss_fn = torch.nn.functional.mse_loss
        >>> from recorders.torch import trace
        >>> round(trace(model, loss_fn, x, y).value, 6)
        2.0
        """
        hessian = self._hessian(network, loss_fn, batch)
        check_extent(of)
        _check_samples(samples)
        rng = np.random.default_rng(seed)
        values = np.empty(samples)
        for i in range(samples):
            z = rademacher(hessian.n, rng)
            values[i] = z @ np.asarray(hessian(z), np.float64)
        if not np.isfinite(values).all():
            raise DataError("a Hessian-vector product is not finite: the loss or its curvature is NaN or infinite here")
        value, error = mean_and_error(values)
        return Trace(value, error, values, of, {"samples": samples, "of": of, "seed": seed, "n": hessian.n})

    def spectral_density(
        self,
        network: Any,
        loss_fn: Callable[..., Any],
        *batch: Any,
        steps: int = 80,
        samples: int = 10,
        of: str = "batch",
        seed: int = 0,
    ) -> SpectralDensity:
        r"""Spectral density of the Hessian, by stochastic Lanczos quadrature.

        Parameters
        ----------
        network, loss_fn : object
            As in `sharpness`.
        *batch : object
            As in `sharpness`.
        steps : int
            Lanczos steps m per vector, reorthogonalised where rounding requires it, in 4 m P bytes of memory (float64
            weights: 8 m P).
        samples : int
            Number of random vectors, with `steps` Hessian-vector products each.
        of : {"batch", "subset", "full"}
            Extent of the data, for the record.
        seed : int
            Seed of the vectors.

        Returns
        -------
        SpectralDensity
            Nodes and weights, with ``.density(at, width)`` and ``.moment(p)``.

        Raises
        ------
        DataError, ArchitectureError, UnknownNameError
            As in `sharpness`.

        Notes
        -----
        For a Rademacher vector z, m Lanczos steps give a tridiagonal matrix whose eigenvalues :math:`t_i` and squared
        first eigenvector components :math:`w_i` are the Gauss quadrature of the spectral measure of z:
        :math:`z^T f(H) z / P = \sum_i w_i f(t_i)` for polynomials f up to degree 2 m - 1. The mean over z is
        :math:`\mathrm{tr} f(H) / P`, so the density is the mean of :math:`\sum_i w_i \delta(t - t_i)`, which `density`
        smooths with a Gaussian of a given width.

        Examples
        --------
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x, y = torch.eye(2).double(), torch.zeros(2, 1).double()
        >>> loss_fn = torch.nn.functional.mse_loss
        >>> from recorders.torch import spectral_density
        >>> spectral_density(model, loss_fn, x, y, steps=2, samples=2).nodes.shape
        (2, 2)
        """
        hessian = self._hessian(network, loss_fn, batch)
        check_extent(of)
        _check_samples(samples)
        if steps < 1:
            raise DataError(f"steps={steps}: it must be at least 1; 50 to 100 are usual")
        rng = np.random.default_rng(seed)
        nodes, weights = np.zeros((2, samples, min(steps, hessian.n)))
        for i in range(samples):
            t, w = quadrature(hessian, rademacher(hessian.n, rng), steps, rng, hessian.precision)
            nodes[i, : len(t)], nodes[i, len(t) :], weights[i, : len(w)] = t, t[-1], w
        settings = {"steps": steps, "samples": samples, "of": of, "seed": seed, "n": hessian.n}
        return SpectralDensity(nodes, weights, hessian.n, of, settings)


@dataclass(frozen=True)
class Precision:
    """What the products of a Hessian are computed in.

    Attributes
    ----------
    dtype : numpy.dtype
        float32, or float64 where a weight has more than 32 bits; that of the vectors.
    roundoff : float
        Relative accuracy of a product: that of the least precise weight.
    """

    dtype: np.dtype[Any]
    roundoff: float

    @classmethod
    def of(cls, weights: Iterable[tuple[int, float]]) -> Precision:
        """The precision of weights, each with its size in bytes and its roundoff."""
        sizes, roundoffs = zip(*weights, strict=True)
        return cls(np.dtype(np.float32 if max(sizes) <= 4 else np.float64), max(roundoffs))


class Hessian(Protocol):
    """The Hessian of a loss at the weights of a network, on one batch or on `Batches`, implemented per framework."""

    n: int
    precision: Precision

    def __call__(self, vector: Floats) -> Floats:
        """Multiply the Hessian by a vector, shape (n,), in the dtype of `precision` or in float64."""
        ...

    def flatten(self, vector: Any) -> tuple[Floats, Callable[[Floats], Any]]:
        """Flatten a vector to shape (n,); also return a function that restores its structure."""
        ...

    def along_gradients(self) -> Iterable[tuple[float, float]]:
        """Yield g H g and g g of each batch, with its own gradient g and Hessian H."""
        ...


def preconditioned(hessian: Hessian, preconditioner: Any) -> Product:
    """Products with P^-1/2 H P^-1/2, a symmetric matrix with the eigenvalues of P^-1 H."""
    if hasattr(preconditioner, "param_groups"):
        raise DataError(
            f"preconditioner= is the optimiser {type(preconditioner).__name__}; needed its diagonal: "
            "preconditioner=preconditioner(model, optimizer)"
        )
    flat, _ = hessian.flatten(preconditioner)
    sound = np.isfinite(flat) & (flat > 0)
    if not sound.all():
        raise DataError(f"{(~sound).sum()} of {len(flat)} entries of the preconditioner are not finite and positive")
    inverse_root = flat**-0.5
    return lambda vector: inverse_root * hessian(inverse_root * vector)


@dataclass(frozen=True, eq=False, repr=False)
class Sharpness(Result):
    """Extreme eigenvalues of a Hessian.

    Attributes
    ----------
    largest : ndarray of float64, shape (k,)
        Largest eigenvalues, largest first; empty if not computed.
    smallest : ndarray of float64, shape (k,)
        Smallest eigenvalues, smallest (most negative) first.
    largest_residuals, smallest_residuals : ndarray of float64, shape (k,)
        ``|H v - h v|`` of each: an upper bound of the distance to a true eigenvalue.
    largest_vectors, smallest_vectors : ndarray of float64, shape (k, P)
        Unit eigenvectors, in the order of the recorded state.
    converged : bool
        Whether every residual is below ``tolerance`` times the largest |eigenvalue|.
    of : str
        Data of the Hessian: ``"full"``, ``"subset"`` or ``"batch"``.
    n_products : int
        Number of Hessian-vector products; each costs two to three gradients of the same data.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.
    """

    largest: Floats
    smallest: Floats
    largest_residuals: Floats
    smallest_residuals: Floats
    largest_vectors: Floats
    smallest_vectors: Floats
    converged: bool
    of: str
    n_products: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "largest": ("rank",),
        "largest_residuals": ("rank",),
        "smallest": ("place",),
        "smallest_residuals": ("place",),
    }

    def _head(self) -> str:
        of = f"of P^-1 H, {self.of}" if self.settings.get("preconditioned") else self.of
        return f"largest curvature {spoken(self.h_max)}, smallest {spoken(self.h_min)} ({of})"

    def _sentence(self) -> str:
        state = "The eigenvalues converged" if self.converged else "Not all eigenvalues converged"
        return f"{state}, after {counted(self.n_products, 'Hessian-vector product')}."

    @property
    def h_max(self) -> float:
        """The largest eigenvalue; NaN if not computed."""
        return float(self.largest[0]) if len(self.largest) else float("nan")

    @property
    def h_min(self) -> float:
        """The smallest eigenvalue; NaN if not computed."""
        return float(self.smallest[0]) if len(self.smallest) else float("nan")

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers under their metric names."""
        metrics: dict[str, Any] = {}
        kind = "preconditioned_" if self.settings.get("preconditioned") else ""
        for end, short, values in (("largest", "h_max", self.largest), ("smallest", "h_min", self.smallest)):
            if len(values):
                metrics[f"{kind}{short}_{self.of}"] = float(values[0])
            if len(values) > 1:
                metrics[f"{kind}h_{end}_{self.of}"] = values
        return metrics


@dataclass(frozen=True, eq=False, repr=False)
class Trace(Result):
    """Estimate of the trace of a Hessian from random vectors.

    Attributes
    ----------
    value : float
        Mean of z H z over the vectors.
    standard_error : float
        Standard error of the mean; NaN for a single vector.
    samples : ndarray of float64, shape (n_samples,)
        z H z of each vector.
    of : str
        Data of the Hessian.
    settings : dict
        All parameters used.
    """

    value: float
    standard_error: float
    samples: Floats
    of: str
    settings: dict[str, Any] = field(default_factory=dict)
    _dims: ClassVar[AxisNames] = {"samples": ("vector",)}
    _one_row: ClassVar[bool] = True

    def _sentence(self) -> str:
        error, vectors = spoken(self.standard_error, 2), counted(len(self.samples), "random vector")
        return f"trace {spoken(self.value)}, standard error {error}, from {vectors} ({self.of})."

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers under their metric names."""
        return {f"trace_{self.of}": self.value, f"trace_error_{self.of}": self.standard_error}


@dataclass(frozen=True, eq=False, repr=False)
class BatchSharpness(Result):
    """Curvature along the gradient, g H g / g g, with the gradient and Hessian of each batch.

    Attributes
    ----------
    value : float
        Mean over the batches, except those without a gradient (g = 0).
    standard_error : float
        Standard error of the mean; NaN for a single batch.
    samples : ndarray of float64, shape (n_batches,)
        Value of each batch; NaN where g = 0.
    settings : dict
        All parameters used.
    """

    value: float
    standard_error: float
    samples: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    _dims: ClassVar[AxisNames] = {"samples": ("batch",)}
    _one_row: ClassVar[bool] = True

    def _sentence(self) -> str:
        error, batches = spoken(self.standard_error, 2), counted(len(self.samples), "batch", "batches")
        return f"curvature along the gradient {spoken(self.value)}, standard error {error}, from {batches}."

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers under their metric names."""
        return {"batch_sharpness": self.value, "batch_sharpness_error": self.standard_error}


@dataclass(frozen=True, eq=False, repr=False)
class SpectralDensity(Result):
    """Spectral density of a Hessian, from stochastic Lanczos quadrature.

    Attributes
    ----------
    nodes, weights : ndarray of float64, shape (n_samples, steps)
        Gauss quadratures of the random vectors: positions, and fractions of all eigenvalues (a row sums to 1). Rows
        that ended early are padded with nodes of weight 0.
    n : int
        Number of eigenvalues, P.
    of : str
        Data of the Hessian.
    settings : dict
        All parameters used.
    """

    nodes: Floats
    weights: Floats
    n: int
    of: str
    settings: dict[str, Any] = field(default_factory=dict)
    _dims: ClassVar[AxisNames] = {"nodes": ("vector", "node"), "weights": ("vector", "node")}

    def _sentence(self) -> str:
        mean, error = self.moment(1)
        low, high = float(self.nodes[self.weights > 0].min()), float(self.nodes[self.weights > 0].max())
        return (
            f"density of {counted(self.n, 'eigenvalue')} ({self.of}): mean {spoken(mean)}, standard error "
            f"{spoken(error, 2)}, nodes from {spoken(low)} to {spoken(high)}."
        )

    def moment(self, power: int) -> tuple[float, float]:
        """Mean of the eigenvalues to a power, with its standard error.

        Parameters
        ----------
        power : int
            From 0 to 2 steps - 1, where the quadrature is exact for each vector.

        Returns
        -------
        tuple of (float, float)
            Mean over the P eigenvalues; standard error over the vectors, NaN for a single one.
        """
        return mean_and_error((self.weights * self.nodes**power).sum(1))

    def density(self, at: Any, width: float) -> Floats:
        """Density of the eigenvalues, with every node smoothed by a Gaussian.

        Parameters
        ----------
        at : array_like of float, shape (g,)
            Eigenvalues at which to evaluate the density.
        width : float
            Standard deviation of the Gaussian, in the unit of an eigenvalue.

        Returns
        -------
        ndarray of float64, shape (g,)
            Fraction of the eigenvalues per unit; integrates to 1.

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


class Batches:
    """A data set in several batches, for data too large for one pass.

    Parameters
    ----------
    source : iterable of batches
        Iterated again for every Hessian-vector product, so it must not be a generator: a `DataLoader` or a list. Each
        batch is a tuple ``(x, *targets)``, the arguments of a probe after the loss function.
    reduction : {"mean", "sum"}
        Reduction of the loss function over the examples of a batch. "mean": batches are averaged, weighted by their
        number of examples; "sum": they are added.

    Raises
    ------
    UnknownNameError
        If the reduction is unknown.
    DataError
        If the source can be iterated only once.

    Notes
    -----
    A loader that shuffles or augments draws random numbers. Every product uses the same generator state, which is
    restored afterwards. A separate generator of the loader (``generator=``) is not handled: pass the batches of such a
    loader as a list.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> x, y = torch.eye(2).double(), torch.zeros(2, 1).double()
    >>> loss_fn = torch.nn.functional.mse_loss
    >>> from recorders.torch import Batches, sharpness
    >>> round(float(sharpness(model, loss_fn, Batches([(x, y), (2 * x, y)])).largest[0]), 6)
    2.5
    """

    def __init__(self, source: Iterable[Any], *, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise UnknownNameError(f'reduction={reduction!r}: it must be "mean" or "sum", as the loss function does')
        if hasattr(source, "__next__"):  # iter() would draw from the generators of a loader
            raise DataError(
                f"Batches of a {type(source).__name__}: it can be iterated only once, and every Hessian-vector "
                "product needs all of it. Pass the loader itself, or a list of batches"
            )
        self.source = source
        self.reduction = reduction

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        empty = True
        for batch in self.source:
            empty = False
            yield tuple(batch) if isinstance(batch, list | tuple) else (batch,)
        if empty:
            raise DataError("the batches are empty: the curvature needs at least one")


def pieces(batch: tuple[Any, ...]) -> tuple[Iterable[tuple[Any, ...]], str]:
    """Read the data arguments of a probe: one batch, or `Batches`."""
    if len(batch) == 1 and isinstance(batch[0], Batches):
        return batch[0], batch[0].reduction
    if any(isinstance(part, Batches) for part in batch):
        raise DataError("Batches contain inputs and targets: pass them alone, after the loss function")
    if not batch:
        raise DataError("no data: pass the batch after the loss function (x, *targets), or Batches(loader)")
    return (batch,), "one"


def examples(batch: Any) -> int:
    """Count the examples of a batch."""
    shape = getattr(batch, "shape", None)
    if shape is not None:
        if len(shape):
            return int(shape[0])
    elif isinstance(batch, dict | list | tuple):
        for part in batch.values() if isinstance(batch, dict) else batch:
            try:
                return examples(part)
            except DataError:
                continue
    raise DataError(
        f"a batch {type(batch).__name__} has no number of examples: its first array needs a leading axis of examples, "
        'or use Batches(..., reduction="sum") with a loss function that sums'
    )


def check_extent(of: str) -> str:
    """Check the label of the data of the Hessian."""
    if of not in EXTENTS:
        raise UnknownNameError(f'of={of!r}: choose the Hessian: "full", "subset" or "batch"')
    return of


def _unconverged(n_products: int, residual: float, scale: float) -> Reason:
    return Reason.of(
        "not-converged",
        "not converged after {products} products: the worst residual is {residual:.2g}, the largest |eigenvalue| "
        "{scale:.3g}. Raise max_products, or the tolerance to the accuracy of the dtype (float32: about 1e-5)",
        products=n_products,
        residual=residual,
        scale=scale,
    )


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise DataError(f"samples={samples}: it must be at least 1 random vector, 2 for a standard error")


def of_length(vector: Any, n: int) -> Floats:
    """Check a flat vector."""
    flat: Floats = np.asarray(vector, np.float64)
    if flat.shape != (n,):
        raise DataError(f"the vector has shape {flat.shape}; there are {n} weights, so pass ({n},)")
    return flat


def mean_and_error(samples: Floats) -> tuple[float, float]:
    """Mean and its standard error; NaN if undetermined."""
    if not len(samples):
        return float("nan"), float("nan")
    error = float(samples.std(ddof=1) / np.sqrt(len(samples))) if len(samples) > 1 else float("nan")
    return float(samples.mean()), error


def rademacher(n: int, rng: np.random.Generator) -> Floats:
    """Draw a random vector of signs."""
    return np.where(rng.integers(0, 2, n) == 1, 1.0, -1.0)


def extreme_eigenvalues(
    product: Product,
    n: int,
    *,
    smallest: int,
    largest: int,
    tolerance: float,
    max_products: int,
    seed: int,
    precision: Precision,
) -> Ends:
    """Eigenvalues at the ends of the spectrum, by Lanczos with partial reorthogonalisation and thick restarts.

    Notes
    -----
    The residual is relative to the largest |eigenvalue|, not to each eigenvalue, because products are rounded on that
    scale: no method can resolve an eigenvalue of 1e-9 next to one of 1e3. A multiple eigenvalue is found once, as in
    every method with a single start vector; for n <= 64 all n directions are used, and multiplicities are right.
    """
    rng = np.random.default_rng(seed)
    requested = smallest + largest
    room = room_for(n, requested, precision.dtype.itemsize)
    basis = Basis(product, room, rng.standard_normal(n), rng, precision)
    while True:
        basis.grow()
        full = basis.size == basis.room or basis.n_products >= max_products
        if basis.size % LOOK_EVERY and basis.beta > 0.0 and not full:
            continue  # Ritz values cost as much as a product of a small model
        values, weights = basis.ritz()
        at = _at_the_ends(basis.size, smallest, largest)
        scale = float(np.abs(values).max())
        residuals = basis.beta * np.abs(weights[-1, at])
        # A recurrence that ends has one of each eigenvalue; every new start may add one more copy.
        everything = basis.size == n or basis.n_breakdowns > requested
        sampled = basis.size >= max(requested + 2, LEAST_STEPS) and n > LARGEST_BASIS and basis.beta > 0.0
        if everything or basis.n_products >= max_products or (sampled and bool((residuals <= tolerance * scale).all())):
            return Ends(values[at], basis.combine(weights[:, at]), residuals, scale, basis.n_products)
        if basis.size == basis.room:
            basis.shrink(values, weights, _at_the_ends(basis.size, *_retained(basis.room, smallest, largest)))


@dataclass(frozen=True)
class Ends:
    """Eigenvalues at the ends of a spectrum.

    Attributes
    ----------
    values : ndarray of float64, shape (j,)
        Eigenvalues, ascending: the requested smallest, then the requested largest.
    vectors : ndarray of float64, shape (j, n)
        Their unit eigenvectors, as rows.
    residuals : ndarray of float64, shape (j,)
        |H v - value v| from the recurrence; an upper bound of the distance to an eigenvalue.
    scale : float
        Largest |Ritz value|, the scale of the tolerance.
    n_products : int
        Number of products.
    """

    values: Floats
    vectors: Floats
    residuals: Floats
    scale: float
    n_products: int


def _at_the_ends(size: int, smallest: int, largest: int) -> Any:
    """Indices of the smallest and the largest among `size` ascending values, without duplicates."""
    smallest, largest = min(smallest, size), min(largest, size)
    return np.unique(np.r_[0:smallest, size - largest : size])


def _retained(room: int, smallest: int, largest: int) -> tuple[int, int]:
    """Number of Ritz vectors retained at a restart at each end: the requested ones, and more for speed."""
    spare = max((room - smallest - largest) // 4, 1)
    return (smallest + spare if smallest else 0), (largest + spare if largest else 0)


def room_for(n: int, requested: int, itemsize: int) -> int:
    """Number of basis vectors of n numbers: within 2 GiB, but at least the minimum of the search."""
    least = 2 * requested + 6
    return min(n, max(least, min(max(LARGEST_BASIS, 4 * requested), BASIS_BYTES // (itemsize * n))))


def quadrature(
    product: Product, start: Floats, steps: int, rng: np.random.Generator, precision: Precision
) -> tuple[Floats, Floats]:
    r"""Gauss quadrature of the spectral measure of a vector."""
    basis = Basis(product, steps, start, rng, precision)
    while basis.size < basis.room:
        basis.grow()
        if basis.beta == 0.0:
            break  # invariant subspace: the quadrature is exact
    nodes, weights = basis.ritz()
    return nodes, weights[0] ** 2


class Basis:
    """An orthonormal basis that grows by one product at a time, and the projected matrix.

    Rounding makes the vectors of Lanczos' three-term recurrence lose their orthogonality as eigenvalues converge.
    Simon's recurrence follows the loss without reading the vectors (Math. Comput. 42, 115 (1984)). Where an overlap
    exceeds `level`, the root of the roundoff per vector, two successive vectors are orthogonalised against the whole
    basis. The projected matrix is then as accurate as with an orthogonal basis, and most steps read two vectors.

    Parameters
    ----------
    product : callable
        Symmetric product, (n,) -> (n,).
    room : int
        Largest number of vectors.
    start : ndarray of float, shape (n,)
        Direction of the first vector.
    rng : numpy.random.Generator
        For new directions where the basis is an invariant subspace.
    precision : Precision
        Of the products.
    """

    def __init__(
        self, product: Product, room: int, start: Floats, rng: np.random.Generator, precision: Precision
    ) -> None:
        self.product, self.n, self.room, self.rng = product, len(start), min(room, len(start)), rng
        self.vectors = np.empty(
            (self.room + 1, self.n), precision.dtype
        )  # the one after the basis is the next direction
        self.vectors[0] = start / np.linalg.norm(start)
        self.matrix = np.zeros((self.room, self.room))
        self.size = self.n_products = self.n_breakdowns = 0
        self.beta = 0.0  # norm of the last product outside of the basis
        self.n_orthogonalised = 0  # products that were orthogonalised against the whole basis
        self._roundoff = float(np.finfo(precision.dtype).eps)
        self.level = float(np.sqrt(self._roundoff / self.room))
        self._noise, self._n_noises, self._scale = precision.roundoff, 1, 0.0
        self._overlaps, self._before = np.ones(1), np.zeros(1)  # of the next direction and the last vector; estimates
        self._coupled = False  # the next product reaches into the whole basis, as after a restart
        self._again = False  # the second of two successive vectors is due

    def grow(self) -> None:
        """Apply the product to the newest direction, and orthogonalise the result."""
        size, previous = self.size, self.beta
        inside, new = self.vectors[: size + 1], self.vectors[size + 1]
        image = np.asarray(self.product(inside[size]), new.dtype)
        self.n_products += 1
        near = slice(0 if self._coupled else max(size - 1, 0), size + 1)
        shares = np.zeros(size + 1)
        shares[near] = dots(inside[near], image)
        if not np.isfinite(shares).all():
            raise DataError(
                "a Hessian-vector product is not finite: the loss, its gradient or its curvature is NaN or infinite at "
                "these weights. Probe before the training diverges, or find the entry that is not finite"
            )
        np.matmul(shares[near].astype(new.dtype), inside[near], out=new)
        np.subtract(image, new, out=new)
        self.beta = norm(new)
        self._scale = max(self._scale, float(np.abs(shares).max()), self.beta)
        self.matrix[: size + 1, size] = self.matrix[size, : size + 1] = shares
        self.size += 1
        if self.beta > BREAKDOWN * self._scale:
            new /= self.beta
            overlaps = self._estimate(previous)
            if self._coupled or self._again or np.abs(overlaps).max() > self.level:
                self.n_orthogonalised += 1
                more = self._orthogonalise(new)[near]
                self.matrix[near, size] += more
                self.matrix[size, near] = self.matrix[near, size]
                overlaps = np.full(size + 1, self._roundoff)
                self._again = self._coupled or not self._again
        if self.beta <= BREAKDOWN * self._scale:
            self.beta = 0.0
            self.n_breakdowns += 1
            new[:] = self._elsewhere()
            overlaps = np.full(size + 1, self._roundoff)
        self._coupled = False
        self._before, self._overlaps = np.append(self._overlaps, overlaps[-1]), np.append(overlaps, 1.0)

    def _estimate(self, previous: float) -> Floats:
        """Overlaps of the newest direction with the basis, by the recurrence that they share with the vectors."""
        last = self.size - 1
        matrix = self.matrix[: self.size, : self.size]
        if last and not self._coupled:  # a symmetric product without rounding would give the same number twice
            noise = abs(matrix[last - 1, last] - previous) / self._scale
            self._noise = float(np.hypot(self._noise * np.sqrt(self._n_noises), noise) / np.sqrt(self._n_noises + 1))
            self._n_noises += 1
        overlaps = matrix @ self._overlaps - matrix[last, last] * self._overlaps - previous * self._before
        overlaps[last] = 0.0
        return (overlaps + np.copysign(self._noise * self._scale, overlaps)) / self.beta

    def _orthogonalise(self, new: Floats) -> Floats:
        """Orthogonalise a unit vector against the whole basis; return what it contained, in the unit of `beta`."""
        inside, contained = self.vectors[: self.size], np.zeros(self.size)
        for _ in range(3):
            more = dots(inside, new)
            new -= more.astype(new.dtype) @ inside
            contained += self.beta * more
            left = norm(new)
            self.beta *= left
            if self.beta <= BREAKDOWN * self._scale:
                break
            new /= left
            if left > 0.7:  # else rounding is a large part of what is left
                break
        return contained

    def _elsewhere(self) -> Floats:
        """A random unit vector orthogonal to the basis; zero if the basis is complete."""
        if self.size >= self.n:
            return np.zeros(self.n)
        inside = self.vectors[: self.size]
        new = self.rng.standard_normal(self.n)
        for _ in range(2):
            new -= (inside @ new) @ inside
        return new / np.linalg.norm(new)

    def ritz(self) -> tuple[Floats, Floats]:
        """Eigenvalues (ascending) and eigenvectors (columns) of the projected matrix."""
        values, weights = np.linalg.eigh(self.matrix[: self.size, : self.size])
        return values, weights

    def combine(self, weights: Floats) -> Floats:
        """Unit vectors, as rows, with these coefficients (columns) in the basis."""
        vectors = (weights.T.astype(self.vectors.dtype) @ self.vectors[: self.size]).astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def shrink(self, values: Floats, weights: Floats, keep: Any) -> None:
        """Retain selected Ritz vectors (thick restart); the newest direction continues from there."""
        inside, direction = self.vectors[: self.size], self.vectors[self.size].copy()
        mixing = weights[:, keep].T.astype(inside.dtype)
        self.size = len(mixing)
        for at in range(0, self.n, MIX_BLOCK):  # in place, since a second basis is much memory
            part = inside[:, at : at + MIX_BLOCK]
            part[: self.size] = mixing @ part
        for vector in inside[: self.size]:
            np.divide(vector, norm(vector), out=vector)
        self.matrix[:] = 0.0
        np.fill_diagonal(self.matrix[: self.size, : self.size], values[keep])
        beta = self.beta
        self._orthogonalise(direction)
        self.vectors[self.size], self.beta = direction, beta
        self._overlaps = np.full(self.size + 1, self._roundoff)
        self._overlaps[-1] = 1.0
        self._before = np.zeros(self.size + 1)
        self._coupled = True


def dots(rows: Floats, vector: Floats) -> Floats:
    """Products of rows and a vector; float32 is summed in blocks, and their sums in float64."""
    if vector.dtype == np.float64:
        return rows @ vector
    cuts = range(0, len(vector), SUM_BLOCK)
    return sum((rows[:, at : at + SUM_BLOCK] @ vector[at : at + SUM_BLOCK] for at in cuts), np.zeros(len(rows)))


def norm(vector: Floats) -> float:
    """2-norm; squares of float32 that leave its range are taken in float64."""
    cuts = range(0, len(vector), SUM_BLOCK)
    with np.errstate(over="ignore", under="ignore"):
        square = sum(float(part @ part) for part in (vector[at : at + SUM_BLOCK] for at in cuts))
    if vector.dtype == np.float64 or SMALLEST_SQUARE < square < 1 / SMALLEST_SQUARE:
        return float(np.sqrt(square))
    return float(np.linalg.norm(vector.astype(np.float64)))
