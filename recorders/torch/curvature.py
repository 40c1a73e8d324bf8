"""Curvature of a torch model's loss at its weights, measured without touching the training."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recorders import spectra
from recorders.curvature import BatchSharpness, Sharpness, SpectralDensity, Trace
from recorders.torch.objective import Hessian, LossFunction, like


def hessian_vector_product(model: nn.Module, loss_fn: LossFunction, vector: Any, *batch: Any) -> Any:
    """Multiply the Hessian of the loss with a vector.

    Parameters
    ----------
    model : torch.nn.Module
        At the weights where the Hessian is wanted; it is not changed, see `recorders.torch.objective`.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    vector : array_like of shape (P,), or {name: Tensor}
        Over the trainable parameters, in the order of a recorded state; or by their names.
    *batch : object
        ``x, *targets``; or `Batches`, for the mean over many batches.

    Returns
    -------
    ndarray of float64, shape (P,), or dict of str to Tensor
        H v, in the form of `vector`.

    Raises
    ------
    DataError, ArchitectureError
        If the vector does not fit the model, or there is no data.

    Examples
    --------
    >>> import torch
    >>> model = nn.Linear(2, 1, bias=False)
    >>> hessian_vector_product(model, nn.MSELoss(), [1.0, 0.0], torch.tensor([[3.0, 1.0]]), torch.zeros(1, 1))
    array([18.,  6.])
    """
    hessian = Hessian(model, loss_fn, batch)
    if not hasattr(vector, "keys"):
        if isinstance(vector, Tensor):
            vector = vector.detach().double().cpu().numpy()
        return hessian(spectra.of_length(vector, hessian.n))
    objective = hessian.objective
    found = hessian(objective.flat(like(objective.names, objective.shapes, vector)))
    return dict(zip(objective.names, objective.unflat(found), strict=True))


def sharpness(
    model: nn.Module,
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
    model : torch.nn.Module
        At the weights where the Hessian is wanted; it is not changed, see `recorders.torch.objective`.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    *batch : object
        ``x, *targets``; or `Batches`, for the mean over many batches.
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
        Of the first vector; no generator of torch is drawn from.

    Returns
    -------
    Sharpness
        Eigenvalues, vectors and residuals; ``rec.record(**found.metrics)`` records ``h_max_<of>`` and ``h_min_<of>``.

    Raises
    ------
    DataError
        If a product is not finite, there is no data, or an argument makes no sense.
    ArchitectureError
        If the model is sharded or has nothing to train.
    UnknownNameError
        If `which` or `of` is none of the words above.

    Notes
    -----
    The weights keep their dtype, so in float32 products are good to about 1e-6 of the largest eigenvalue; a float64
    copy of the model tells more. Basis vectors (float64, on the host) take at most 2 GiB.

    Examples
    --------
    >>> import torch
    >>> model = nn.Linear(2, 1, bias=False)
    >>> found = sharpness(model, nn.MSELoss(), torch.tensor([[3.0, 1.0]]), torch.zeros(1, 1), of="full")
    >>> round(found.h_max, 4), abs(round(found.h_min, 4)), found.converged
    (20.0, 0.0, True)
    """
    hessian = Hessian(model, loss_fn, batch)
    return spectra.extremes(
        hessian, hessian.n, k=k, which=which, of=of, tolerance=tolerance, max_products=max_products, seed=seed
    )


def batch_sharpness(model: nn.Module, loss_fn: LossFunction, *batch: Any) -> BatchSharpness:
    """Curvature of the loss of a batch along its own gradient, g H g / g g, averaged over batches.

    Parameters
    ----------
    model : torch.nn.Module
        At the weights where it is wanted; it is not changed, see `recorders.torch.objective`.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    *batch : object
        ``x, *targets`` of one batch; or `Batches`, each of which gives one sample.

    Returns
    -------
    BatchSharpness
        Mean over the batches, its standard error, and the samples.

    Raises
    ------
    DataError, ArchitectureError
        If there is no data, or the model is sharded or has nothing to train.

    Notes
    -----
    Gradient and Hessian are those of one and the same batch: the mean of the ratios, not the ratio of the means.
    """
    hessian = Hessian(model, loss_fn, batch)
    pairs = []
    for _, slope in hessian.slopes():
        gradient = [part.detach() for part in slope.gradient]
        g, hg = hessian.objective.flat(gradient), hessian.objective.flat(slope.times(gradient))
        pairs.append((float(g @ hg), float(g @ g)))
    return spectra.along_gradients(pairs)


def trace(
    model: nn.Module, loss_fn: LossFunction, *batch: Any, samples: int = 30, of: str = "batch", seed: int = 0
) -> Trace:
    """Trace of the Hessian, by Hutchinson's method with Rademacher vectors.

    Parameters
    ----------
    model : torch.nn.Module
        At the weights where the Hessian is wanted; it is not changed, see `recorders.torch.objective`.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    *batch : object
        ``x, *targets``; or `Batches`, for the mean over many batches.
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
    hessian = Hessian(model, loss_fn, batch)
    return spectra.hutchinson(hessian, hessian.n, samples=samples, of=of, seed=seed)


def spectral_density(
    model: nn.Module,
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
    model : torch.nn.Module
        At the weights where the Hessian is wanted; it is not changed, see `recorders.torch.objective`.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    *batch : object
        ``x, *targets``; or `Batches`, for the mean over many batches.
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
    hessian = Hessian(model, loss_fn, batch)
    return spectra.lanczos_quadrature(hessian, hessian.n, steps=steps, samples=samples, of=of, seed=seed)
