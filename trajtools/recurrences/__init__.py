"""Recurrence plots: when a trajectory returns to an earlier state, and for how long."""

from __future__ import annotations

from trajtools.recurrences.lines import Lines as Lines
from trajtools.recurrences.measures import (
    Measures,
    Recurrence,
    RecurrenceIntervals,
    RecurrenceNetwork,
    WindowedRecurrence,
)
from trajtools.recurrences.recurrence import recurrence as recurrence
