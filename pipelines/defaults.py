"""Defaults that the jobs share with the help of the command line. Imports nothing heavy."""

__all__ = ["BATCH_SIZE", "COMMIT_EVERY", "MAX_REJECTED", "SPLIT", "THRESHOLD_M"]

BATCH_SIZE = 32  # images per forward pass while indexing
COMMIT_EVERY = 1024  # images between two commits of an index run
MAX_REJECTED = 0.1  # share of rejected images above which a command exits with code 3
SPLIT = "test"  # of a data set in the standard layout
THRESHOLD_M = 25.0  # distance up to which an answer is correct, as in the published protocols
