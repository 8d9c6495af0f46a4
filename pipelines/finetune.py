"""`python -m pipelines.finetune`, as `ray job submit` starts it; the code is in `pipelines.training`."""

import sys

from pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
