"""Run folders as an HTTP service and a page."""
