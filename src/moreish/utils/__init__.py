"""File operations, downloads and signals."""
