"""Whether a perturbed training returns to the orbit of its reference."""

from __future__ import annotations

from trajtools.stability.orbital import OrbitalStability as OrbitalStability, orbital_stability as orbital_stability
