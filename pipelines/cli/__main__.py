"""`python -m pipelines.cli`: the command line without an installation."""

from pipelines.cli import run

run()
