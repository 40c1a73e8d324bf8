"""Products of states with later states: what correlations and cycles are made of."""

from trajtools.structure.autocorrelation import (
    DETRENDS,
    NULLS,
    Filter,
    Lagged,
    Null,
    Series,
    along_lags,
    draw_from_gram,
    draw_from_states,
    from_distances,
    from_states,
    make_filter,
    null_of,
    series_of,
)

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
