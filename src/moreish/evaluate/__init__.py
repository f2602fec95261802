"""The one ruler: exact losses of whole splits, and what a model thinks of a text."""
