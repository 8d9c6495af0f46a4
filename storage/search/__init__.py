"""Nearest descriptors: exact, approximate, on disk, and one version of a store in view."""
