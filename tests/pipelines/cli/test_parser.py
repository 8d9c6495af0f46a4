"""The flags of every verb, and how they are generated from settings."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from models.training.options import Augmentation
from pipelines.cli.flags import add_flag, add_settings
from pipelines.cli.parser import build_parser
from pipelines.training.settings import TrainingSettings, settings_of
from serving.settings import ServeSettings
from tests.support.paths import ROOT

EXECUTION = "precision compile"
MODEL = "model weights"
STORE = "store storage-option cache-dir"
MATCHING = "score matching stop-early rerank-budget-ms"
ROLES = ("ingress", "extractor", "searcher", "reranker")
FILTERS = "near radius-m within heading heading-tolerance taken-after taken-before tag"
FLAGS = {
    "demo": "out seed database queries hard drive quiet",
    "index": f"{STORE} {MODEL} features aggregation root id-prefix tag batch-size extractors "
    "gpus-per-extractor cpus source-option photo-column "
    "extractor-resources extractor-labels decoder-resources decoder-labels commit-every commit-seconds "
    "stall-timeout "
    f"rejected scaled-decode max-megapixels follow-links moved-from prune prune-share "
    f"trace {EXECUTION} image-size max-rejected quiet",
    "query": f"{STORE} url {MODEL} aggregation top-k candidates no-rerank rerank max-wrong format "
    f"max-megapixels {EXECUTION} {MATCHING} max-rejected {FILTERS} prior",
    "serve": f"{STORE} at settings host port {MODEL} aggregation topology shards method {EXECUTION} "
    f"{MATCHING} memory-gib refresh-s "
    "cache-mib max-batch max-queue max-in-flight candidates max-candidates request-timeout-s "
    "receive-timeout-s max-body-mib max-megapixels threads allowed-hosts tiles log-file "
    + " ".join(f"{role}-replicas {role}-gpus" for role in ROLES),
    "evaluate": f"database queries root {MODEL} {STORE} split candidates no-rerank rerank threshold-m "
    f"{EXECUTION} {MATCHING} protocol keys descriptors url fresh report predictions features aggregation "
    "image-size max-megapixels follow-links quiet",
    "compare": "report",
    "tune": f"{STORE} target-recall target-ms out split protocol photos model {EXECUTION} quiet",
    "atlas": f"{STORE} out listing root radius-m near-m far-m duplicate-similarity",
    "export": f"{STORE} model out image-size",
    "finetune": "out split val val-split workers gpus-per-worker run storage max-failures keep-floor model "
    "epochs patience queries-per-epoch queries-per-round sampled batch accumulate negatives mining "
    "positive-m negative-m learning-rate weight-decay margin local-weight adapter-stages local-head codes "
    "precision recompute seed val-queries val-candidates threshold-m threads jitter perspective crop "
    "rotation-deg flip image-size max-megapixels follow-links max-rejected quiet",
    "embed": f"{MODEL} {STORE} out aggregation {EXECUTION} image-size max-megapixels max-rejected",
    "import-weights": "out heads whole",
    "models": f"model bench {EXECUTION}",
    "info": f"{STORE}",
    "verify": f"{STORE} repair",
    "plan": f"images {STORE} cores gpus gpu-images-per-s trial photos {MODEL} features aggregation "
    f"image-size scaled-decode {EXECUTION} quiet price-core-hour price-gpu-hour price-gb-month "
    "price-thousand-writes price-thousand-reads",
    "compact": f"{STORE} min-age keep-versions dry-run",
    "history": f"{STORE}",
    "tag-version": f"{STORE} version remove",
    "rollback": f"{STORE} to",
    "relearn": f"{STORE} use dataset split {MODEL} threshold-m quiet",
    "calibrate": f"{STORE} max-wrong elsewhere split {MODEL} candidates no-rerank threshold-m "
    f"{EXECUTION} {MATCHING} method quiet",
    "upgrade": f"{STORE}",
    "delete": f"{STORE} forget",
    "build-index": f"{STORE} workers quiet",
    "copy": "storage-option cache-dir quiet",
    "locate": f"{STORE} out {MODEL} aggregation candidates no-rerank rerank max-wrong all no-review "
    f"follow-links max-megapixels {EXECUTION} {MATCHING} {FILTERS} prior accepted write-gps in-place copies "
    "undo quiet",
    "track": f"{STORE} fps speed odometry lag format out {MODEL} aggregation candidates no-rerank rerank "
    f"max-megapixels {EXECUTION} {MATCHING} max-rejected quiet",
    "tag": f"{STORE} add remove id source all dry-run {FILTERS}",
}


def verbs() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parsers: dict[str, argparse.ArgumentParser] = action.choices
    return parsers


def test_every_verb_has_its_flags() -> None:
    flags_by_verb = {
        verb: {flag.removeprefix("--") for action in parser._actions for flag in action.option_strings}
        for verb, parser in verbs().items()
    }
    assert flags_by_verb == {verb: {*flags.split(), "json", "help", "-h"} for verb, flags in FLAGS.items()}


def test_every_flag_is_described() -> None:
    for verb, parser in verbs().items():
        for action in parser._actions:
            assert action.help or action.dest in ("image_id", "checkpoint", "out"), (verb, action.dest)


def test_help_names_the_default_of_every_setting() -> None:
    for verb, settings in (("serve", ServeSettings(store="x")), ("finetune", TrainingSettings())):
        help_text = " ".join(verbs()[verb].format_help().split())
        for name in FLAGS[verb].split():
            value = getattr(settings, name.replace("-", "_"), None)
            if isinstance(value, float) or (type(value) is int and value):
                assert f"default: {value:g}" in help_text.split(f"--{name} ")[-1].split(" --")[0], name


def test_settings_without_a_flag_keep_their_default() -> None:
    args = build_parser().parse_args(["finetune", "city", "--out", "w.safetensors", "--seed", "3"])
    assert settings_of(vars(args)) == TrainingSettings(seed=3)
    args = build_parser().parse_args(["finetune", "city", "--out", "w.safetensors", "--flip", "0.5"])
    assert settings_of(vars(args)).augmentation == Augmentation(flip=0.5)


@pytest.mark.parametrize(
    "arguments",
    [
        "index src --store s --batch-size 0",
        "index src --store s --batch-size many",
        "index src --store s --image-size 0x3",
        "index src --store s --features float64",
        "index src --store s --max-rejected -0.1",
        "query a.jpg",
        "query a.jpg --store s --url http://x",
        "query a.jpg --store s --rerank-budget-ms nan",
        "serve --store s --max-batch 1025",
        "serve --store s --threads 0",
        "serve --store s --ingress-replicas 0..2",
        "serve --store s --topology wide",
        "finetune city --out w --crop 1",
        "finetune city --out w --workers ..",
        "finetune city --out w --adapter-stages 2,x",
    ],
)
def test_bad_input_exits_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(arguments.split())
    assert caught.value.code == 2
    assert "placeray" in capsys.readouterr().err


@dataclass
class Recipe:
    rate: float = field(default=0.5, metadata={"help": "learning rate", "gt": 0, "le": 1})
    stages: tuple[int, ...] = field(default=(2, 3), metadata={"help": "stages, 100% of them"})
    kind: Literal["a", "b"] = field(default="a", metadata={"help": "which"})
    quick: bool = field(default=False, metadata={"help": "hurry"})
    size: tuple[int, int] | None = field(default=None, metadata={"help": "size; default: the model's"})


class Model(BaseModel):
    rate: float | None = Field(default=0.5, gt=0, le=1, description="learning rate")
    stages: int = 3


def parsed(settings: type, names: str, *arguments: str, **options: Any) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_settings(parser, settings, *names.split(), **options)
    return vars(parser.parse_args(arguments))


def test_values_are_parsed_by_the_type_of_the_field() -> None:
    names = "rate stages kind quick size"
    assert parsed(Recipe, names) == {}
    values = parsed(
        Recipe, names, *["--rate", "1", "--stages", "4,5", "--kind", "b", "--quick", "--size", "224"]
    )
    assert values == {"rate": 1.0, "stages": (4, 5), "kind": "b", "quick": True, "size": (224, 224)}
    assert parsed(Recipe, "pace", "--pace", "0.25", aliases={"pace": "rate"}) == {"pace": 0.25}


@pytest.mark.parametrize("settings", [Recipe, Model])
@pytest.mark.parametrize("value", ["0", "1.5", "nan", "x"])
def test_flags_enforce_the_bounds_of_the_field(
    settings: type, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(settings, "rate", "--rate", value)
    assert ("above 0 and at most 1" in capsys.readouterr().err) is (value != "x")
    with pytest.raises(SystemExit):
        parsed(settings, "rate", "--rate", "0.4", ge=0.5)


def test_help_comes_from_the_field() -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser, Recipe, "rate", "stages", "quick", "size")
    add_flag(parser, "timeout_s", float, "patience", default=2.0)
    text = " ".join(parser.format_help().split())
    assert "--rate X learning rate; default: 0.5 --stages" in text
    assert "stages, 100% of them; default: 2,3 --quick hurry --size HxW size; default: the model's" in text
    assert text.endswith("--timeout-s S patience; default: 2")


def test_help_of_every_verb_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pipelines.cli import main\n"
        "for verb in ((), *((v,) for v in sys.argv[1:])):\n"
        "    try: main([*verb, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'ray', 'lancedb', 'pyarrow', 'PIL', 'numpy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    command = [sys.executable, "-c", code, *FLAGS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: placeray delete" in done.stdout
