"""Recorded states in the formats of other programs: NumPy archives, tables of text, graphs."""
