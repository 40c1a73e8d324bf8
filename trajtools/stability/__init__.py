"""What is measured between a perturbed trajectory and the orbit of its reference, and what class follows from it."""

from trajtools.stability.classes import classify
from trajtools.stability.following import Followed, Pair, follow
from trajtools.stability.sources import gather
from trajtools.stability.trends import trend

__all__ = ["Followed", "Pair", "classify", "follow", "gather", "trend"]
