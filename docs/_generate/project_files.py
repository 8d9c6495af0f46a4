"""Show CONTRIBUTING.md, CHANGELOG.md and benchmarks/CHANGELOG.md, which lie outside of docs/, on the site."""

from __future__ import annotations

from pathlib import Path

import mkdocs_gen_files

PAGES = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "benchmark-history.md": "benchmarks/CHANGELOG.md",
}
# Links of those files that lead to the site's own pages.
LINKS = {"](../docs/": "](", "](docs/": "](", "](benchmarks/CHANGELOG.md": "](benchmark-history.md"}

for page, source in PAGES.items():
    text = Path(source).read_text()
    for before, after in LINKS.items():
        text = text.replace(before, after)
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(text)
