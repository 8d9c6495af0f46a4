"""`python -m pipelines.finetune`, as `ray job submit` starts it; the code is in `pipelines.training`."""

import sys

from pipelines.cli import run

if __name__ == "__main__":
    run(["finetune", *sys.argv[1:]])
