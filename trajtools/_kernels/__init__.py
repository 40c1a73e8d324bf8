"""Compiled loops: arrays in, arrays out; no checks, no defaults, no words. The API above them is polite."""
