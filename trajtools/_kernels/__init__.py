"""Compiled loops: arrays in, arrays out; no checks, no defaults. The API above them validates."""
