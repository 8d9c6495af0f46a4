"""The index on disk, built by many workers of a Ray cluster."""
