"""The command line end to end: exit codes, JSON, and what goes to which stream."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.weights import load_extractor
from pipelines.cli import commands, main
from pipelines.sources import list_source
from storage.store import Store
from tests.support.city_store import commit_photos
from tests.support.paths import GOLDEN
from tests.support.pictures import photo, write_photos

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def call(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([str(arg) for arg in args]) == code
    out = capsys.readouterr().out
    return json.loads(out) if "--json" in args else out


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    write_photos(folder / "database", 12)
    write_photos(folder / "queries", 4)
    return folder


@pytest.fixture(scope="module")
def store(city: Path) -> str:
    """A store of the city's database, as `index` makes it; tests of `index` itself are below."""
    extractor = load_extractor("efficientnet-lite0")
    opened = Store.create(city / "store", extractor.card)
    with opened.lease():
        commit_photos(opened, extractor, list_source(city))
    return opened.uri


@pytest.fixture
def own_store(store: str, tmp_path: Path) -> Path:
    """Return a copy of `store` to write to."""
    return Path(shutil.copytree(store, tmp_path / "own"))


def test_index_prints_json_and_exits_3_for_too_many_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "in", 3)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"nope")
    args = ("index", tmp_path / "in", "--store", tmp_path / "s", "--quiet")
    result = call(capsys, *args, "--json", code=3)
    assert {"seconds", "images_per_s", "store_version"} <= result.keys()
    counts = {name: result[name] for name in ("input", "accepted", "unchanged", "rejected")}
    assert counts == {"input": 4, "accepted": 3, "unchanged": 0, "rejected": 1}
    assert Store.open(str(tmp_path / "s")).count == 3
    out = call(capsys, *args, "--max-rejected", "0.5")
    assert "rejected 1: not_an_image" in out
    assert "3 unchanged" in out


def test_query_with_a_stored_photo_ranks_it_first(
    store: str, city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sorted((city / "database").iterdir())[5]
    result = call(capsys, "query", image, "--store", store, "--json", "--top-k", "2")
    (answer,) = result["queries"]
    assert answer["matches"][0]["image_id"] == image.name
    assert len(answer["matches"]) == 2
    assert answer["matches"][0]["utm_e"] == 500050.0
    quick = call(capsys, "query", image, "--store", store, "--rerank-budget-ms", "0", "--matching", "fast")
    assert image.name in quick.splitlines()[2]
    assert quick.endswith(" ms, 10 candidates matched\n")
    table = call(capsys, "query", image, "--store", store, "--no-rerank")
    assert image.name in table
    assert " - " in table.splitlines()[2]


def test_query_reports_unusable_photos_and_answers_the_others(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.jpg").write_bytes(photo(1))
    (tmp_path / "bad.jpg").write_bytes(photo(1)[:300])
    images = (tmp_path / "bad.jpg", tmp_path / "good.jpg", tmp_path / "missing.jpg")
    result = call(capsys, "query", *images, "--store", store, "--json", code=3)
    bad, good, missing = result["queries"]
    assert bad["error"]["reason"] == "truncated"
    assert good["matches"]
    assert missing["error"]["reason"] == "missing"


def test_evaluate_prints_json_writes_a_report_and_reuses_the_store(
    city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("evaluate", city, "--store", tmp_path / "s", "--report", tmp_path / "report", "--json", "--quiet")
    result = call(capsys, *args)
    assert {"dataset", "protocol", "queries", "database", "recall", "seconds"} <= result.keys()
    assert result["recall"]["reranked"] == dict.fromkeys(("1", "5", "10", "20", "100"), 100.0)
    assert (result["queries"], result["database"], result["dataset"]) == (4, 12, city.name)
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<figure>") == 4 + 1  # each query, and the histogram of errors
    assert page.count('<figure class="map">') == 1
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == result
    assert result["matched_per_query"] == 12
    assert result["database_indexed"] == 12
    store = Store.open(tmp_path / "s")
    with store.lease():
        store.delete(store.metadata()["image_id"].to_pylist()[:3])
    again = call(
        capsys, "evaluate", city, "--store", tmp_path / "s", "--stop-early", "--rerank-budget-ms", "0"
    )
    assert "note: 3 database images were indexed for this evaluation" in again
    assert "after re-ranking" in again
    assert "50 candidates re-ranked; stopping early, 0 ms per query" in again
    assert "candidates matched per query: 10\n" in again


def test_embed_golden_checkpoint_matches_published_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """End to end: import, decode, preprocess, position embeddings, adapters, heads."""
    weights, out = tmp_path / "small.safetensors", tmp_path / "out.npz"
    call(capsys, "import-weights", GOLDEN / "selavpr_small.pth", "--out", weights)
    images = [GOLDEN / f"image_{i}.png" for i in range(4)]
    call(capsys, "embed", *images, "--model", weights, "--out", out)
    golden = np.load(GOLDEN / "selavpr_small.npz")
    made = np.load(out)
    assert made["names"].tolist() == [str(image) for image in images]
    assert made["descriptors"].dtype == made["features"].dtype == np.float32
    assert np.abs(made["descriptors"] - golden["global_"]).max() < 1e-5
    assert np.abs(made["features"][:2] - golden["local"]).max() < 1e-5


def test_embed_in_bfloat16_is_close_to_published_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.runtime.execution.native_dtype", lambda _: torch.bfloat16)
    weights, out = tmp_path / "small.safetensors", tmp_path / "out.npz"
    call(capsys, "import-weights", GOLDEN / "selavpr_small.pth", "--out", weights)
    images = [GOLDEN / f"image_{i}.png" for i in range(4)]
    call(capsys, "embed", *images, "--model", weights, "--out", out, "--precision", "bf16")
    golden, made = np.load(GOLDEN / "selavpr_small.npz"), np.load(out)
    assert (made["descriptors"] * golden["global_"]).sum(axis=1).min() > 0.9999
    assert (made["features"][:2] * golden["local"]).sum(axis=-1).min() > 0.999
    assert np.abs(made["descriptors"] - golden["global_"]).max() > 1e-4
    call(capsys, "embed", *images, "--model", weights, "--out", out, "--precision", "fp32")
    assert np.abs(np.load(out)["descriptors"] - golden["global_"]).max() < 1e-5


@pytest.mark.long
def test_embed_uses_model_and_size_of_a_store(
    store: str, city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((city / "database").iterdir())
    call(capsys, "embed", image, "--store", store, "--out", tmp_path / "o.npz")
    stored = Store.open(store).snapshot.table.find("image_id", [image.name])["descriptor"].to_pylist()
    assert np.allclose(np.load(tmp_path / "o.npz")["descriptors"], stored, atol=1e-3)
    call(capsys, "embed", image, "--model", "efficientnet-lite0", "--out", tmp_path / "o.npz")
    own = load_extractor("efficientnet-lite0").extract([image])[0]
    assert np.allclose(np.load(tmp_path / "o.npz")["descriptors"], own, atol=1e-6)
    call(capsys, "embed", image, "--out", tmp_path / "o.npz", code=2)


def test_embed_skips_and_reports_unusable_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.jpg").write_bytes(photo(1))
    (tmp_path / "bad.jpg").write_bytes(b"")
    args = ("--model", "efficientnet-lite0", "--out", tmp_path / "o.npz", "--json")
    result = call(capsys, "embed", tmp_path / "bad.jpg", tmp_path / "good.jpg", *args, code=3)
    assert result["rejected"][0]["reason"] == "empty"
    assert np.load(tmp_path / "o.npz")["descriptors"].shape == (1, 1280)


def test_info_delete_compact_verify(own_store: Path, city: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = sorted(path.name for path in (city / "database").iterdir())[0]
    assert call(capsys, "delete", name, "unknown", "--store", own_store, "--json")["deleted"] == 1
    assert call(capsys, "info", "--store", own_store, "--json")["rows"] == 11
    call(capsys, "compact", "--store", own_store, "--json")
    assert call(capsys, "verify", "--store", own_store, "--json")["ok"] is True
    assert "ok: True" in call(capsys, "verify", "--store", own_store)


@pytest.mark.long
def test_verify_exits_6_on_damage_and_repair_with_index_restores(
    own_store: Path, city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = next((own_store / "features").glob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 4
    shard.write_bytes(data)
    assert call(capsys, "verify", "--store", own_store, "--json", code=6)["ok"] is False
    assert call(capsys, "verify", "--repair", "--store", own_store, "--json")["ok"] is True
    assert call(capsys, "info", "--store", own_store, "--json")["rows"] < 12
    call(capsys, "index", city, "--store", own_store, "--quiet")
    assert call(capsys, "info", "--store", own_store, "--json")["rows"] == 12
    assert call(capsys, "verify", "--store", own_store, "--json")["ok"] is True


def test_exit_codes_of_errors(
    store: str, city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(next((city / "database").iterdir()))
    weights = tmp_path / "small.safetensors"
    call(capsys, "import-weights", GOLDEN / "selavpr_small.pth", "--out", weights)
    call(capsys, "query", image, "--store", tmp_path / "none", code=2)
    call(capsys, "index", tmp_path / "none", "--store", tmp_path / "s", code=2)
    call(capsys, "embed", image, "--model", "resnet", "--out", tmp_path / "o.npz", code=2)
    call(capsys, "import-weights", image, "--out", tmp_path / "w.safetensors", code=2)
    assert not (tmp_path / "s").exists()
    call(capsys, "embed", image, "--model", weights, "--image-size", "225", "--out", tmp_path / "o", code=2)
    call(capsys, "index", city, "--store", store, "--model", weights, code=5)
    call(capsys, "query", image, "--store", store, "--model", weights, code=5)
    call(capsys, "query", image, "--url", "http://127.0.0.1:9", "--precision", "bf16", code=2)
    with Store.open(store).lease():
        call(capsys, "delete", "x", "--store", store, code=4)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "card.json").write_text("{")
    call(capsys, "info", "--store", tmp_path / "broken", code=6)
    with pytest.raises(SystemExit) as stopped:
        main(["index", image])
    assert stopped.value.code == 2


@pytest.mark.long
def test_index_without_flags_makes_descriptors_as_the_store_does(own_store: Path, tmp_path: Path) -> None:
    card = Store.open(own_store).card
    assert card.aggregation_sha256 is None, "a new store would learn its own"
    write_photos(tmp_path / "more", 2, first=100)
    assert main(["index", str(tmp_path / "more"), "--store", str(own_store), "--quiet"]) == 0
    grown = Store.open(own_store)
    assert (grown.count, grown.card) == (14, card)
    added = grown.snapshot.table.find("image_id", [path.name for path in (tmp_path / "more").iterdir()])
    own = load_extractor(card.model).extract(sorted((tmp_path / "more").iterdir()))[0]
    assert np.allclose(added.sort_by("image_id")["descriptor"].to_pylist(), own, atol=1e-3)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.long),
    ],
)
def test_signals_end_a_verb_with_one_line(
    number: signal.Signals,
    code: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left: list[bool] = []

    def run(args: object) -> int:
        try:
            signal.raise_signal(number)
        finally:
            left.append(True)
        return 0

    monkeypatch.setitem(commands.VERBS, "info", run)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["info", "--store", "any"]) == code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left == [True]
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert word in shown.err
