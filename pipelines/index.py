"""`python -m pipelines.index`, as `ray job submit` starts it; the code is in `pipelines.indexing`."""

import sys

from pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main(["index", *sys.argv[1:]]))
