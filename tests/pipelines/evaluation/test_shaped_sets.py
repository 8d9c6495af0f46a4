"""Data sets as people have them, drawn by the painter of the demo city and scored against brute force."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.extractor import Extractor
from models.images.decoder import decode_image
from models.weights import load_extractor
from pipelines.demo.dataset import draw_city
from pipelines.evaluation import database
from pipelines.evaluation.job import evaluate
from pipelines.evaluation.result import Evaluation
from pipelines.sources import list_source
from serving.engine import QueryEngine
from storage.store import Store
from tests.support.city_store import commit_photos

pytestmark = pytest.mark.slow

Truth = Callable[[Path, Path], bool]


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("efficientnet-lite0")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("painted")
    draw_city(folder, seed=4, database_images=36, query_images=18, workers=1, hard=True)
    return folder / "images/test"


@pytest.fixture
def indexed_here(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index in this process instead of on Ray."""

    def index(source: Path, store_uri: str, **options: Any) -> None:
        store = Store.create(store_uri, extractor.card)
        with store.lease():
            commit_photos(store, extractor, list_source(source))

    monkeypatch.setattr(database, "index", index)


def fields_of(path: Path) -> list[str]:
    return path.name.split("@")


def metres_apart(one: Path, other: Path) -> float:
    (e, n), (f, m) = (map(float, fields_of(path)[1:3]) for path in (one, other))
    return math.hypot(e - f, n - m)


def brute_force(
    store: str, extractor: Extractor, photos: list[Path], images: list[Path], right: Truth
) -> tuple[dict[str, Any], list[bool]]:
    """Score every image for every photo: by dot product in NumPy, and as one answer over the whole store."""
    engine = QueryEngine(Store.open(store), extractor)
    records = engine.store.metadata()["image_id"].to_pylist()
    stored = np.stack([extractor.extract([decode_image(path.read_bytes()).pixels])[0][0] for path in images])
    stored = stored.astype(np.float16).astype(np.float32)
    figures: dict[str, Any] = {"global": {}, "reranked": {}}
    orders: dict[str, list[list[Path]]] = {"global": [], "reranked": []}
    for photo in photos:
        query = extractor.extract([decode_image(photo.read_bytes()).pixels])[0][0]
        orders["global"].append([images[i] for i in np.argsort(-(stored @ query), kind="stable")])
        answer = engine.answer(photo, top_k=len(records), candidates=len(records))
        orders["reranked"].append([Path(match.record.uri) for match in answer.matches])
    for stage, ranked in orders.items():
        hits = [[right(p, image) for image in order] for p, order in zip(photos, ranked, strict=True)]
        for k in (1, 5, 10, 20, 100):
            figures[stage][str(k)] = round(100 * sum(any(h[:k]) for h in hits) / len(hits), 2)
        precisions = []
        for h in hits:
            found, total = 0, 0.0
            for rank, is_right in enumerate(h[:100], start=1):
                found += is_right
                total += is_right * found / rank
            precisions.append(total / min(100, sum(h)) if sum(h) else 0.0)
        figures[stage]["map"] = round(100 * sum(precisions) / len(precisions), 2)
    return figures, [any(right(photo, image) for image in images) for photo in photos]


def check(
    result: Evaluation, store: Path, extractor: Extractor, folders: tuple[Path, Path], right: Truth
) -> None:
    images, photos = (sorted(folder.iterdir()) for folder in folders)
    expected, possible = brute_force(str(store), extractor, photos, images, right)
    for stage in ("global", "reranked"):
        assert dict(result.recall[stage]) == {k: v for k, v in expected[stage].items() if k != "map"}
        assert result.mean_average_precision[stage]["100"] == expected[stage]["map"]
        for k, (low, high) in result.intervals["recall"][stage].items():
            assert 0 <= low <= result.recall[stage][k] <= high <= 100
    assert result.queries_without_positive == possible.count(False)
    json.dumps(dict(result), allow_nan=False)


def test_an_svox_shaped_set(city: Path, tmp_path: Path, extractor: Extractor, indexed_here: None) -> None:
    folder = tmp_path / "svox/images/test"
    shutil.copytree(city / "database", folder / "gallery")
    for photo in sorted((city / "queries").iterdir()):
        target = folder / f"queries_{fields_of(photo)[14]}"
        target.mkdir(exist_ok=True)
        shutil.copy(photo, target)
    chosen = max(folder.glob("queries_*"), key=lambda path: len(list(path.iterdir())))
    result = evaluate(
        tmp_path / "svox", queries=chosen.name, store_uri=str(tmp_path / "store"), candidates=100
    )
    check(
        result,
        tmp_path / "store",
        extractor,
        (folder / "gallery", chosen),
        lambda a, b: metres_apart(a, b) <= 25,
    )
    condition = chosen.name.removeprefix("queries_")
    (part,) = (part for part in result.by_condition if part["kind"] == "condition")
    assert (part["value"], part["queries"]) == (condition, result.queries)
    assert part["recall"] == result.recall


def test_an_msls_shaped_set(city: Path, tmp_path: Path, extractor: Extractor, indexed_here: None) -> None:
    """As the formatter writes it: no level `images`, keys as pano ids, `day_forward_city` as notes."""
    folder = tmp_path / "msls/val"
    for side in ("database", "queries"):
        (folder / side).mkdir(parents=True)
        for number, path in enumerate(sorted((city / side).iterdir())):
            parts = fields_of(path)
            parts[7] = f"{side[0]}_-Key{number:015d}"
            parts[14] = f"{('day', 'night')[number % 2]}_{('forward', 'sideways')[number % 3 == 0]}_cph"
            shutil.copy(path, folder / side / "@".join(parts))
    keys = [fields_of(path)[7] for path in sorted((folder / "queries").iterdir())]
    (tmp_path / "keys.txt").write_text(" ".join(keys[:12]))
    (tmp_path / "val.toml").write_text('rule = "metres:25"\ndatabase = 36\nqueries = 12\nsplit = "val"\n')
    result = evaluate(
        tmp_path / "msls",
        store_uri=str(tmp_path / "store"),
        protocol=str(tmp_path / "val.toml"),
        keys=tmp_path / "keys.txt",
        candidates=100,
    )
    rest = tmp_path / "chosen"
    rest.mkdir()
    for path in sorted((folder / "queries").iterdir()):
        if fields_of(path)[7] in keys[:12]:
            shutil.copy(path, rest)
    check(
        result,
        tmp_path / "store",
        extractor,
        (folder / "database", rest),
        lambda a, b: metres_apart(a, b) <= 25,
    )
    assert "12 of 18 queries" in result.protocol
    assert result.protocol.startswith("val: right within 25 m")
    parts = {(part["kind"], part["value"]): part["queries"] for part in result.by_condition}
    assert parts["city", "cph"] == 12
    assert parts["light", "day"] + parts["light", "night"] == 12
    assert sum(part["queries"] for part in result.by_density) == 12
    again = evaluate(tmp_path / "msls", store_uri=str(tmp_path / "store"), split="val", candidates=0)
    assert again.conditions["dataset_sha256"] != result.conditions["dataset_sha256"], "18 queries, not 12"
    assert (again.queries, again.conditions["protocol"]) == (18, "metres:25")


def test_a_nordland_shaped_set(city: Path, tmp_path: Path, extractor: Extractor, indexed_here: None) -> None:
    """One folder per season, names by frame, no positions: a query is right within frames."""
    images, photos = (sorted((city / side).iterdir()) for side in ("database", "queries"))
    for season, paths in (("summer", images[:18]), ("winter", photos)):
        (tmp_path / "nordland" / season).mkdir(parents=True)
        for number, path in enumerate(paths):
            shutil.copy(path, tmp_path / "nordland" / season / f"images-{number + 1}.jpg")
    store = tmp_path / "store"
    result = evaluate(tmp_path / "nordland", store_uri=str(store), protocol="frames:2", candidates=100)

    def right(photo: Path, image: Path) -> bool:
        numbers = [int(path.stem.removeprefix("images-")) for path in (photo, image)]
        return abs(numbers[0] - numbers[1]) <= 2

    check(result, store, extractor, (tmp_path / "nordland/summer", tmp_path / "nordland/winter"), right)
    assert result.dataset == "nordland summer winter"
    assert result.protocol.startswith("frames:2: right within 2 frames")
    assert result.conditions["threshold_m"] is None
    assert [part["value"] for part in result.by_condition] == ["winter"]
    assert result.median_error_m == {"global": None, "reranked": None}
