"""Defaults of a query, for the engine, the service, its client and the command line. Imports nothing."""

__all__ = ["CANDIDATES", "LEARNED_CANDIDATES", "TOP_K"]

TOP_K = 5  # places in a result
CANDIDATES = 100  # hits of the search that are re-ranked
LEARNED_CANDIDATES = 50  # with descriptors that the store has learned: the right ones come earlier
