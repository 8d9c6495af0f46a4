"""Say on the Benchmarks page which of its results are of the present code."""

from __future__ import annotations

import sys
from pathlib import Path

import mkdocs_gen_files

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.marks import marked

PAGE = "explanation/benchmarks.md"

with mkdocs_gen_files.open(PAGE, "w") as file:
    file.write(marked((Path("docs") / PAGE).read_text()))
