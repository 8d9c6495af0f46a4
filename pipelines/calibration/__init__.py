"""Measures how far the answers of a store can be trusted: on its own photos, and on labelled ones."""
