"""From a source to tokens on disk: catalog, text, split, batches."""
