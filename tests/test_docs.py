"""The documentation site: it builds offline, has no broken link, and loads nothing from other hosts."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason='no mkdocs here: pip install -e ".[docs]"'
)
# Attributes by which a browser loads something; <a href> only leads somewhere.
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
}
STYLES = ("stylesheet", "preload", "preconnect", "dns-prefetch", "icon", "modulepreload")


class Resources(HTMLParser):
    """Collects what a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.external: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        url = values.get(LOADED.get(tag, ""), "")
        if tag == "link" and set(values.get("rel", "").split()) & set(STYLES):
            url = values.get("href", "")
        if re.match(r"(https?:)?//", url):
            self.external.append(url)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # A proxy without a listener: every use of the network fails.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


@pytest.mark.integration
def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    assert len(pages(site)) > 20
    for page in pages(site):
        resources = Resources()
        resources.feed(page.read_text())
        assert resources.external == [], page.relative_to(site)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text()), sheet.name


def test_external_resources_are_found() -> None:
    resources = Resources()
    resources.feed(
        "<link rel='stylesheet' href='https://a.example/x.css'><script src='//b.example/y.js'></script>"
        "<img src='images/z.png'><a href='https://c.example'>c</a>"
    )
    assert resources.external == ["https://a.example/x.css", "//b.example/y.js"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("cli", ("--rerank-budget-ms", "import-weights", "--max-rejected")),
        ("http", ("/v1/query", "rerank", "timings_ms", "Retry-After")),
        ("settings", ("receive_timeout_s", "max_in_flight", "target_ongoing_requests")),
        ("errors", ("CardMismatch", "store_locked", "not_an_image", "overloaded")),
        ("python", ("QueryEngine", "mutual_nn_count", "Raises")),
        ("models", ("selavpr-vitl14-reg4", "efficientnet-lite0")),
        ("metrics", ("placeray_stage_seconds",)),
        ("store-format", ("weights_sha256", "int4-pca64", "placeray.row_table")),
    ],
)
def test_reference_is_made_from_the_code(site: Path, page: str, words: tuple[str, ...]) -> None:
    text = (site / "reference" / page / "index.html").read_text()
    for word in words:
        assert word in text


def test_links_of_files_outside_of_the_site_are_valid() -> None:
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "benchmarks/README.md",
        "benchmarks/CHANGELOG.md",
    ):
        path = ROOT / name
        for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
            if not target.startswith(("http://", "https://")):
                assert (path.parent / target).exists(), f"{name}: {target}"


def test_paths_and_verbs_named_in_the_documentation_exist() -> None:
    from pipelines.cli.parser import build_parser

    verbs = next(a.choices for a in build_parser()._actions if a.dest == "verb")
    assert verbs is not None
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for document in documents:
        text = document.read_text()
        for path in re.findall(
            r"`((?:models|storage|serving|pipelines|placeray|tests|deploy|benchmarks|examples)/[\w./-]*)`",
            text,
        ):
            assert (ROOT / path).exists(), f"{document.name}: {path}"
        fenced = "\n".join(re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        commands = re.findall(r"`placeray ([a-z][a-z-]*)", text)
        commands += re.findall(r"^(?:\.venv/bin/)?placeray ([a-z][a-z-]*)", fenced, re.MULTILINE)
        for verb in commands:
            assert verb in verbs, f"{document.name}: placeray {verb}"
