"""Orbital stability of perturbed training runs."""

from __future__ import annotations

from trajtools.stability.orbital import OrbitalStability as OrbitalStability, orbital_stability as orbital_stability
