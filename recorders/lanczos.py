"""Eigenvalues of a symmetric matrix that is known by its products with vectors: Lanczos, reorthogonalised in full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.errors import DataError

Floats = np.ndarray[Any, np.dtype[np.float64]]
Product = Callable[[Floats], Any]

BREAKDOWN = 1e-13  # of the largest eigenvalue: a remainder smaller than this is rounding
LEAST_STEPS = 8  # before an end of the spectrum is believed to have been seen at all
LOOK_EVERY = 4
LARGEST_BASIS = 64
BASIS_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Ends:
    """What `ends` found.

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
                "these weights. Probe before the training diverges, or look for the entry that is not finite"
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
        kept = weights[:, keep].T @ self.vectors[: self.size]
        self.size = len(kept)
        self.vectors[: self.size] = kept
        self.matrix[:] = 0.0
        np.fill_diagonal(self.matrix[: self.size, : self.size], values[keep])


def room_for(n: int, wanted: int) -> int:
    """How many basis vectors of n float64 numbers are held: what 2 GiB allow, at least what the search needs."""
    least = 2 * wanted + 6
    return min(n, max(least, min(max(LARGEST_BASIS, 4 * wanted), BASIS_BYTES // (8 * n))))


def ends(
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


def _at_the_ends(size: int, smallest: int, largest: int) -> Any:
    """Positions of the smallest and the largest among `size` ascending values, each once."""
    smallest, largest = min(smallest, size), min(largest, size)
    return np.unique(np.r_[0:smallest, size - largest : size])


def _kept(room: int, smallest: int, largest: int) -> tuple[int, int]:
    """How many Ritz vectors outlive a restart at each end: those wanted, and company that speeds them up."""
    spare = max((room - smallest - largest) // 4, 1)
    return (smallest + spare if smallest else 0), (largest + spare if largest else 0)


def quadrature(product: Product, start: Floats, steps: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    r"""Gauss quadrature of the spectrum as a vector sees it."""
    basis = Basis(product, len(start), steps, start, rng)
    while basis.size < basis.room:
        basis.grow()
        if basis.beta == 0.0:
            break  # an invariant subspace: the quadrature is exact already
    nodes, weights = basis.ritz()
    return nodes, weights[0] ** 2
