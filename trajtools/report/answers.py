"""One run and what was found about it: what tables and reports are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.growth.windows import Windows
from trajtools.results.divergence import Divergence
from trajtools.results.exponent import Exponent


@dataclass(frozen=True, eq=False)
class Answer:
    """The analysis of one run.

    Attributes
    ----------
    file, run : str
        Where it was recorded.
    growth : Divergence
        The curves.
    exponent : Exponent
        By the procedure that was asked for.
    published : Exponent or None
        By a published procedure, for comparison.
    facts : dict
        What is worth saying about the run: number of states, members and parameters, dtype, status, ...
    hparams : dict
        Hyper-parameters, as recorded.
    windows : Windows or None
        The same, window by window of the training.
    """

    file: str
    run: str
    growth: Divergence
    exponent: Exponent
    published: Exponent | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    windows: Windows | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the answer without the curves, as JSON can hold it.

        Returns
        -------
        dict
            ``file``, ``run``, ``hparams``, ``facts``, ``exponent`` and, where there are any, ``published`` and
            ``windows``.
        """
        plain = {"file": self.file, "run": self.run, "hparams": self.hparams, "facts": self.facts}
        plain["exponent"] = self.exponent.to_dict()
        if self.published is not None:
            plain["published"] = self.published.to_dict()
        if self.windows is not None:
            plain["windows"] = self.windows.to_dict()
        return plain
