"""What a training says of itself: its curvature, and the order and chaos of its layers."""
