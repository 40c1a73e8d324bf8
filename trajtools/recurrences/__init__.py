"""Recurrence quantification analysis."""

from __future__ import annotations

from trajtools.recurrences.lines import Lines as Lines
from trajtools.recurrences.measures import (
    Measures as Measures,
    Recurrence as Recurrence,
    RecurrenceIntervals as RecurrenceIntervals,
    RecurrenceNetwork as RecurrenceNetwork,
    WindowedRecurrence as WindowedRecurrence,
)
from trajtools.recurrences.recurrence import recurrence as recurrence
