"""Estimates of a Hessian's spectrum from its products with vectors: both ends, trace, density; and along gradients.

What `recorders.torch` and `recorders.jax` offer by the names of `sharpness`, `trace`, `spectral_density` and
`batch_sharpness`, for any product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recorders.curvature import BatchSharpness, Sharpness, SpectralDensity, Trace, label, mean_and_error
from recorders.lanczos import Floats, Product, ends, quadrature
from trajtools.errors import DataError, UnknownNameError

WHICH = ("both", "largest", "smallest")


def extremes(
    product: Product, n: int, *, k: int, which: str, of: str, tolerance: float, max_products: int, seed: int
) -> Sharpness:
    """Find the ends of a spectrum, see `recorders.torch.sharpness`."""
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
    """Estimate a trace, see `recorders.torch.trace`."""
    label(of)
    _some(samples)
    rng = np.random.default_rng(seed)
    found = np.empty(samples)
    for i in range(samples):
        z = rademacher(n, rng)
        found[i] = z @ np.asarray(product(z), np.float64)
    if not np.isfinite(found).all():
        raise DataError("a Hessian-vector product is not finite: the loss or its curvature is NaN or infinite here")
    value, error = mean_and_error(found)
    return Trace(value, error, found, of, {"samples": samples, "of": of, "seed": seed, "n": n})


def lanczos_quadrature(product: Product, n: int, *, steps: int, samples: int, of: str, seed: int) -> SpectralDensity:
    """Estimate a spectral density, see `recorders.torch.spectral_density`."""
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
    """Average g H g / g g over batches."""
    numbers = np.array(pairs, np.float64).reshape(-1, 2)
    moving = numbers[:, 1] > 0
    samples = np.full(len(numbers), np.nan)
    samples[moving] = numbers[moving, 0] / numbers[moving, 1]
    value, error = mean_and_error(samples[moving])
    return BatchSharpness(
        value, error, samples, {"n_batches": len(samples), "n_without_gradient": int((~moving).sum())}
    )


def rademacher(n: int, rng: np.random.Generator) -> Floats:
    """Draw a vector of signs."""
    return np.where(rng.integers(0, 2, n) == 1, 1.0, -1.0)


def _some(samples: int) -> None:
    if samples < 1:
        raise DataError(f"samples={samples}: at least one random vector is needed, two for a standard error")


def of_length(vector: Any, n: int) -> Floats:
    """Check a flat vector."""
    found: Floats = np.asarray(vector, np.float64)
    if found.shape != (n,):
        raise DataError(f"the vector has shape {found.shape}; there are {n} weights, so give ({n},)")
    return found
