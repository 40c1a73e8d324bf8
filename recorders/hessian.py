"""Curvature of a loss from Hessian-vector products: extreme eigenvalues, trace, spectral density.

Framework-free: `recorders.torch` and `recorders.jax` bring the products. Every result says whose Hessian it is, in
`of`: "full" (the whole training set), "subset" (a fixed part of it) or "batch" (what one step sees), and carries its
numbers as `metrics`, named ``<what>_<of>``, ready for ``rec.record(**result.metrics)``:

========================== ======================================================================
``h_max_full``             largest eigenvalue ("sharpness")
``h_min_full``             smallest eigenvalue
``h_largest_full``         the k largest, for k > 1 (``h_smallest_full`` likewise)
``trace_full``             Hutchinson's estimate; ``trace_error_full`` its standard error
``batch_sharpness``        mean of g H g / g g over batches; ``batch_sharpness_error`` its standard error
========================== ======================================================================

An eigenvalue has the unit of the loss over that of a weight squared. What weight decay inside an optimiser adds to the
Hessian (its coefficient times the identity, for SGD) is not in the loss and not in these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import Reason
from trajtools.types import Floats

EXTENTS = ("full", "subset", "batch")
WHICH = ("both", "largest", "smallest")
BREAKDOWN = 1e-13  # of the largest eigenvalue: a remainder smaller than this is rounding
LEAST_STEPS = 8  # before an end of the spectrum is believed to have been seen at all
LOOK_EVERY = 4
LARGEST_BASIS = 64
BASIS_BYTES = 2 * 2**30
Product = Callable[[Floats], Any]


class HessianProbes:
    """The probes of the Hessian that `recorders.torch` and `recorders.jax` offer as functions.

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
        tolerance: float = 1e-5,
        max_products: int = 200,
        seed: int = 0,
    ) -> Sharpness:
        """Largest and smallest eigenvalues of the Hessian, by Lanczos over Hessian-vector products.

        Parameters
        ----------
        network : torch.nn.Module, or pytree of arrays
            At the weights where the Hessian is wanted; it is not changed.
        loss_fn : callable
            torch: ``loss_fn(model(x), *targets)`` -> scalar Tensor. JAX: ``loss_fn(params, *batch)`` -> scalar; it is
            compiled once for each function object, so do not define it again for every call.
        *batch : object
            torch: ``x, *targets``. JAX: the arguments of the loss function behind the parameters. Or `Batches`, for the
            mean over many batches.
        k : int
            How many eigenvalues at each end.
        which : {"both", "largest", "smallest"}
            Which end of the spectrum.
        of : {"batch", "subset", "full"}
            What the data are, for the record: what one step sees, a fixed part of the training set, all of it.
        tolerance : float
            An eigenvalue has converged when its residual |H v - h v| is below this times the largest |eigenvalue|. Its
            error is then mostly far smaller (of the order of the residual squared over the distance to its neighbour).
        max_products : int
            Largest number of products; a result that has not converged by then says so.
        seed : int
            Of the first vector; no generator or key of the framework is used.

        Returns
        -------
        Sharpness
            Eigenvalues, vectors and residuals; ``rec.record(**result.metrics)`` records ``h_max_<of>`` and
            ``h_min_<of>``.

        Raises
        ------
        DataError
            If a product is not finite, there is no data, or an argument makes no sense.
        ArchitectureError
            If the network is sharded or has no trainable weights.
        UnknownNameError
            If `which` or `of` is none of the choices above.

        Notes
        -----
        The weights keep their dtype, so in float32 products are good to about 1e-6 of the largest eigenvalue; a float64
        copy of the network is more precise. Basis vectors (float64, on the host) take at most 2 GiB.
        """
        hessian = self._hessian(network, loss_fn, batch)
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
            hessian, hessian.n, smallest=low, largest=high, tolerance=tolerance, max_products=max_products, seed=seed
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
                "n": hessian.n,
            },
            warnings=() if converged else (_unconverged(ends.n_products, float(residuals.max()), ends.scale),),
        )  # fmt: skip

    def hessian_vector_product(self, network: Any, loss_fn: Callable[..., Any], vector: Any, *batch: Any) -> Any:
        """Multiply the Hessian of the loss with a vector.

        Parameters
        ----------
        network, loss_fn : object
            As for `sharpness`.
        vector : array_like of shape (P,); torch: or {name: Tensor}; JAX: or a pytree like the parameters
            Over the trainable weights, in the order of a recorded state; or by their names.
        *batch : object
            As for `sharpness`.

        Returns
        -------
        ndarray of float64, shape (P,), or dict of str to Tensor, or pytree
            H v, in the form of `vector` (JAX: None in the places of leaves that are no weights).

        Raises
        ------
        DataError, ArchitectureError
            If the vector does not fit the weights, or there is no data.
        """
        hessian = self._hessian(network, loss_fn, batch)
        flat, restore = hessian.flatten(vector)
        return restore(hessian(flat))

    def batch_sharpness(self, network: Any, loss_fn: Callable[..., Any], *batch: Any) -> BatchSharpness:
        """Curvature of the loss of a batch along its own gradient, g H g / g g, averaged over batches.

        Parameters
        ----------
        network, loss_fn : object
            As for `sharpness`.
        *batch : object
            One batch, as for `sharpness`; or `Batches`, each of which gives one sample.

        Returns
        -------
        BatchSharpness
            Mean over the batches, its standard error, and the samples.

        Raises
        ------
        DataError, ArchitectureError
            If there is no data, or the network is sharded or has no trainable weights.

        Notes
        -----
        Gradient and Hessian are those of one and the same batch: the mean of the ratios, not the ratio of the means.
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
            As for `sharpness`.
        *batch : object
            As for `sharpness`.
        samples : int
            Random vectors; one Hessian-vector product each.
        of : {"batch", "subset", "full"}
            What the data are, for the record.
        seed : int
            Of the vectors.

        Returns
        -------
        Trace
            With the standard error of the mean; exact for a diagonal Hessian.

        Raises
        ------
        DataError, ArchitectureError, UnknownNameError
            As for `sharpness`.
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
        r"""Density of the Hessian's eigenvalues, by stochastic Lanczos quadrature.

        Parameters
        ----------
        network, loss_fn : object
            As for `sharpness`.
        *batch : object
            As for `sharpness`.
        steps : int
            Lanczos steps m for each vector, fully reorthogonalised; 8 m P bytes are held.
        samples : int
            Random vectors; `steps` Hessian-vector products each.
        of : {"batch", "subset", "full"}
            What the data are, for the record.
        seed : int
            Of the vectors.

        Returns
        -------
        SpectralDensity
            Nodes and weights, with ``.density(at, width)`` and ``.moment(p)``.

        Raises
        ------
        DataError, ArchitectureError, UnknownNameError
            As for `sharpness`.

        Notes
        -----
        For a Rademacher vector z, m Lanczos steps give a tridiagonal matrix whose eigenvalues :math:`t_i` and squared
        first eigenvector components :math:`w_i` are the Gauss quadrature of the spectral measure of z:
        :math:`z^T f(H) z / P = \sum_i w_i f(t_i)` for polynomials f up to degree 2 m - 1. The mean over z is
        :math:`\mathrm{tr} f(H) / P`, so the density is the mean of :math:`\sum_i w_i \delta(t - t_i)`, which `density`
        smooths with a Gaussian whose width the user chooses.
        """
        hessian = self._hessian(network, loss_fn, batch)
        check_extent(of)
        _check_samples(samples)
        if steps < 1:
            raise DataError(f"steps={steps}: at least one Lanczos step is needed, 50 to 100 are usual")
        rng = np.random.default_rng(seed)
        nodes, weights = np.zeros((2, samples, min(steps, hessian.n)))
        for i in range(samples):
            t, w = quadrature(hessian, rademacher(hessian.n, rng), steps, rng)
            nodes[i, : len(t)], nodes[i, len(t) :], weights[i, : len(w)] = t, t[-1], w
        settings = {"steps": steps, "samples": samples, "of": of, "seed": seed, "n": hessian.n}
        return SpectralDensity(nodes, weights, hessian.n, of, settings)


class Hessian(Protocol):
    """The Hessian of a loss at the weights of a network, on one batch or on `Batches`; each framework has one."""

    n: int

    def __call__(self, vector: Floats) -> Floats:
        """Multiply a vector, shape (n,)."""
        ...

    def flatten(self, vector: Any) -> tuple[Floats, Callable[[Floats], Any]]:
        """Lay a vector out, shape (n,); the second is a function that gives a product the form of the vector."""
        ...

    def along_gradients(self) -> Iterable[tuple[float, float]]:
        """Give g H g and g g of each batch, with its own gradient g and its own Hessian H."""
        ...


@dataclass(frozen=True, eq=False)
class Sharpness:
    """Eigenvalues at the ends of a Hessian's spectrum.

    Attributes
    ----------
    largest : ndarray of float64, shape (k,)
        Largest eigenvalues, largest first; empty if not computed.
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
    warnings : tuple of Reason
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
    warnings: tuple[Reason, ...] = ()

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
        """The numbers under the names by which they are recorded."""
        metrics: dict[str, Any] = {}
        for end, short, values in (("largest", "h_max", self.largest), ("smallest", "h_min", self.smallest)):
            if len(values):
                metrics[f"{short}_{self.of}"] = float(values[0])
            if len(values) > 1:
                metrics[f"h_{end}_{self.of}"] = values
        return metrics


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


class Batches:
    """Many batches that stand for one data set, for data that do not go through the model at once.

    Parameters
    ----------
    source : iterable of batches
        Gone through again for every Hessian-vector product, so a generator will not do: a `DataLoader` or a list. Each
        batch is a tuple ``(x, *targets)``, the arguments of a probe behind the loss function.
    reduction : {"mean", "sum"}
        What the loss function does over the examples of a batch. "mean": batches are averaged, each with the weight of
        its number of examples; "sum": they are added.

    Raises
    ------
    UnknownNameError
        If the reduction is neither.
    DataError
        If the source can be gone through once only.

    Notes
    -----
    A loader that shuffles or augments draws random numbers. They are drawn from the same state for every product, and
    the generators stand afterwards where they stood before. A generator of the loader's own (``generator=``) is not
    seen: give such a loader's batches as a list.
    """

    def __init__(self, source: Iterable[Any], *, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise UnknownNameError(f'reduction={reduction!r}: it must be "mean" or "sum", as the loss function does')
        if hasattr(source, "__next__"):  # asking iter() would draw from the generators of a loader
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
        raise DataError("Batches hold inputs and targets: pass them alone, after the loss function")
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
        f"a batch {type(batch).__name__} has no number of examples: its first array needs a leading axis over them, "
        'or use Batches(..., reduction="sum") with a loss function that sums'
    )


def check_extent(of: str) -> str:
    """Check the label that says whose Hessian is measured."""
    if of not in EXTENTS:
        raise UnknownNameError(f'of={of!r}: choose the Hessian: "full", "subset" or "batch"')
    return of


def _unconverged(n_products: int, residual: float, scale: float) -> Reason:
    return Reason.of(
        "not-converged",
        "not converged after {products} products: the worst residual is {residual:.2g}, the largest |eigenvalue| "
        "{scale:.3g}. Raise max_products, or the tolerance to what the dtype can give (float32: about 1e-5)",
        products=n_products,
        residual=residual,
        scale=scale,
    )


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise DataError(f"samples={samples}: at least one random vector is needed, two for a standard error")


def of_length(vector: Any, n: int) -> Floats:
    """Check a flat vector."""
    flat: Floats = np.asarray(vector, np.float64)
    if flat.shape != (n,):
        raise DataError(f"the vector has shape {flat.shape}; there are {n} weights, so pass ({n},)")
    return flat


def mean_and_error(samples: Floats) -> tuple[float, float]:
    """Mean and its standard error; NaN where the numbers do not tell."""
    if not len(samples):
        return float("nan"), float("nan")
    error = float(samples.std(ddof=1) / np.sqrt(len(samples))) if len(samples) > 1 else float("nan")
    return float(samples.mean()), error


def rademacher(n: int, rng: np.random.Generator) -> Floats:
    """Draw a vector of signs."""
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
) -> Ends:
    """Eigenvalues at the ends of the spectrum, by Lanczos with full reorthogonalisation and thick restarts.

    Notes
    -----
    The residual is measured against the largest |eigenvalue| and not against each eigenvalue, because products are
    rounded on that scale: no method can resolve an eigenvalue of 1e-9 beside one of 1e3. An eigenvalue that occurs
    several times is seen once, as in every method that starts from one vector; for n <= 64 all n directions are looked
    at, and multiplicities are right.
    """
    rng = np.random.default_rng(seed)
    wanted = smallest + largest
    basis = Basis(product, n, room_for(n, wanted), rng.standard_normal(n), rng)
    while True:
        basis.grow()
        full = basis.size == basis.room or basis.n_products >= max_products
        if basis.size % LOOK_EVERY and basis.beta > 0.0 and not full:
            continue  # the eigenvalues seen in the basis cost as much as a product of a small model
        values, weights = basis.ritz()
        at = _at_the_ends(basis.size, smallest, largest)
        scale = float(np.abs(values).max())
        residuals = basis.beta * np.abs(weights[-1, at])
        # A recurrence that ends has seen one of each eigenvalue; every new start may show one more of the same.
        everything = basis.size == n or basis.n_breakdowns > wanted
        seen = basis.size >= max(wanted + 2, LEAST_STEPS) and n > LARGEST_BASIS and basis.beta > 0.0
        if everything or basis.n_products >= max_products or (seen and bool((residuals <= tolerance * scale).all())):
            vectors = weights[:, at].T @ basis.vectors[: basis.size]
            return Ends(values[at], vectors, residuals, scale, basis.n_products)
        if basis.size == basis.room:
            basis.shrink(values, weights, _at_the_ends(basis.size, *_kept(basis.room, smallest, largest)))


@dataclass(frozen=True)
class Ends:
    """Eigenvalues at the ends of a spectrum.

    Attributes
    ----------
    values : ndarray of float64, shape (j,)
        Eigenvalues, ascending: the smallest wanted, then the largest wanted.
    vectors : ndarray of float64, shape (j, n)
        Their unit vectors, row by row.
    residuals : ndarray of float64, shape (j,)
        |H v - value v| as the recurrence tells; an eigenvalue lies that near.
    scale : float
        Largest |eigenvalue| seen, which the tolerance refers to.
    n_products : int
        Products that were made.
    """

    values: Floats
    vectors: Floats
    residuals: Floats
    scale: float
    n_products: int


def _at_the_ends(size: int, smallest: int, largest: int) -> Any:
    """Positions of the smallest and the largest among `size` ascending values, each once."""
    smallest, largest = min(smallest, size), min(largest, size)
    return np.unique(np.r_[0:smallest, size - largest : size])


def _kept(room: int, smallest: int, largest: int) -> tuple[int, int]:
    """How many Ritz vectors outlive a restart at each end: those wanted, and company that speeds them up."""
    spare = max((room - smallest - largest) // 4, 1)
    return (smallest + spare if smallest else 0), (largest + spare if largest else 0)


def room_for(n: int, wanted: int) -> int:
    """How many basis vectors of n float64 numbers are held: what 2 GiB allow, at least what the search needs."""
    least = 2 * wanted + 6
    return min(n, max(least, min(max(LARGEST_BASIS, 4 * wanted), BASIS_BYTES // (8 * n))))


def quadrature(product: Product, start: Floats, steps: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    r"""Gauss quadrature of the spectrum as a vector sees it."""
    basis = Basis(product, len(start), steps, start, rng)
    while basis.size < basis.room:
        basis.grow()
        if basis.beta == 0.0:
            break  # an invariant subspace: the quadrature is exact already
    nodes, weights = basis.ritz()
    return nodes, weights[0] ** 2


class Basis:
    """An orthonormal basis that grows by one product at a time, and the matrix seen in it."""

    def __init__(self, product: Product, n: int, room: int, start: Floats, rng: np.random.Generator) -> None:
        self.product, self.n, self.room, self.rng = product, n, min(room, n), rng
        self.vectors = np.empty((self.room, n))
        self.matrix = np.zeros((self.room, self.room))
        self.size = self.n_products = self.n_breakdowns = 0
        self.rest = start / np.linalg.norm(start)  # unit vector: where the next product is taken
        self.beta = 0.0  # length of what the last product had outside of the basis

    def grow(self) -> None:
        """Take the product at the newest direction, and keep what of it is new."""
        size, vector = self.size, self.rest
        self.vectors[size] = vector
        new = np.asarray(self.product(vector), np.float64)
        self.n_products += 1
        if not np.isfinite(new).all():
            raise DataError(
                "a Hessian-vector product is not finite: the loss, its gradient or its curvature is NaN or infinite at "
                "these weights. Probe before the training diverges, or find the entry that is not finite"
            )
        shares, new = self._split(new)
        self.matrix[: size + 1, size] = self.matrix[size, : size + 1] = shares
        self.size += 1
        self.beta = float(np.linalg.norm(new))
        scale = max(float(np.abs(shares).max()), self.beta)
        if self.beta <= BREAKDOWN * scale:
            self.beta = 0.0
            self.n_breakdowns += 1
            new = self._elsewhere()
        self.rest = new / (self.beta or 1.0)

    def _split(self, new: Floats) -> tuple[Floats, Floats]:
        """Shares of a product in the basis vectors, and what is orthogonal to all of them."""
        inside = self.vectors[: self.size + 1]
        last = inside[-2:]
        shares = np.zeros(len(inside))
        shares[-len(last) :] = last @ new
        new = new - shares[-len(last) :] @ last
        # In exact arithmetic that was all, but for the step after a restart. One pass over the whole basis removes what
        # rounding has left; a second one is needed only where the first has taken away most of the vector.
        for _ in range(2):
            before = np.linalg.norm(new)
            more = inside @ new
            new -= more @ inside
            shares += more
            if np.linalg.norm(new) > 0.7 * before:
                break
        return shares, new

    def _elsewhere(self) -> Floats:
        """A unit vector that the basis does not hold; zero where it holds everything."""
        if self.size >= self.n:
            return np.zeros(self.n)
        inside = self.vectors[: self.size]
        new = self.rng.standard_normal(self.n)
        for _ in range(2):
            new -= (inside @ new) @ inside
        return new / np.linalg.norm(new)

    def ritz(self) -> tuple[Floats, Floats]:
        """Eigenvalues (ascending) and eigenvectors (columns) of the matrix seen in the basis."""
        values, weights = np.linalg.eigh(self.matrix[: self.size, : self.size])
        return values, weights

    def shrink(self, values: Floats, weights: Floats, keep: Any) -> None:
        """Keep some Ritz vectors alone (thick restart); the newest direction goes on from there."""
        retained = weights[:, keep].T @ self.vectors[: self.size]
        self.size = len(retained)
        self.vectors[: self.size] = retained
        self.matrix[:] = 0.0
        np.fill_diagonal(self.matrix[: self.size, : self.size], values[keep])
