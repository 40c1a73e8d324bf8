"""Curvature of a loss at the weights of a pytree, beside the training."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from recorders import spectra
from recorders.curvature import BatchSharpness, Sharpness, SpectralDensity, Trace
from recorders.jax.objective import Hessian, LossFunction


def hessian_vector_product(params: Any, loss_fn: LossFunction, vector: Any, *batch: Any) -> Any:
    """Multiply the Hessian of the loss with a vector.

    Parameters
    ----------
    params : pytree of arrays
        The weights where the Hessian is wanted; leaves that are no floating-point arrays stay as they are.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar. Compiled once for each function object: do not make it anew every time.
    vector : array_like of shape (P,), or pytree
        Over the weights, in the order of a recorded state; or a tree like `params`.
    *batch : object
        Arguments of the loss function behind the parameters; or `Batches`, for the mean over many batches.

    Returns
    -------
    ndarray of float64, shape (P,), or pytree
        H v, in the form of `vector` (None in the places of other leaves).

    Raises
    ------
    DataError, ArchitectureError
        If the vector does not fit the weights, or there is no data.

    Examples
    --------
    >>> def loss_fn(params, x):
    ...     return (x @ params["w"]) ** 2
    >>> hessian_vector_product({"w": jax.numpy.ones(2)}, loss_fn, [1.0, 0.0], np.array([3.0, 1.0]))
    array([18.,  6.])
    """
    hessian = Hessian(params, loss_fn, batch)
    if not _is_flat(vector):
        tangents = hessian.objective.picked(vector)
        return hessian.objective.tree(hessian.objective.unflat(hessian(hessian.objective.flat(tangents))))
    return hessian(spectra.of_length(vector, hessian.n))


def _is_flat(vector: Any) -> bool:
    """Whether a vector came as an array or a list of numbers, and not as a tree."""
    if isinstance(vector, list | tuple):
        return all(isinstance(entry, float | int | np.number) for entry in vector)
    return isinstance(vector, np.ndarray | jax.Array)


def sharpness(
    params: Any,
    loss_fn: LossFunction,
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
    params : pytree of arrays
        The weights where the Hessian is wanted; leaves that are no floating-point arrays stay as they are.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar. Compiled once for each function object: do not make it anew every time.
    *batch : object
        Arguments of the loss function behind the parameters; or `Batches`, for the mean over many batches.
    k : int
        How many eigenvalues at each end.
    which : {"both", "largest", "smallest"}
        Which end of the spectrum.
    of : {"batch", "subset", "full"}
        What the data are, for the record: what one step sees, a fixed part of the training set, all of it.
    tolerance : float
        An eigenvalue is done when its residual |H v - h v| is below this times the largest |eigenvalue|. Its error is
        then mostly far smaller (of the order of the residual squared over the distance to its neighbour).
    max_products : int
        Stop after so many products in any case; the result says so.
    seed : int
        Of the first vector; no key of JAX is used.

    Returns
    -------
    Sharpness
        Eigenvalues, vectors and residuals; ``rec.record(**found.metrics)`` records ``h_max_<of>`` and ``h_min_<of>``.

    Raises
    ------
    DataError
        If a product is not finite, there is no data, or an argument makes no sense.
    ArchitectureError
        If the tree holds no floating-point array, or one that is spread over processes.
    UnknownNameError
        If `which` or `of` is none of the words above.

    Notes
    -----
    The weights keep their dtype, so in float32 products are good to about 1e-6 of the largest eigenvalue; a float64
    copy tells more (with ``jax_enable_x64``). Basis vectors (float64, on the host) take at most 2 GiB.

    Examples
    --------
    >>> def loss_fn(params, x):
    ...     return (x @ params["w"]) ** 2
    >>> found = sharpness({"w": jax.numpy.ones(2)}, loss_fn, np.array([3.0, 1.0]), of="full")
    >>> round(found.h_max, 4), abs(round(found.h_min, 4)), found.converged
    (20.0, 0.0, True)
    """
    hessian = Hessian(params, loss_fn, batch)
    return spectra.extremes(
        hessian, hessian.n, k=k, which=which, of=of, tolerance=tolerance, max_products=max_products, seed=seed
    )


def batch_sharpness(params: Any, loss_fn: LossFunction, *batch: Any) -> BatchSharpness:
    """Curvature of the loss of a batch along its own gradient, g H g / g g, averaged over batches.

    Parameters
    ----------
    params : pytree of arrays
        The weights where it is wanted; leaves that are no floating-point arrays stay as they are.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar. Compiled once for each function object: do not make it anew every time.
    *batch : object
        Arguments of the loss function behind the parameters; or `Batches`, each of which gives one sample.

    Returns
    -------
    BatchSharpness
        Mean over the batches, its standard error, and the samples.

    Raises
    ------
    DataError, ArchitectureError
        If there is no data, or the tree holds no floating-point array.

    Notes
    -----
    Gradient and Hessian are those of one and the same batch: the mean of the ratios, not the ratio of the means.
    """
    hessian = Hessian(params, loss_fn, batch)
    pairs = []
    for _, data in hessian.batches():
        gradient = hessian.gradient(data)
        g, hg = hessian.objective.flat(gradient), hessian.objective.flat(hessian.times(gradient, data))
        pairs.append((float(g @ hg), float(g @ g)))
    return spectra.along_gradients(pairs)


def trace(
    params: Any, loss_fn: LossFunction, *batch: Any, samples: int = 30, of: str = "batch", seed: int = 0
) -> Trace:
    """Trace of the Hessian, by Hutchinson's method with Rademacher vectors.

    Parameters
    ----------
    params : pytree of arrays
        The weights where the Hessian is wanted; leaves that are no floating-point arrays stay as they are.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar. Compiled once for each function object: do not make it anew every time.
    *batch : object
        Arguments of the loss function behind the parameters; or `Batches`, for the mean over many batches.
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
    hessian = Hessian(params, loss_fn, batch)
    return spectra.hutchinson(hessian, hessian.n, samples=samples, of=of, seed=seed)


def spectral_density(
    params: Any,
    loss_fn: LossFunction,
    *batch: Any,
    steps: int = 80,
    samples: int = 10,
    of: str = "batch",
    seed: int = 0,
) -> SpectralDensity:
    r"""Density of the Hessian's eigenvalues, by stochastic Lanczos quadrature.

    Parameters
    ----------
    params : pytree of arrays
        The weights where the Hessian is wanted; leaves that are no floating-point arrays stay as they are.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar. Compiled once for each function object: do not make it anew every time.
    *batch : object
        Arguments of the loss function behind the parameters; or `Batches`, for the mean over many batches.
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
    hessian = Hessian(params, loss_fn, batch)
    return spectra.lanczos_quadrature(hessian, hessian.n, steps=steps, samples=samples, of=of, seed=seed)
