"""How many pairs of states are closer than a radius (Grassberger and Procaccia 1983)."""

from __future__ import annotations

from typing import Any

from trajtools.estimators.pairs import find_pairs, sum_of
from trajtools.results.correlation_sum import CorrelationSum


def correlation_sum(x: Any, radii: Any = None, *, metric: Any = "l2", theiler: int | None = None) -> CorrelationSum:
    r"""How many pairs of states are closer than a radius, exactly and for all radii in one pass.

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or Distances, shape (T, T)
        States of one trajectory, or their distances. States that hold NaN or inf are left out and counted.
    radii : array_like of float or None, shape (R,)
        None: from the distance of the nearest neighbours to the diameter, four an octave.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"`` or ``"precomputed"`` (then `x` is an array of distances); any other name or
        function goes to `trajtools.pairwise`, as all states of more than 20 dimensions do. Distances know theirs.
    theiler : int or None, in samples
        Pairs with ``abs(i - j) < theiler`` are not counted. None: three times the longest correlation time of the
        coordinates, see `theiler_window`; for distances, the lag at which the separation in time is lost.

    Returns
    -------
    CorrelationSum
        Counts are whole numbers; pairs at exactly the radius are inside.

    Raises
    ------
    DataError
        If the data cannot be analysed so, or no two states differ.
    UnknownNameError
        If the metric is unknown.
    TooLargeError
        If the distances of so many high-dimensional states do not fit in memory; the message names the way out.

    Notes
    -----
    .. math:: C(r) = \frac{2}{(N - w)(N - w + 1)} \sum_{j - i \ge w} \Theta(r - d_{ij}), \quad \Theta(0) = 1

    with the Theiler window w [2]_, the number of pairs replaced by the true one where states are left out. Pairs of few
    dimensions are counted in a k-d tree: a node whose points all fall between the same two radii is counted whole.

    References
    ----------
    .. [1] P. Grassberger, I. Procaccia, Physica D 9, 189 (1983), doi:10.1016/0167-2789(83)90298-1
    .. [2] J. Theiler, Phys. Rev. A 34, 2427 (1986), doi:10.1103/PhysRevA.34.2427

    Examples
    --------
    >>> import trajtools as tt
    >>> c = tt.correlation_sum([0.0, 3.0, 1.0, 7.0], radii=[1, 3, 4], theiler=1)
    >>> c.counts.tolist(), c.n_pairs
    ([1, 3, 4], 6)
    """
    return sum_of(find_pairs(x, metric=metric, theiler=theiler), radii)
