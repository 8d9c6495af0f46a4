"""`python -m pipelines.cli`: the command line without an installation."""

import sys

from pipelines.cli import main

sys.exit(main())
