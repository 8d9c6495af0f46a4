"""Indexing on Ray Data: decode, extract, write, commit."""
