"""The command line of placeray."""

from pipelines.cli.commands import main
from pipelines.cli.process import run

__all__ = ["main", "run"]
