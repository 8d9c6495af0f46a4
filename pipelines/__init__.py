"""Whole jobs: index, evaluate, demo, and the command line."""
