"""Defaults and bounds of tracks, for the engine, the service and the command line. Imports nothing."""

__all__ = ["DEFAULT_FPS", "DEFAULT_LAG", "MAX_LAG"]

DEFAULT_FPS = 1.0
DEFAULT_LAG = 10  # further frames that a position may be corrected by
MAX_LAG = 1_000
