"""Diagnostics of a training run: edge of stability, and order and chaos of layers."""

from __future__ import annotations

from trajtools.training.curvature import (
    Curvature as Curvature,
    curvature as curvature,
    stability_threshold as stability_threshold,
)
from trajtools.training.order_chaos import (
    OrderChaos as OrderChaos,
    TrunkStability as TrunkStability,
    asymptotic_distance as asymptotic_distance,
    iterated_trunk as iterated_trunk,
    mean_field as mean_field,
    mean_field_boundary as mean_field_boundary,
    order_chaos as order_chaos,
)
