"""The commands of the documentation: the parser takes each, and those of three guides run as written."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.cli.parser import build_parser
from pipelines.cli.prior_flags import join_coordinates
from tests.support.city_store import CityStore
from tests.support.paths import ROOT

BLOCK = re.compile(r"^ *```(?:bash|console|sh)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = ("priors", "old-photos", "drives")
LEFT_OUT = ("demo", "index")  # minutes


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each placeray in the blocks of a page."""
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            tokens = shlex.split(line, comments=True)
            if tokens and Path(tokens[0]).name == "placeray":
                end = next((at for at, token in enumerate(tokens) if token in (">", "|", "&", "&&")), None)
                yield tokens[1:end]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_command_is_one_that_the_parser_takes(page: Path) -> None:
    refused = [shlex.join(arguments) for arguments in commands(page) if not is_taken(arguments)]
    assert refused == []


def is_taken(arguments: list[str]) -> bool:
    try:
        build_parser().parse_args(join_coordinates(arguments))
    except SystemExit as error:
        return error.code == 0  # of --help and --version
    return True


def test_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\n.venv/bin/placeray info \\\n  --store 's t'   # why\nls\nplaceray demo > x\n```\n"
    )
    assert list(commands(page)) == [["info", "--store", "s t"], ["demo"]]
    assert sum(len(list(commands(page))) for page in PAGES) > 50


@pytest.fixture
def reader(city_store: CityStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody who follows the guides, and their present folder, with what the guides name."""
    home, here = tmp_path / "home", tmp_path / "here"
    (home / "album/1998").mkdir(parents=True)
    (home / "night-survey").mkdir()
    (here / "drive-night/frames").mkdir(parents=True)
    shutil.copytree(city_store.uri, home / "city")
    (here / "store").symlink_to(home / "city")
    shutil.copy(city_store.queries[0], here / "photo.jpg")
    shutil.copy(city_store.queries[1], home / "album/1998/a.jpg")
    for number, photo in enumerate(city_store.queries[2:4]):
        shutil.copy(photo, here / f"drive-night/frames/{number}.jpg")
    (here / "drive-night/odometry.csv").write_text("distance_m\n0\n5\n")
    ring = [[16.36, 48.196], [16.37, 48.196], [16.37, 48.202], [16.36, 48.196]]
    (here / "district.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return home


@pytest.mark.long
@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_run_as_written(
    guide: str, reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = 0
    for arguments in commands(ROOT / f"docs/guides/{guide}.md"):
        if arguments[0] in LEFT_OUT:
            continue
        if "--accepted" in arguments:
            accept_all(Path("places.csv"), reader / "Downloads/reviewed.csv")
        expanded = [os.path.expanduser(argument) for argument in arguments]
        assert main(expanded) == 0, (shlex.join(arguments), capsys.readouterr().err)
        assert capsys.readouterr().out
        ran += 1
    assert ran >= 3


def accept_all(places: Path, reviewed: Path) -> None:
    """Write what the review page downloads where every photo was accepted."""
    names = ("image", "folder", "sha256", "decision", "lat", "lon", "radius_m")
    reviewed.parent.mkdir()
    with places.open(newline="") as listed, reviewed.open("w", newline="") as file:
        rows = csv.DictWriter(file, names, extrasaction="ignore")
        rows.writeheader()
        rows.writerows({**row, "decision": "accepted"} for row in csv.DictReader(listed))
