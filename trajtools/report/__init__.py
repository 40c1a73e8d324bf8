"""Reports: one self-contained HTML page that opens anywhere, without matplotlib and without a network."""
