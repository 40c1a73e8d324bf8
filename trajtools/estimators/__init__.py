"""One file, one method, one paper: each takes states and returns the curve, whose fit is a separate step."""
