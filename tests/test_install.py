"""The wheel: its content, and that it works in a separate environment and folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.engine import QueryEngine
from tests.support.city_store import CityStore
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

PACKAGES = ("placeray", "models", "storage", "serving", "pipelines")
QUERY = """
import json, sys
import placeray
answer = placeray.QueryEngine.open(sys.argv[1]).answer(sys.argv[2])
print(json.dumps([placeray.__file__, [match.record.image_id for match in answer.matches]]))
"""
TYPED = """
from placeray import QueryEngine, Store, load_extractor
engine = QueryEngine(Store.open("store"), load_extractor("efficientnet-lite0"))
image_id: str = engine.answer("photo.jpg").matches[0].record.image_id
wrong: int = engine.answer("photo.jpg").matches[0].record.image_id
"""
# Only placeray's own types: reading those of its libraries too takes a minute.
MYPY = """
[mypy]
strict = true
follow_imports = skip
[mypy-placeray.*,models.*,storage.*,serving.*,pipelines.*]
follow_imports = normal
"""


def run(command: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this repository: a build leaves folders in the place it is started from."""
    source = tmp_path_factory.mktemp("source")
    for path in ROOT.iterdir():
        if (path / "__init__.py").is_file():
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = run(
        [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "dist"], source
    )
    assert built.returncode == 0, built.stderr
    assert "Warning" not in built.stdout + built.stderr
    (path,) = (source / "dist").glob("placeray-*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel installed, which falls back to this interpreter's libraries."""
    folder = tmp_path_factory.mktemp("environment")
    interpreter = folder / "bin" / "python"
    assert run([sys.executable, "-m", "venv", "--without-pip", folder], folder).returncode == 0
    installed = run(
        [sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-deps", "--no-index", wheel],
        folder,
    )
    assert installed.returncode == 0, installed.stderr
    assert "WARNING" not in installed.stderr
    (libraries,) = folder.glob("lib/python*/site-packages")
    (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def test_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == files
    assert {f"{package}/py.typed" for package in PACKAGES} <= held


def test_installed_command_and_api_work_in_another_folder(
    python: Path, city_store: CityStore, tmp_path: Path
) -> None:
    version = run([python.with_name("placeray"), "--version"], tmp_path)
    assert version.returncode == 0, version.stderr
    assert version.stdout.startswith("placeray ")

    photo = city_store.queries[0]
    answered = run([python, "-c", QUERY, city_store.uri, photo], tmp_path)
    assert answered.returncode == 0, answered.stderr
    package, image_ids = json.loads(answered.stdout)
    assert Path(package).is_relative_to(python.parents[1])
    expected = QueryEngine.open(city_store.uri).answer(photo.read_bytes())
    assert image_ids == [match.record.image_id for match in expected.matches]


@pytest.mark.long
def test_types_of_the_public_names_reach_mypy(python: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TYPED)
    (tmp_path / "mypy.ini").write_text(MYPY)
    checked = run([sys.executable, "-m", "mypy", "--python-executable", python, "script.py"], tmp_path)
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, checked.stdout + checked.stderr
    assert errors[0].startswith("script.py:5: error: Incompatible types in assignment"), errors


def test_a_folder_that_shadows_a_package_is_reported(python: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    (tmp_path / "script.py").write_text("import placeray\n")
    done = run([python, "script.py"], tmp_path)
    assert done.returncode != 0
    assert f"{tmp_path / 'models'} shadows placeray's package 'models'" in done.stderr
