"""Say on the pages with measured figures which of them are of the present code."""

from __future__ import annotations

import sys
from pathlib import Path

import mkdocs_gen_files

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.marks import marked

PAGES = ("explanation/benchmarks.md", "explanation/places.md")

for page in PAGES:
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(marked((Path("docs") / page).read_text()))
