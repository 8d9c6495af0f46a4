"""The public face: what `import placeray` gives, what it loads, and what it says where it is shadowed."""

from __future__ import annotations

import ast
import importlib
import inspect
import operator
import os
import subprocess
import sys
from pathlib import Path

import pytest

import placeray
from tests.support.paths import ROOT


def run(code: str, *, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", placeray.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(placeray, name) is not None
    assert name in dir(placeray)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = placeray.nothing


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "placeray" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == placeray._MODULES
    assert {*typed, "__version__"} == {*placeray.__all__}


def test_importing_loads_nothing_heavy_and_lets_threads_sleep() -> None:
    code = (
        "import os, sys, placeray\n"
        "heavy = {'torch', 'ray', 'lancedb', 'pyarrow', 'PIL', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), os.environ['OMP_WAIT_POLICY'])\n"
        "placeray.PlaceClient\n"
        "print('torch' in sys.modules)"
    )
    assert run(code).stdout == "[] passive\nFalse\n"
    assert "active" in run(code, OMP_WAIT_POLICY="active").stdout


@pytest.mark.parametrize("name", ["models", "storage"])
@pytest.mark.parametrize("kind", ["package", "folder", "file"])
def test_a_shadowing_folder_is_named(name: str, kind: str, tmp_path: Path) -> None:
    if kind == "file":
        (tmp_path / f"{name}.py").write_text("")
    else:
        (tmp_path / name).mkdir()
    if kind == "package":
        (tmp_path / name / "__init__.py").write_text("")
    done = run("import placeray", cwd=tmp_path, PYTHONPATH=str(ROOT))
    if kind == "folder":  # a folder without __init__.py hides nothing: a package further on wins
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert f"{tmp_path / name}" in done.stderr
        assert f"shadows placeray's package '{name}': run from another folder, or rename it" in done.stderr


@pytest.mark.parametrize(
    ("module", "name", "parameter"),
    [
        ("models.weights", "load_extractor", "name_or_path"),
        ("models.extractor", "Extractor.extract", "images"),
        ("models.matching", "mutual_nn_count", "min_similarity"),
        ("storage.store", "Store.open", "uri"),
        ("serving.engine", "QueryEngine.answer", "top_k"),
        ("serving.app", "build", "args"),
        ("pipelines.cli", "main", "argv"),
    ],
)
def test_import_paths_that_scripts_rely_on(module: str, name: str, parameter: str) -> None:
    function = operator.attrgetter(name)(importlib.import_module(module))
    assert parameter in inspect.signature(function).parameters


def test_version_stands_in_one_place() -> None:
    assert placeray.__version__ == "0.2.0"
    assert 'version = {attr = "storage.version.__version__"}' in (ROOT / "pyproject.toml").read_text()
