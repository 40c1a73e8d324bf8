"""A learning rate that follows the largest curvature of a torch training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch.optim.lr_scheduler import LRScheduler

from recorders.rates import CurvatureRule
from recorders.torch.shadow import Shadow
from trajtools.errors import DataError


class CurvatureLR(LRScheduler):
    """Learning rate c / h_max, from the reverse shadow of the training.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Whose rate is set. Groups with different rates keep their ratios: the largest is c / h_max.
    shadow : Shadow
        Of the same training, with the reverse copy; it is moved by the loop.
    c : float
        Rate times smoothed h_max: 1 is the Newton step of the steepest direction, 2 the limit of plain SGD.
    smoothing : float
        Weight of the past in the exponential mean of h_max; 0: none.
    lowest, highest : float
        Bounds of the rate.
    warm_up : int
        So many updates keep the optimiser's own rate, while the shadow turns towards the steepest direction.
    interval : int
        After that, the rate is set anew at every so many updates.

    Raises
    ------
    DataError
        If the shadow has no reverse copy, or an argument makes no sense.

    Notes
    -----
    Call ``step`` once an update, after ``optimizer.step()``, as any scheduler: the curvature at the weights before the
    update sets the rate of the next one. A curvature that is not positive and finite is left out. For an optimiser that
    scales its steps by something else than the rate (Adam), 1 / h_max is not the length of a Newton step.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> opt = torch.optim.SGD(model.parameters(), lr=0.01)
    >>> shadow = Shadow(model, torch.nn.MSELoss(), directions=("reverse",))
    >>> schedule = CurvatureLR(opt, shadow, warm_up=10)
    >>> for _ in range(20):
    ...     opt.zero_grad()
    ...     loss = shadow.backward(torch.tensor([[3.0, 1.0]]), torch.zeros(1, 1))
    ...     opt.step()
    ...     schedule.step()
    >>> round(opt.param_groups[0]["lr"], 3)  # h_max = 20
    0.05
    """

    def __init__(
        self,
        optimizer: Any,
        shadow: Shadow,
        *,
        c: float = 1.0,
        smoothing: float = 0.9,
        lowest: float = 0.0,
        highest: float = math.inf,
        warm_up: int = 20,
        interval: int = 1,
    ) -> None:
        if "reverse" not in shadow.directions:
            raise DataError(
                'this shadow has no reverse copy, which measures h_max: Shadow(..., directions=("reverse",))'
            )
        self.rule = CurvatureRule(c, smoothing, lowest, highest, warm_up, interval)
        self.shadow = shadow
        self.smoothed = math.nan
        self._seen = -1
        self._rate = max(float(group["lr"]) for group in optimizer.param_groups)
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """Rates of the groups for the next update; torch calls this once a ``step``.

        Returns
        -------
        list of float
            One for each group.
        """
        if self.shadow.n_steps != max(self._seen, 0):  # a new curvature has come in
            self._seen = self.shadow.n_steps
            self.smoothed = float(self.rule.smooth(np, self.smoothed, self.shadow.h_max, self.last_epoch))
            self._rate = float(self.rule.rate(np, self._rate, self.smoothed, self.last_epoch))
        largest = max(map(float, self.base_lrs))
        return [self._rate * float(base) / largest if largest > 0 else self._rate for base in self.base_lrs]

    @property
    def metrics(self) -> dict[str, float]:
        """For ``rec.record(**schedule.metrics)``: ``curvature_rate`` and ``curvature_smoothed``, c / rate unclipped."""
        return {"curvature_rate": self._rate, "curvature_smoothed": self.smoothed}

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser and the shadow.

        Returns
        -------
        dict
            For ``load_state_dict``.
        """
        return {name: value for name, value in super().state_dict().items() if name not in ("shadow", "rule")}
