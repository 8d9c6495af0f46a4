"""The command line of placeray."""

from pipelines.cli.commands import main

__all__ = ["main"]
