"""What the user chose for an exponent, and how the words of the command line become it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from trajtools.neighbors.rules import NearestK, WithinRadius


@dataclass(frozen=True)
class Choices:
    """What the user chose; the defaults are those of the library.

    Attributes
    ----------
    method : str
        An estimator, or ``"auto"``: twins where the run has some and nothing is asked that only neighbours know.
    metric, average : str or None
        Distance between states, and how copies are averaged; None: as the estimator does by itself.
    select : tuple of str
        Globs of parameter names; empty for all.
    window : (int, int) or None
        Steps of the training that are looked at, [start, stop).
    region : (float, float) or None
        Where the line is fitted, in the time unit since the perturbation; None chooses.
    procedure : str or None
        A published procedure instead of ours.
    level : float
        Confidence level.
    seed : int
        Of the resampling.
    member : int or None
        The member whose trajectory is looked at; None: twins, or the first.
    series : str or None
        A metric that is looked at instead of the weights; columns of a table, with commas between them.
    neighbors : NearestK, WithinRadius or None
        Rule of the estimator.
    theiler, horizon : int or None, in samples
        None: chosen from the data.
    embed : (int, int) or None
        Dimension and delay; None: chosen for a series, none for states.
    null : str
        Name of a null, ``"auto"`` or ``"none"``.
    surrogates : int
        Records drawn from the null.
    buffers : bool or None
        Whether recorded buffers of the optimiser are joined to the weights; None: where there are any.
    dt : float or None
        Time between two samples (twins: two steps) in a unit of the user's own.
    per : str or None
        Unit in which the exponent is stated.
    steps_per_epoch : float or None
        For ``per="epoch"``.
    windows : (int, int) or None
        Length of windows and the step from one to the next.
    """

    method: str = "auto"
    metric: str | None = None
    average: str | None = None
    select: tuple[str, ...] = ()
    window: tuple[int, int] | None = None
    region: tuple[float, float] | None = None
    procedure: str | None = None
    level: float = 0.95
    seed: int = 0
    member: int | None = None
    series: str | None = None
    neighbors: NearestK | WithinRadius | None = None
    theiler: int | None = None
    horizon: int | None = None
    embed: tuple[int, int] | None = None
    null: str = "auto"
    surrogates: int = 99
    buffers: bool | None = None
    dt: float | None = None
    per: str | None = None
    steps_per_epoch: float | None = None
    windows: tuple[int, int] | None = None

    @property
    def only_neighbors(self) -> tuple[str, ...]:
        """The options that were given and that twins do not know."""
        names = ("member", "series", "neighbors", "theiler", "horizon", "embed", "buffers")
        given = {name: getattr(self, name) for name in names}
        return tuple(f"--{name}" for name, value in given.items() if value is not None)


def span(kind: type[int] | type[float]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return what reads START:STOP.

    Parameters
    ----------
    kind : int or float
        What the ends are.

    Returns
    -------
    callable
        A callback for an option: text -> (start, stop), None stays None.
    """

    def read(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            start, stop = (kind(word) for word in value.split(":"))
        except ValueError:
            raise click.BadParameter(f"{value!r} is not of the form START:STOP, such as 20:80") from None
        if not start < stop:
            raise click.BadParameter(f"{value!r} is empty: START must lie below STOP")
        return start, stop

    return read


def rule(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> NearestK | WithinRadius | None:
    """Read a rule for neighbours: a whole number is how many, other numbers are radii.

    Parameters
    ----------
    _ctx, _parameter : object
        Of the command line.
    value : str or None
        ``K``, ``R`` or ``R,R,...``.

    Returns
    -------
    NearestK, WithinRadius or None
        None for None.
    """
    if value is None:
        return None
    try:
        if value.isdigit() and int(value) > 0:
            return NearestK(int(value))
        radii = [float(word) for word in value.split(",")]
        return WithinRadius(radii[0] if len(radii) == 1 else radii)
    except ValueError:  # what the rules refuse is one, too
        raise click.BadParameter(
            f"{value!r} is neither a number of neighbours, such as 4, nor a radius, such as 0.05 (several: 0.01,0.02)"
        ) from None


def embedding(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read an embedding.

    Parameters
    ----------
    _ctx, _parameter : object
        Of the command line.
    value : str or None
        ``DIM,DELAY``, ``DIM`` or ``auto``.

    Returns
    -------
    (int, int) or None
        Dimension and delay; None for ``auto``.
    """
    if value is None or value == "auto":
        return None
    found = _whole(value)
    if found is None or len(found) > 2:
        raise click.BadParameter(f"{value!r} is neither DIM,DELAY, such as 3,5, nor auto")
    return found[0], found[-1] if len(found) == 2 else 1


def lengths(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read windows.

    Parameters
    ----------
    _ctx, _parameter : object
        Of the command line.
    value : str or None
        ``W`` or ``W,S``.

    Returns
    -------
    (int, int) or None
        Length and the step from one to the next.
    """
    if value is None:
        return None
    found = _whole(value)
    if found is None or len(found) > 2 or found[0] < 2:
        raise click.BadParameter(
            f"{value!r} is neither a length of 2 steps or more, such as 500, nor W,S, such as 500,100"
        )
    return found[0], found[-1]


def _whole(value: str) -> list[int] | None:
    """Positive whole numbers with commas between them, or None."""
    words = value.split(",")
    return [int(word) for word in words] if all(word.isdigit() and int(word) > 0 for word in words) else None
