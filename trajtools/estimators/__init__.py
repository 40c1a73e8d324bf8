"""One file, one method, one paper: each takes states and returns the curve, whose fit is a separate step."""

from __future__ import annotations


from trajtools.estimators.twins import twins

__all__ = ["twins"]
