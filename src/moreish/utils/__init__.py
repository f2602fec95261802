"""Files, downloads and signals."""
