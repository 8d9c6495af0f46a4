"""The examples run as documented in their docstrings."""

from __future__ import annotations

import ast
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.city_store import CityStore
from tests.support.paths import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def main_of(name: str) -> Callable[..., None]:
    main: Callable[..., None] = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]
    return main


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_documents_its_command(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 40
    assert f"python examples/{path.name}" in (ast.get_docstring(ast.parse(text)) or "")
    assert callable(main_of(path.stem))


def test_draw_city(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("draw_city")(tmp_path / "city", database_images=2, query_images=1)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["test", "train", "val"]
    assert len(list((tmp_path / "city").rglob("*.jpg"))) == 9


def test_index_and_query(
    tmp_path: Path, city_store: CityStore, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in city_store.database[:6]:
        shutil.copy(path, tmp_path)
    photo = city_store.database[0]
    main_of("index_and_query")(str(tmp_path), str(tmp_path / "store"), str(photo))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 images indexed, 0 rejected"
    assert lines[1].startswith(f"1. {photo.name}: ")
    assert len(lines) == 6


def test_query_service(
    city_store: CityStore, service_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    photo = city_store.database[0]
    main_of("query_service")(service_url, str(photo), str(broken))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{photo}: {photo.name}, similarity 1.000")
    assert second.startswith(f"{broken}: ")


@pytest.mark.long
def test_evaluate_dataset(city_store: CityStore, local_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("evaluate_dataset")(str(city_store.folder / "city"))
    head, before, after = capsys.readouterr().out.splitlines()
    assert head == "16 queries, 48 database images"
    assert (before.split()[0], after.split()[0]) == ("global", "reranked")


def test_rerank_own_features(capsys: pytest.CaptureFixture[str]) -> None:
    main_of("rerank_own_features")()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("candidate 9: ")


def test_finetune_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import placeray

    calls: list[tuple[str, str]] = []

    def finetune(dataset: str, weights: str) -> dict[str, Any]:
        calls.append((dataset, weights))
        recall = {stage: {"1": 50.0} for stage in ("global", "reranked")}
        return {"recall": {"before": recall, "after": recall}, "out": weights, "run": "run"}

    monkeypatch.setattr(placeray, "finetune", finetune, raising=False)
    main_of("finetune_model")("city", "tuned.safetensors")
    assert calls == [("city", "tuned.safetensors")]
    assert "global: R@1 50.0 before, 50.0 after" in capsys.readouterr().out
