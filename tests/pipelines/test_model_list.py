"""The list of models: what each needs and makes, without loading any; times of those that load here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.catalogue import catalogue
from models.names import MODEL_NAMES
from models.weights import load_card
from pipelines.cli import main
from pipelines.model_list import list_models
from storage.features.encodings import FeatureCodec, default_encoding
from tests.support.paths import GOLDEN


def test_every_name_is_listed_with_the_sizes_of_its_card() -> None:
    rows = {row.name: row for row in catalogue()}
    assert {*rows} > {*MODEL_NAMES}
    card = load_card("efficientnet-lite0")
    stored = card.stored_as(default_encoding(card))
    assert rows["efficientnet-lite0"].feature_bytes == FeatureCodec(stored).row_bytes == 14 * 14 * 112 * 2
    assert (rows["selavprpp-vitb14"].code_bits, rows["selavprpp-vitb14"].descriptor_bytes) == (512, 4096 + 64)
    assert rows["selavprpp-vitl14"].feature_bytes == 0
    assert "Pitts30k" in rows["selavpr-vitl14"].published
    assert rows["SALAD"].licence == "GPL-3.0"


def test_bench_measures_what_loads_and_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["--model", "efficientnet-lite0", "--model", "selavprpp-vitb14"]
    assert main(["models", "--bench", "--json", *names]) == 0
    first, second = json.loads(capsys.readouterr().out)["models"]
    assert first["ms_per_photo"] > 0
    assert "import-weights" in second["not_measured"]
    assert main(["models", *names]) == 0
    shown = capsys.readouterr().out
    assert "code of 512 bits" in shown
    assert "Apache-2.0" in shown


def test_files_are_listed_by_their_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.safetensors"
    assert main(["import-weights", str(GOLDEN / "selavprpp_small.pth"), "--out", str(path)]) == 0
    assert "descriptor 2048, code of 512 bits" in capsys.readouterr().out
    assert main(["models", "--model", str(path)]) == 0
    assert "local features none" in capsys.readouterr().out
    (row,) = list_models([str(path)])
    assert (row["descriptor_dim"], row["code_bits"], row["feature_bytes"]) == (2048, 512, 0)
