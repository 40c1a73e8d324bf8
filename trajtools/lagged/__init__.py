"""Products of states with later states: what correlations and cycles are made of."""

from trajtools.lagged.filters import DETRENDS, Filter, make_filter
from trajtools.lagged.nulls import NULLS, Null, draw_from_gram, draw_from_states, null_of
from trajtools.lagged.products import Lagged, along_lags, from_distances, from_states
from trajtools.lagged.series import Series, series_of

__all__ = [
    "DETRENDS",
    "NULLS",
    "Filter",
    "Lagged",
    "Null",
    "Series",
    "along_lags",
    "draw_from_gram",
    "draw_from_states",
    "from_distances",
    "from_states",
    "make_filter",
    "null_of",
    "series_of",
]
