"""Locates many photos that have no position: lists, a page to review them, positions written back."""
