"""cycles"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints

CYCLES = ("exact", "bands", "approximate", "none")


@dataclass(frozen=True, eq=False)
class Cycles(Result):
    """Whether a trajectory comes back at regular times.

    Attributes
    ----------
    kind : str
        ``"exact"``: every state is the one a period before, to the numerical floor; ``"bands"``: the states of one
        phase of the period are closer to each other than to those of any other; ``"approximate"``: they come back
        more closely than by chance, at all multiples of the period; ``"none"``.
    period : float
        In states; NaN for ``"none"``.
    time : float
        The same in `time_unit`.
    time_unit : str
        Unit of `time`.
    strength : float
        Autocorrelation at the multiples of the period, median; NaN for ``"none"``.
    sustained : float
        Its mean over the later half of the multiples over that of the earlier half: 1 for a period, towards 0 where
        the memory of the phase is lost.
    return_distance : float
        Distance of a state to the one a period later, median, over the typical distance of two states.
    reasons : tuple of str
        Why, in sentences with numbers.
    candidates : ndarray of float64, shape (C, 4)
        Every lag that was considered: period, strength, sustained, contrast to the lags between its multiples.
    lag : ndarray of int64, shape (L + 1,)
        Lags in states.
    values : ndarray of float64, shape (L + 1,)
        Autocorrelation at these lags.
    threshold : float
        Value beyond which a correlation is significant.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the period.
    """

    kind: str
    period: float
    time: float
    time_unit: str
    strength: float
    sustained: float
    return_distance: float
    reasons: tuple[str, ...]
    candidates: Floats
    lag: Ints
    values: Floats
    threshold: float
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in CYCLES:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(CYCLES)}")

    def __str__(self) -> str:
        """Say the kind, the period and the reasons, one to a line; `repr` has every field."""
        head = self.kind if self.kind == "none" else f"{self.kind}, period {self.period:.6g} states"
        return "\n".join([head, *(f"- {words}" for words in (*self.reasons, *self.warnings))])
