"""Defaults that the jobs share with the command line. Imports nothing."""

__all__ = [
    "BATCH_SIZE",
    "COMMIT_EVERY",
    "COMMIT_SECONDS",
    "DEMO_DATABASE",
    "DEMO_OUT",
    "DEMO_QUERIES",
    "HOST",
    "KEEP_VERSIONS_S",
    "LEFTOVER_AGE_S",
    "MAX_FAILURES",
    "MAX_REJECTED",
    "MAX_WRONG",
    "PORT",
    "PRUNE_SHARE",
    "SPLIT",
    "THRESHOLD_M",
    "TRAINING_SPLIT",
    "VALIDATION_SPLIT",
]

BATCH_SIZE = 32  # images per forward pass while indexing
COMMIT_EVERY = 1024  # images between two commits of an index run
PRUNE_SHARE = 0.2  # share of a source's images that may vanish at once
KEEP_VERSIONS_S = 3600.0  # how long compact keeps versions that were the newest
LEFTOVER_AGE_S = 600.0  # of feature files that no row uses, before compact removes them
COMMIT_SECONDS = 30.0  # and at most this time, if any image was finished
MAX_REJECTED = 0.1  # share of rejected images above which a job fails
MAX_WRONG = 0.05  # share of wrong answers among those called known, to be promised
THRESHOLD_M = 25.0  # distance up to which a result is correct, as in the published protocols
SPLIT, TRAINING_SPLIT, VALIDATION_SPLIT = "test", "train", "val"  # of a data set in the standard layout
MAX_FAILURES = 3  # of training workers
HOST, PORT = "127.0.0.1", 8000
DEMO_OUT, DEMO_DATABASE, DEMO_QUERIES = "placeray-demo", 240, 80
