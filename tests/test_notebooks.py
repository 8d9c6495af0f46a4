"""The notebooks of the documentation run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
QUICKEST = "first_city"


@pytest.mark.ray
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.stem == QUICKEST else pytest.mark.long, id=path.stem)
        for path in NOTEBOOKS
    ],
)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit notebooks without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kinds = {kind for output in outputs for kind in output.get("data", ())}
    assert {"text/plain", "text/html", "image/png"} <= kinds
    recall = notebook.cells[-3]["outputs"][0]["data"]["text/plain"]
    before, after = (float(value) for value in recall.strip("()").split(","))
    assert 30 < before <= after


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
