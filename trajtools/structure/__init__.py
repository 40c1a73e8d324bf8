"""What a trajectory looks like: correlations, cycles, dimension, projections, change points, system states."""
