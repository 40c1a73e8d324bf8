"""Whether a perturbed training returns to the orbit of its reference."""
