"""What estimators return: frozen, with every setting that was used, and words for what went wrong."""
