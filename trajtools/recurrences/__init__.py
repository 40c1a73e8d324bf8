"""Recurrence plots as bits: thresholds, lines, conventions and measures; what `trajtools.recurrence` is made of."""
