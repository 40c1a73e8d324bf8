"""Reports: one self-contained HTML page that needs no network."""
