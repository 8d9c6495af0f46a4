"""Weights by name and in published files, translated into this project's names."""
