"""Iris from many initial conditions at once: the training of Danovski, Soriano and Lacasa (2024), in NumPy only.

A 4-10-3 network (sigmoid hidden units, softmax out) learns Fisher's 150 flowers by full-batch gradient descent on the
mean cross-entropy, in float64: W ~ N(0, 1), b = 0, no scaling of the features, no momentum. A seeded random subset of
120 rows trains, the other 30 test. Every initial condition is followed by copies whose weights (not biases) were moved
by Uniform(-epsilon, epsilon), and all of them are the members of one run, one run per learning rate:

    python -m recorders.iris iris.h5 --rates 0.01,1 --inits 100 --copies 5 --steps 200

With ``--restart 4000`` the copies of a second run, ``eta=<rate> from 4000``, leave their references late, to test the
stability of what was learned.

The initial conditions, the copies and the split depend on the seed only, so that every learning rate starts from the
same states.

References
----------
.. [1] P. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024), arXiv:2404.05782
.. [2] R. A. Fisher, Annals of Eugenics 7, 179 (1936), doi:10.1111/j.1469-1809.1936.tb02137.x
"""

from __future__ import annotations

from recorders.iris.training import ensemble, record, restart, restarted_name, run_name, steps_of

__all__ = ["ensemble", "record", "restart", "restarted_name", "run_name", "steps_of"]
