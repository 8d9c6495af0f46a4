"""Training of SelaVPR++: both stages learn, the trunk and the other branch stay, and runs resume."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.checkpoints.tensors import weights_digest
from models.checkpoints.untrained_selavprpp import untrained_selavprpp
from models.checkpoints.weights_file import save_weights
from models.networks.architecture import Architecture
from models.networks.selavprpp import SelaVPRpp
from models.training.trainable import trainable_state
from models.weights import load_extractor
from pipelines.cli import main
from pipelines.training.data import open_training_set
from pipelines.training.errors import BadSettings
from pipelines.training.loop import TrainingLoop
from pipelines.training.worker import trainable_model
from tests.support.training_city import SIDE, tiny_settings, write_city, write_tiny_vit

SHAPE = Architecture(width=32, depth=2, num_heads=2, mlp_width=64)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_city(tmp_path_factory.mktemp("training") / "city")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    with torch.device("meta"):
        trunk_names = SelaVPRpp(untrained_description()).backbone.state_dict()
    trunk = {
        f"backbone.{name}": torch.randn(tensor.shape) * (0.02 if "pos_embed" in name else 0.3)
        for name, tensor in trunk_names.items()
    }
    path = tmp_path_factory.mktemp("training") / "start.safetensors"
    save_weights(path, untrained_selavprpp(SHAPE, trunk))
    return path


def untrained_description() -> Any:
    from models.networks.selavprpp_description import SelaVPRppDescription

    return SelaVPRppDescription(SHAPE, adapters=2, float_dim=2048, code_bits=None)


def make_loop(city: Path, start: Path, **changes: Any) -> TrainingLoop:
    settings = tiny_settings(start, **changes)
    model, card = trainable_model(settings)
    sets = (open_training_set(city, split=split) for split in ("train", "val"))
    return TrainingLoop(model, card.preprocessing, settings, *sets)


def parts(model: SelaVPRpp) -> dict[str, str]:
    state = model.state_dict()
    prefixes = ("backbone.", "float_branch.", "hash_branch.")
    return {
        prefix: weights_digest({name: value for name, value in state.items() if name.startswith(prefix)})
        for prefix in prefixes
    }


@pytest.mark.parametrize(("codes", "trained"), [(False, "float_branch."), (True, "hash_branch.")])
def test_only_the_chosen_branch_changes(codes: bool, trained: str, city: Path, start: Path) -> None:
    loop = make_loop(city, start, codes=codes, epochs=1)
    before = parts(loop.model)  # type: ignore[arg-type]
    with contextlib.closing(loop):
        loop.run()
    after = parts(loop.model)  # type: ignore[arg-type]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {trained}
    assert any("running_mean" in name for name in trainable_state(loop.model))


def test_loss_falls_and_the_trained_model_gives_codes(city: Path, start: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    settings = tiny_settings(start, codes=True, epochs=4)
    model, card = trainable_model(settings)
    sets = (open_training_set(city, split=split) for split in ("train", "val"))
    loop = TrainingLoop(model, card.preprocessing, settings, *sets, on_row=rows.append)
    with contextlib.closing(loop):
        loop.run()
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    assert all(loss >= 0 for loss in losses)
    assert min(losses[1:]) < losses[0]
    path = tmp_path / "trained.safetensors"
    assert save_weights(path, model, preprocessing=card.preprocessing).code_bits == 512
    photo = torch.randint(0, 255, (60, 60, 3), dtype=torch.uint8).numpy()
    codes = load_extractor(str(path), device="cpu").extraction([photo]).codes
    assert codes is not None
    assert codes.shape == (1, 64)


def test_resumed_training_has_the_same_weights_and_statistics(
    city: Path, start: Path, tmp_path: Path
) -> None:
    loop = make_loop(city, start, epochs=1)
    with contextlib.closing(loop):
        loop.run()
        loop.save(tmp_path / "state.safetensors", {})
    again = make_loop(city, start, epochs=1)
    with contextlib.closing(again):
        again.restore(tmp_path / "state.safetensors")
    assert weights_digest(loop.model.state_dict()) == weights_digest(again.model.state_dict())


def test_codes_are_trained_for_selavprpp_alone(tmp_path: Path) -> None:
    vit = write_tiny_vit(tmp_path / "vit.safetensors")
    with pytest.raises(BadSettings, match="leave --codes out"):
        trainable_model(tiny_settings(vit, codes=True))


@pytest.mark.long
def test_both_stages_are_trained_to_their_reports(
    city: Path, start: Path, tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    model = start
    for stage, flags in (("float", []), ("codes", ["--codes"])):
        out = tmp_path / f"{stage}.safetensors"
        command = ["finetune", str(city), "--model", str(model), "--out", str(out), *flags, "--epochs", "1"]
        command += ["--image-size", f"{SIDE}x{SIDE}", "--queries-per-epoch", "8", "--queries-per-round", "4"]
        command += ["--batch", "2", "--threads", "1", "--val-candidates", "8", "--quiet"]
        assert main(command) == 0
        report = json.loads((out.with_suffix(".run") / "report.json").read_text())
        gain = report["recall"]["gain"]
        assert gain["global"] == gain["reranked"]  # there is nothing to re-rank by
        over = report["facts"]["gain_over_best_before"]
        assert over["global"] == over["reranked"] == gain["global"]["1"]
        assert f"{over['global']:+.1f} by global descriptor" in capsys.readouterr().out
        model = out
