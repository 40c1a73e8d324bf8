"""What packages mean by the same names: named conventions of recurrence quantification."""

from __future__ import annotations

from dataclasses import dataclass

from trajtools.errors import DataError, UnknownNameError


@dataclass(frozen=True)
class Convention:
    """How recurrences and lines are counted, and how measures are made of them.

    Attributes
    ----------
    name : str
        Package, or ``"standard"``.
    inclusive : bool
        A pair at the threshold recurs (distance <= threshold), else it does not (distance < threshold).
    everywhere : bool
        The Theiler window applies to every measure, else to diagonal lines alone: recurrence rate and vertical lines
        then count the line of identity and all that is near it.
    least_window, largest_window : int or None, in samples
        Theiler windows that the package knows; None: no bound.
    epsilon : float
        Added to every denominator.
    none : float
        A mean length of no lines.
    no_entropy : float
        The entropy of no lines.
    no_share : float
        A share of no recurrences.
    times : str
        Recurrence times: ``"entries"``: from the beginning of a vertical line to the beginning of the next in the same
        column, on the same side of the Theiler window; ``"middles"``: the white cells between two lines and half of
        each, rounded down, also across the window; ``"white"``: all white vertical lines, those cut by a border too.
    wmin : int, in samples
        Shortest recurrence time that counts.
    trend : str
        ``"least-squares"``, or ``"shifted"``: the package's formula, whose lags are centred half a lag too low.
    """

    name: str
    inclusive: bool = True
    everywhere: bool = True
    least_window: int = 0
    largest_window: int | None = None
    epsilon: float = 0.0
    none: float = float("nan")
    no_entropy: float = float("nan")
    no_share: float = float("nan")
    times: str = "entries"
    wmin: int = 1
    trend: str = "least-squares"

    def windows(self, theiler: int) -> tuple[int, int]:
        """Theiler windows of diagonal and of vertical lines."""
        return theiler, theiler if self.everywhere else 0

    def check_window(self, theiler: int) -> None:
        """Refuse a Theiler window that the package does not have."""
        largest = self.largest_window
        if theiler < self.least_window or (largest is not None and theiler > largest):
            raise DataError(
                f"convention {self.name!r} has theiler={self.least_window} and no other; theiler={theiler} needs "
                "convention 'standard'"
            )


CONVENTIONS = {
    "standard": Convention("standard"),
    "pyunicorn": Convention(
        "pyunicorn",
        inclusive=False,
        everywhere=False,
        least_window=1,
        largest_window=1,
        epsilon=1e-8,
        none=0.0,
        no_entropy=0.0,
        no_share=0.0,
        times="white",
    ),
    "pyrqa": Convention("pyrqa", inclusive=False, everywhere=False, no_entropy=0.0, times="white", wmin=2),
    "recurrenceanalysis": Convention("recurrenceanalysis", none=0.0, no_share=0.0, times="middles", trend="shifted"),
}


def find_convention(name: str) -> Convention:
    """A convention by its name."""
    if name not in CONVENTIONS:
        raise UnknownNameError(f"convention {name!r} is none of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
