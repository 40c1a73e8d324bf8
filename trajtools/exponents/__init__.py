"""How fast neighbouring trajectories part: estimators, fits, nulls and the verdict."""
