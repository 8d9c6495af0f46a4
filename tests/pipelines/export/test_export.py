"""Exported descriptors and models, read back without placeray."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.images.preprocess import prepare
from models.weights import load_extractor
from pipelines.cli import main
from tests.support.pictures import draw
from tests.support.store_samples import make_store
from tests.support.training_city import write_tiny_vit


def test_descriptors_as_npy_and_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store", ["b", "a", "=c"])
    for name in ("d.npy", "d.parquet"):
        assert (
            main(["export", "--store", str(tmp_path / "store"), "--out", str(tmp_path / name), "--json"]) == 0
        )
    told = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (told["rows"], told["width"], told["damaged"]) == (3, store.card.descriptor_dim, 0)
    array = np.load(tmp_path / "d.npy")
    with (tmp_path / "d.npy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == ["'=c", "a", "b"]
    table = pq.read_table(tmp_path / "d.parquet")
    assert table["image_id"].to_pylist() == ["=c", "a", "b"]
    assert np.array(table["descriptor"].to_pylist(), np.float32) == pytest.approx(array)
    for row, image_id in enumerate(["=c", "a", "b"]):
        (best,) = store.search(array[row : row + 1], k=1)[0]
        assert best.record.image_id == image_id


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--out x.npy", "give one of them"),
        ("--store {d}/store --out {d}/x.csv", "none of .npy"),
        ("--model efficientnet-lite0 --out {d}/x.npy", "does not end with .onnx"),
        ("--model no-such-model --out {d}/x.onnx", "unknown model"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    make_store(tmp_path / "store", ["a"])
    assert main(["export", *arguments.format(d=tmp_path).split()]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["efficientnet-lite0", "selavpr"])
def test_a_model_as_onnx_computes_what_the_extractor_does(tmp_path: Path, model: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if model == "selavpr":
        write_tiny_vit(tmp_path / "tiny.safetensors")
        model = str(tmp_path / "tiny.safetensors")
    out = tmp_path / "model.onnx"
    assert main(["export", "--model", model, "--out", str(out)]) == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map["placeray.card"])["preprocessing"]
    extractor = load_extractor(model)
    photos = [np.asarray(draw(seed, size=(320, 240))) for seed in range(3)]
    inputs = np.stack([prepare(photo, extractor.card.preprocessing) for photo in photos]).astype(np.float32)
    inputs = (inputs / 255 - np.array(card["mean"])) / np.array(card["std"])
    made = session.run(None, {"images": inputs.transpose(0, 3, 1, 2).astype(np.float32)})
    expected = extractor.extract(photos)
    for one, other in zip(made, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-3
