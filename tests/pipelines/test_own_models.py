"""Stores of models of others and of SelaVPR++: filled, and queried by command line and service."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from models.checkpoints.importing import import_checkpoint
from models.custom.reference import carried, read_reference
from models.weights import load_extractor
from pipelines.cli import main
from pipelines.sources import list_source
from serving.app import checked
from serving.engine import QueryEngine
from serving.gallery import Gallery
from serving.metrics import Metrics
from serving.places.places import Places
from serving.service import Service
from serving.settings import read_settings
from serving.stages.extract import open_extract_worker
from serving.stages.local import LocalStages
from serving.stages.rerank import open_rerank_worker
from serving.stages.search import open_search_worker
from storage.features.encodings import default_encoding
from storage.search.partition import WHOLE_INDEX
from storage.store import Store
from tests.support.city_store import commit_photos
from tests.support.paths import GOLDEN
from tests.support.pictures import write_photos

NET = """
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 5, stride=4)

    def forward(self, images):
        return F.normalize(self.stem(images).relu().flatten(2).mean(2), dim=1)

def net():
    return Net()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_photos(folder / "photos", 6)
    (folder / "net_for_stores.py").write_text(NET)
    (folder / "mine.toml").write_text('model = "python:net_for_stores:net"\n[input]\nsize = [64, 96]\n')
    import_checkpoint(GOLDEN / "selavprpp_small.pth", folder / "plus.safetensors")
    for name in ("mobilenetv3_small_050", "vit_tiny_patch16_224"):
        torch.manual_seed(0)
        weights = timm.create_model(name, num_classes=0).state_dict()
        safetensors.torch.save_file(weights, folder / f"{name}.safetensors")
    return folder


def flags_of(folder: Path, model: str) -> list[str]:
    if model.startswith("timm:"):
        weights = folder / f"{model.removeprefix('timm:')}.safetensors"
        return ["--model", model, "--weights", str(weights)]
    return ["--model", str(folder / model)]


def reference_of(folder: Path, model: str) -> str:
    flags = flags_of(folder, model)
    return carried(read_reference(flags[1], weights=flags[3])) if len(flags) > 2 else flags[1]


def filled(folder: Path, model: str, to: Path) -> Store:
    extractor = load_extractor(reference_of(folder, model), device="cpu")
    card = dataclasses.replace(extractor.card)
    store = Store.create(to, card.stored_as(default_encoding(card)))
    with store.lease():
        commit_photos(store, extractor, list_source(folder / "photos"))
    return store


MODELS = [
    "mine.toml",
    "timm:mobilenetv3_small_050",
    *(
        pytest.param(name, marks=pytest.mark.long)
        for name in ("timm:vit_tiny_patch16_224", "plus.safetensors")
    ),
]


@pytest.mark.parametrize("model", MODELS)
def test_a_photo_is_found_by_the_command_line_and_by_a_service(
    model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = filled(folder, model, tmp_path / "store")
    assert store.verify().ok
    photo = sorted((folder / "photos").glob("*.jpg"))[3]
    where = ["query", str(photo), "--store", store.uri, "--json"]
    assert main([*where, *flags_of(folder, model)]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    (query,) = answer["queries"]
    matches = query["result"]["matches"] if "result" in query else query["matches"]
    assert Path(matches[0]["uri"]).name == photo.name
    assert (matches[0]["mutual_matches"] is None) == (not store.card.has_features)

    if not model.startswith("timm:"):  # whose name alone stands for weights of timm's hub
        assert main(where) in (2, 5)
        assert "--model" in capsys.readouterr().err

    settings = checked(read_settings({"store": store.uri, "model": reference_of(folder, model)}))
    engine = QueryEngine.open(store.uri, model=settings.model, matching=settings.matching_options)
    served = asyncio.run(answer_of(settings, photo.read_bytes()))
    answer = engine.answer(photo, top_k=5, candidates=5)
    answered = [match.record.image_id for match in answer.matches]
    assert served[0] == answered[0] == matches[0]["image_id"]
    assert {*served} == {*answered}


async def answer_of(settings: Any, photo: bytes) -> list[str]:
    store = Store.open(settings.store)
    stages = LocalStages(
        open_extract_worker(settings), open_search_worker(settings, WHOLE_INDEX), open_rerank_worker(settings)
    )
    gallery = Gallery(store, refresh_s=60.0)
    service = Service(settings, stages, gallery, Metrics("test"), Places(store))
    try:
        result = await service.answer(photo, top_k=5, candidates=5, rerank=True)
    finally:
        await stages.close()
    return [match.record.image_id for match in result.matches]


def test_embed_writes_codes(folder: Path, tmp_path: Path) -> None:
    photo = sorted((folder / "photos").glob("*.jpg"))[0]
    out = tmp_path / "out.npz"
    assert main(["embed", str(photo), *flags_of(folder, "plus.safetensors"), "--out", str(out)]) == 0
    with np.load(out) as arrays:
        assert (arrays["codes"].shape, arrays["codes"].dtype) == ((1, 64), np.uint8)
        assert arrays["descriptors"].shape == (1, 2048)
