"""What a training says of itself: its curvature, and the order and chaos of its layers."""

from __future__ import annotations

from trajtools.training.curvature import Curvature as Curvature
from trajtools.training.curvature import curvature as curvature
from trajtools.training.order_chaos import OrderChaos as OrderChaos
from trajtools.training.order_chaos import TrunkStability as TrunkStability
from trajtools.training.order_chaos import asymptotic_distance as asymptotic_distance
from trajtools.training.order_chaos import iterated_trunk as iterated_trunk
from trajtools.training.order_chaos import mean_field as mean_field
from trajtools.training.order_chaos import mean_field_boundary as mean_field_boundary
from trajtools.training.order_chaos import order_chaos as order_chaos
