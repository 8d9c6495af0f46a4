"""Import of published checkpoints: exact, and safe against damaged or malicious files."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.checkpoints.importing import import_checkpoint
from models.checkpoints.tensors import weights_digest
from models.errors import WeightsRejected
from models.images.decoder import decode_image
from models.networks.architecture import Architecture
from models.networks.selavpr import SelaVPR
from models.weights import load_extractor
from storage.card import Card
from tests.support.paths import GOLDEN
from tests.support.weights_samples import CHECKPOINT, golden_checkpoint


def saved(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    return path


def rejection(path: Path, tmp_path: Path) -> str:
    out = tmp_path / "out.safetensors"
    with pytest.raises(WeightsRejected) as caught:
        import_checkpoint(path, out)
    assert ": " in str(caught.value), "the message names no next step"
    assert not out.exists()
    return caught.value.reason


def test_import_is_deterministic(imported: tuple[Path, Card], tmp_path: Path) -> None:
    assert import_checkpoint(CHECKPOINT, tmp_path / "again.safetensors") == imported[1]
    again = safetensors.torch.load_file(tmp_path / "again.safetensors")
    assert weights_digest(again) == imported[1].weights_sha256


def test_import_num_heads_changes_outputs(imported: tuple[Path, Card], tmp_path: Path) -> None:
    path = tmp_path / "heads.safetensors"
    import_checkpoint(CHECKPOINT, path, num_heads=6)
    picture = [decode_image((GOLDEN / "image_2.png").read_bytes()).pixels]
    results = [load_extractor(str(p), device="cpu").extract(picture)[0] for p in (imported[0], path)]
    assert np.abs(results[0] - results[1]).max() > 1e-4


def test_import_without_local_head_matches_on_tokens(tmp_path: Path) -> None:
    checkpoint = golden_checkpoint()
    state = checkpoint["model_state_dict"]
    checkpoint["model_state_dict"] = {name: state[name] for name in state if "LocalAdapt" not in name}
    card = import_checkpoint(saved(tmp_path, checkpoint), tmp_path / "out.safetensors")
    assert (card.grid_height, card.grid_width, card.feature_dim) == (16, 16, 96)


def published_dinov2(registers: int, *, gated: bool = False) -> tuple[dict[str, Tensor], SelaVPR]:
    """A bare checkpoint with DINOv2's own names, and the model it must become."""
    torch.manual_seed(0)
    shape = Architecture(64, 2, 1, 256 if gated else 128, registers=registers, gated_mlp=gated)
    model = SelaVPR(shape, local_head=False).eval()
    model.local_layer = model.description.local_layer
    vit = model.backbone.vit.state_dict()
    state = {name: torch.randn_like(tensor) * 0.1 for name, tensor in vit.items()}
    model.backbone.vit.load_state_dict(state)
    if gated:
        state = {name.replace("fc1", "w12").replace("fc2", "w3"): state[name] for name in state}
    if registers:
        position = torch.randn(1, 1, 64)
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat((position, state["pos_embed"]), dim=1)
        state["register_tokens"] = state.pop("reg_token")
    return state | {"mask_token": torch.zeros(1, 64)}, model


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_import_plain_dinov2_equals_the_model(
    registers: int, gated: bool, prefix: str, tmp_path: Path
) -> None:
    state, model = published_dinov2(registers, gated=gated)
    path = saved(tmp_path, {prefix + name: tensor for name, tensor in state.items()})
    card = import_checkpoint(path, tmp_path / "out.safetensors")
    network = load_extractor(str(tmp_path / "out.safetensors"), device="cpu").network
    images = torch.randn(1, 3, 42, 28)
    with torch.inference_mode():
        expected, descriptors = model(images), network(images)
    torch.testing.assert_close(descriptors, expected, atol=1e-5, rtol=1e-5)
    assert card.model == "selavpr-vit64x2" + ("-reg4" if registers else "")


class Canary:
    """Unpickling this without care writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.path, "sung")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle", "inside", "lightning"])
def test_import_malicious_pickle_executes_nothing(suffix: str, form: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / f"evil{suffix}"
    content: Any = Canary(canary)
    if form == "inside":
        content = golden_checkpoint() | {"recalls": content}
    elif form == "lightning":
        content = {"state_dict": {"w": torch.zeros(1)}, "hyper_parameters": content}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    assert rejection(path, tmp_path) == "unsafe"
    with pytest.raises(WeightsRejected):
        load_extractor(str(path), device="cpu")
    assert not canary.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, eval, getattr, open])
def test_import_bare_pickle_of_any_protocol_is_called_unsafe(
    protocol: int, function: Callable[..., Any], tmp_path: Path
) -> None:
    class Call:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return function, ("false",)

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Call(), protocol=protocol))
    assert rejection(path, tmp_path) == "unsafe"


def test_import_archive_that_expands_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.zeros(1 << 22)}, tmp_path / "plain.pth")
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(path, "w") as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member), compress_type=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(torch, "load", None)
    assert rejection(path, tmp_path) == "unsafe"


def test_import_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    state = golden_checkpoint()
    state["model_state_dict"]["module.extra"] = torch.zeros(1).expand(1 << 40)
    torch.save(state, tmp_path / "expanded.pth")
    assert rejection(tmp_path / "expanded.pth", tmp_path) == "unsafe"


def damaged(name: str, tmp_path: Path) -> Path:
    whole = CHECKPOINT.read_bytes()
    path = tmp_path / "damaged.pth"
    if name == "folder":
        path.mkdir()
    elif name == "nested folder in zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/b.txt", "no checkpoint")
    elif name != "missing":
        content = {
            "empty": b"",
            "text": b"epoch 3, loss 0.1\n" * 100,
            "half": whole[: len(whole) // 2],
            "almost whole": whole[:-20],
            "noise": np.random.default_rng(0).bytes(5000),
        }[name]
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "not_a_file"),
        ("folder", "not_a_file"),
        ("empty", "unreadable"),
        ("half", "unreadable"),
        ("almost whole", "unreadable"),
        ("nested folder in zip", "unreadable"),
    ],
)
def test_import_damaged_file_rejected(name: str, reason: str, tmp_path: Path) -> None:
    assert rejection(damaged(name, tmp_path), tmp_path) == reason


@pytest.mark.parametrize("name", ["text", "noise"])
def test_import_other_files_rejected(name: str, tmp_path: Path) -> None:
    assert rejection(damaged(name, tmp_path), tmp_path) in ("unreadable", "unsafe")


def drop(state: dict[str, Any], name: str) -> None:
    del state[f"module.{name}"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: drop(state, "backbone.patch_embed.proj.weight"), "wrong_layout"),
        (lambda state: drop(state, "backbone.pos_embed"), "wrong_layout"),
        (lambda state: drop(state, "backbone.norm.bias"), "missing_tensors"),
        (lambda state: drop(state, "backbone.blocks.1.adapter1.D_fc1.bias"), "missing_tensors"),
        (lambda state: drop(state, "LocalAdapt.upconv2.bias"), "missing_tensors"),
        (lambda state: drop(state, "aggregation.1.p"), "missing_tensors"),
        (lambda state: state.update({"module.classifier.weight": torch.zeros(3)}), "unknown_tensors"),
        (lambda state: state.update({"module.backbone.norm.bias": torch.zeros(95)}), "wrong_shapes"),
        (lambda state: state.update({"module.backbone.pos_embed": torch.zeros(1, 1371, 96)}), "wrong_layout"),
        (lambda state: state.update({"module.backbone.pos_embed": torch.zeros(1370, 96)}), "wrong_layout"),
        (
            lambda state: state.update({"module.backbone.blocks.77.norm1.bias": torch.zeros(96)}),
            "wrong_layout",
        ),
        (
            lambda state: state.update({"module.backbone.norm.bias": torch.full((96,), torch.nan)}),
            "not_finite",
        ),
        (
            lambda state: state.update(
                {"module.backbone.norm.bias": torch.full((96,), 1e39, dtype=torch.float64)}
            ),
            "not_finite",
        ),
        (lambda state: state.update({"module.backbone.norm.bias": np.zeros(96, np.float32)}), "wrong_layout"),
        (lambda state: state.update({"backbone.norm.bias": torch.zeros(96)}), "wrong_layout"),
        (lambda state: state.update({3: torch.zeros(96)}), "wrong_layout"),
        (lambda state: state.clear(), "wrong_layout"),
    ],
)
def test_import_changed_tensors_rejected(
    change: Callable[[dict[Any, Any]], None], reason: str, tmp_path: Path
) -> None:
    checkpoint = golden_checkpoint()
    change(checkpoint["model_state_dict"])
    assert rejection(saved(tmp_path, checkpoint), tmp_path) == reason


@pytest.mark.parametrize("content", [3, [torch.zeros(2)], {"model_state_dict": 3}, {"state_dict": {}}, {}])
def test_import_other_content_rejected(content: Any, tmp_path: Path) -> None:
    assert rejection(saved(tmp_path, content), tmp_path) == "wrong_layout"


def test_import_heads_that_do_not_divide_width_rejected(tmp_path: Path) -> None:
    with pytest.raises(WeightsRejected, match="attention heads"):
        import_checkpoint(CHECKPOINT, tmp_path / "out.safetensors", num_heads=7)
