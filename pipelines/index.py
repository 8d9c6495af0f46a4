"""`python -m pipelines.index`, as `ray job submit` starts it; the code is in `pipelines.indexing`."""

import sys

from pipelines.cli import run

if __name__ == "__main__":
    run(["index", *sys.argv[1:]])
