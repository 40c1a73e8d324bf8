"""Reports: one self-contained HTML page that opens anywhere, without a network."""
