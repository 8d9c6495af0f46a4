"""Every flag that does not fit a given store is refused, by every verb, before anything is done.

Verbs and flags come from the real parser: a new flag of a verb that takes a store must be named here, and a
new verb is tried with each flag that a store fixes.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from models.store_fit import FITS, require_fit
from models.weights import load_card
from pipelines.cli import main
from pipelines.cli.arguments.service import ROLES
from pipelines.cli.parser import build_parser
from storage.errors import CardMismatch
from storage.store import Store
from tests.support.pictures import write_photos
from tests.support.store_samples import make_card, make_store
from tests.support.training_city import write_tiny_vit

# Flags that any store can be used with, whatever its card says.
FREE = {
    *("help", "json", "format", "max_wrong", "elsewhere", "rerank", "store", "url", "quiet", "max_rejected"),
    *("source", "image", "dataset", "image_id", "root", "id_prefix", "rejected", "trace", "report", "out"),
    *("protocol", "keys", "descriptors", "fresh", "weights"),
    *("listing", "radius_m", "near_m", "far_m", "duplicate_similarity"),
    *("storage_option", "cache_dir", "source_option", "photo_column"),
    *("target_recall", "target_ms", "photos", "settings"),
    *("use", "split", "database", "queries", "predictions", "batch_size", "extractors", "gpus_per_extractor"),
    *("commit_every", "scaled_decode", "max_megapixels", "follow_links"),
    *("moved_from", "prune", "prune_share"),
    *("near", "within", "heading", "heading_tolerance", "taken_after", "taken_before", "tag", "prior"),
    *("add", "remove", "all"),
    *("fps", "speed", "odometry", "lag", "drive", "workers"),
    *("no_review", "accepted", "write_gps", "in_place", "copies", "undo"),
    *("precision", "compile", "top_k", "candidates", "no_rerank", "score", "matching", "stop_early"),
    *("rerank_budget_ms", "threshold_m", "host", "port", "topology", "shards", "method", "memory_gib"),
    *("refresh_s", "cache_mib", "max_batch", "max_queue", "max_in_flight", "max_candidates"),
    *(
        "request_timeout_s",
        "receive_timeout_s",
        "max_body_mib",
        "threads",
        "tiles",
        "allowed_hosts",
        "log_file",
        "repair",
    ),
    *("images", "cores", "gpus", "gpu_images_per_s", "trial"),
    *(f"price_{what}" for what in ("core_hour", "gpu_hour", "gb_month", "thousand_writes", "thousand_reads")),
    *("commit_seconds", "stall_timeout", "cpus", "decoder_labels", "decoder_resources"),
    *("extractor_labels", "extractor_resources", "min_age", "dry_run", "keep_versions"),
    *("at", "forget", "name", "version", "to"),
    *(f"{role}_{what}" for role in ROLES for what in ("replicas", "gpus")),
}
OTHER = {
    "image_size": "224x448",
    "features": "int8",
    "aggregation": "learned",
    "model": "tiny-vit.safetensors",
}


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the verbs that take a store."""
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parsers: dict[str, argparse.ArgumentParser] = action.choices
    return {name: parser for name, parser in parsers.items() if "store" in flags(parser)}


def flags(parser: argparse.ArgumentParser) -> set[str]:
    return {action.dest for action in parser._actions}


CASES = [(verb, flag) for verb, parser in verbs().items() for flag in sorted(flags(parser) & FITS.keys())]


def operands(parser: argparse.ArgumentParser, folder: Path) -> list[str]:
    """Return what else a verb requires, as its parser says."""
    values = {"source": "set", "dataset": "set", "image": "photo.jpg", "image_id": "id", "out": "out.npz"}
    given: list[str] = []
    for action in parser._actions:
        if action.required or not action.option_strings:
            if action.dest == "store":
                continue
            value = "10" if action.dest == "images" else str(folder / values[action.dest])
            given += [action.option_strings[-1], value] if action.option_strings else [value]
    return given


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flags")
    make_store(folder / "store", ["a", "b"])
    for name in ("database", "queries"):
        write_photos(folder / "set" / name, 2)
    write_photos(folder, 1)[0].rename(folder / "photo.jpg")
    write_tiny_vit(folder / "tiny-vit.safetensors")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_flag_of_a_verb_with_a_store_is_fixed_by_the_store_or_free() -> None:
    assert not FREE & FITS.keys()
    assert OTHER.keys() == FITS.keys()
    for verb, parser in verbs().items():
        unknown = flags(parser) - FREE - FITS.keys()
        assert not unknown, (
            f"{verb} has new flags {unknown}: does a store fix them? Then they belong into "
            "models.store_fit.FITS, otherwise into FREE of this test"
        )


def test_the_verbs_that_use_vectors_are_tried() -> None:
    assert {verb for verb, _ in CASES} >= {"index", "query", "serve", "evaluate", "embed"}
    assert {flag for _, flag in CASES} == FITS.keys()


@pytest.mark.parametrize(("verb", "flag"), CASES)
def test_a_flag_that_does_not_fit_the_store_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str, flag: str
) -> None:
    parser, store, option = verbs()[verb], folder / "store", "--" + flag.replace("_", "-")
    value = str(folder / OTHER[flag]) if flag == "model" else OTHER[flag]
    before = contents(folder)

    code = main([verb, *operands(parser, folder), "--store", str(store), option, value])

    shown = capsys.readouterr()
    assert code == 5, shown.err
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    stored = FITS[flag].of_card(make_card())
    for part in (option, value, str(store), f"{FITS[flag].what} is {stored}", f"leave {option} out"):
        assert part in shown.err
    assert contents(folder) == before


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"image_size": None, "features": None},
        {"image_size": (32, 32), "features": "float16"},
        {"top_k": 3},
    ],
)
def test_flags_that_fit_or_are_not_given_pass(tmp_path: Path, given: dict[str, Any]) -> None:
    require_fit(tmp_path, make_card(), given)
    with pytest.raises(CardMismatch, match="--features int8 does not fit"):
        require_fit(tmp_path, make_card(), given | {"features": "int8"})


def test_the_model_of_a_store_fits_by_name_and_by_file(tmp_path: Path) -> None:
    weights = str(write_tiny_vit(tmp_path / "tiny-vit.safetensors"))
    for model, size in ((weights, (56, 56)), ("efficientnet-lite0", (224, 224))):
        card = load_card(model, image_size=size)
        require_fit(
            tmp_path, card.stored_as("int8"), {"model": model, "image_size": size, "features": "int8"}
        )
        other = dataclasses.replace(card, weights_sha256="1" * 64)
        with pytest.raises(CardMismatch, match="--model"):
            require_fit(tmp_path, other.stored_as("int8"), {"model": model})


def test_a_store_of_trained_weights_names_the_flag_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name on the card stands for the published weights, which did not make this store."""
    card = load_card("efficientnet-lite0")
    trained = dataclasses.replace(card, weights_sha256="1" * 64)
    Store.create(tmp_path / "store", trained)
    (photo,) = write_photos(tmp_path, 1)
    assert main(["query", str(photo), "--store", str(tmp_path / "store")]) == 5
    message = capsys.readouterr().err
    assert "weights 111111111111" in message
    assert "give the weights file that made the store with --model" in message


def test_a_card_of_the_same_weights_with_another_preprocessing_is_refused(tmp_path: Path) -> None:
    card = load_card("efficientnet-lite0")
    preprocessing = dataclasses.replace(card.preprocessing, mean=(0.1, 0.2, 0.3))
    other = dataclasses.replace(card, preprocessing=preprocessing)
    with pytest.raises(CardMismatch, match="preprocessing"):
        require_fit(tmp_path, other, {"model": "efficientnet-lite0"})
