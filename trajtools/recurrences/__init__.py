"""Recurrence plots: when a trajectory returns to an earlier state, and for how long."""

from __future__ import annotations

from trajtools.recurrences.lines import Lines as Lines
from trajtools.recurrences.recurrence import recurrence as recurrence
from trajtools.recurrences.result import (
    Measures as Measures,
    Recurrence as Recurrence,
    RecurrenceIntervals as RecurrenceIntervals,
    RecurrenceNetwork as RecurrenceNetwork,
    WindowedRecurrence as WindowedRecurrence,
)
