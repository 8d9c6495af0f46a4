"""A projection learned from a sample, and stores of other encodings from the command line to the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.weights import load_extractor
from pipelines.indexing.job import index
from pipelines.indexing.projection import learn_projection
from pipelines.sources import list_source
from serving.engine import QueryEngine
from storage.errors import CardMismatch, InvalidBatch
from storage.store import Store
from tests.support.pictures import broken_files, write_photos


def test_learn_projection_skips_broken_photos(tmp_path: Path) -> None:
    write_photos(tmp_path, 3)
    for name, (data, _) in broken_files().items():
        (tmp_path / name).write_bytes(data)
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    projection = learn_projection(list_source(tmp_path), extractor, channels=32)
    assert projection.shape == (112, 32)
    np.testing.assert_allclose(projection.T @ projection, np.eye(32), atol=1e-5)
    np.testing.assert_array_equal(projection, learn_projection(list_source(tmp_path), extractor, channels=32))


def test_learn_projection_nothing_usable_raises(tmp_path: Path) -> None:
    for name, (data, _) in broken_files().items():
        (tmp_path / name).write_bytes(data)
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    with pytest.raises(InvalidBatch, match="more images"):
        learn_projection(list_source(tmp_path), extractor, channels=32)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("encoding", ["int4-pca64", pytest.param("binary", marks=pytest.mark.slow)])
def test_index_into_an_encoded_store_answers_and_refuses_another_encoding(
    tmp_path: Path, encoding: str
) -> None:
    photos, uri = tmp_path / "photos", str(tmp_path / "store")
    paths = write_photos(photos, 6)
    assert index(photos, uri, features=encoding).accepted == 6  # type: ignore[arg-type]
    assert Store.open(uri).card.feature_encoding == encoding
    write_photos(photos, 2, first=6)
    assert index(photos, uri).unchanged == 6  # the store's own encoding is the default
    assert Store.open(uri).count == 8
    with pytest.raises(CardMismatch, match="does not fit the store"):
        index(photos, uri, features="int8")
    engine = QueryEngine.open(uri)
    data = paths[4].read_bytes()
    result = engine.answer(data)
    assert result.matches[0].record.image_id == paths[4].name
    assert not result.degraded
    here, there, similarity = engine.matched_points(data, result.matches[0].record)
    assert len(here) == len(there) == len(similarity) == result.matches[0].mutual_matches
    # The photo is the stored one: cells match themselves.
    assert np.mean(np.all(here == there, axis=1)) > 0.9
