"""Models of others: loaded as their file says, refused where their descriptors cannot be compared."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from models.custom.errors import BadModelFile, ModelUnfit
from models.custom.reference import carried, portable_model, read_reference, shown
from models.errors import BadImageSize, UnknownModel, WeightsRejected, WeightsUnavailable
from models.networks.attention_features import attention_features
from models.networks.local_layer import LocalLayer
from models.weights import load_card, load_extractor, load_network
from storage.card import Card

MODULE = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, kind, width):
        super().__init__()
        self.kind = kind
        self.stem = nn.Conv2d(3, 16, 3, stride=4)
        self.head = nn.Linear(16, width)

    def forward(self, images):
        maps = self.stem(images).relu()
        pooled = self.head(maps.amax((2, 3)) + maps.mean((2, 3)))
        if self.kind == "batch":
            pooled = pooled - pooled.mean(dim=0, keepdim=len(pooled) > 1) * 0.5
        if self.kind == "random":
            pooled = pooled + torch.rand_like(pooled)
        if self.kind == "constant":
            pooled = torch.ones_like(pooled)
        if self.kind == "raw":
            return pooled * 3
        out = F.normalize(pooled, dim=1)
        return {"dict": {"global": out, "maps": maps}, "tuple": (maps, out), "map": maps}.get(self.kind, out)

def net(kind="good", width=24):
    return Net(kind, width)

def text():
    return "no module"
"""
INPUT = "[input]\nsize = [64, 96]\nmultiple_of = 32\n"


@pytest.fixture(autouse=True)
def clean_modules() -> Iterator[None]:
    before = {*sys.modules}
    finders = list(sys.meta_path)
    yield
    for name in {*sys.modules} - before:
        if name.startswith("net_of_mine"):
            del sys.modules[name]
    sys.meta_path[:] = finders


def model_file(folder: Path, kind: str = "good", more: str = INPUT, *, top: str = "") -> str:
    (folder / "net_of_mine.py").write_text(MODULE)
    path = folder / "mine.toml"
    path.write_text(
        f'model = "python:net_of_mine:net"\nlicence = "MIT"\narguments = {{kind = "{kind}"}}\n{top}\n{more}'
    )
    return str(path)


def photos(count: int = 3) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 255, (count, 70, 90, 3), dtype=np.uint8))


def test_python_module_gives_unit_descriptors(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    extractor = load_extractor(path, device="cpu")
    descriptors, features = extractor.extract(photos())
    assert (descriptors.shape, features.shape) == ((3, 24), (3, 0, 0, 0))
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-6)
    card = extractor.card
    assert (card.model, card.preprocessing.height, card.preprocessing.width) == ("custom:mine", 64, 96)
    assert load_card(path) == card == Card.from_json(card.to_json())
    assert card.stored_as("none").has_features is False
    assert load_card(path, image_size=(96, 32)).preprocessing.height == 96
    with pytest.raises(BadImageSize, match="multiples of 32"):
        load_card(path, image_size=(100, 100))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("batch", "model_depends_on_batch"),
        ("random", "model_not_repeatable"),
        ("constant", "model_constant"),
        ("raw", "model_not_unit"),
        ("map", "model_output"),
        ("dict", "model_output"),
    ],
)
def test_self_test_refuses_what_cannot_be_compared(kind: str, reason: str, tmp_path: Path) -> None:
    path = model_file(tmp_path, kind)
    for load in (load_card, load_extractor):
        with pytest.raises(ModelUnfit, match=": ") as caught:
            load(path)
        assert (caught.value.reason, caught.value.exit_code) == (reason, 2)
        assert "mine.toml" in str(caught.value)


def test_batch_of_one_makes_a_batch_dependent_model_usable(tmp_path: Path) -> None:
    path = model_file(tmp_path, "batch", top="batch = 1")
    extractor = load_extractor(path, device="cpu")
    together = extractor.extract(photos())[0]
    alone = [extractor.extract([photo])[0][0] for photo in photos()]
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(("kind", "selector"), [("dict", '"global"'), ("tuple", "1")])
def test_output_is_selected_by_key_or_index(kind: str, selector: str, tmp_path: Path) -> None:
    path = model_file(tmp_path, kind, f"{INPUT}[output]\ndescriptor = {selector}\ndim = 24\n")
    ours = load_extractor(path, device="cpu").extract(photos())[0]
    plain = load_extractor(model_file(tmp_path), device="cpu").extract(photos())[0]
    np.testing.assert_allclose(ours, plain, atol=1e-6)


def test_a_map_gives_local_features(tmp_path: Path) -> None:
    more = f'{INPUT}[output]\ndescriptor = "global"\n[local]\noutput = "maps"\nmin_similarity = 0.5\n'
    extractor = load_extractor(model_file(tmp_path, "dict", more), device="cpu")
    features = extractor.extract(photos())[1]
    assert features.shape == (3, 16, 24, 16)
    assert (extractor.card.grid_height, extractor.card.feature_dim) == (16, 16)
    assert extractor.card.min_similarity == 0.5
    norms = np.linalg.norm(features, axis=-1)
    assert np.logical_or(np.isclose(norms, 1, atol=1e-5), norms == 0).all()


def test_fingerprint_covers_weights_arguments_code_and_outputs(tmp_path: Path) -> None:
    digests = [load_card(model_file(tmp_path)).weights_sha256]
    digests.append(load_card(model_file(tmp_path, top="batch = 1")).weights_sha256)
    digests.append(
        load_card(model_file(tmp_path, more=f"{INPUT}[output]\nnormalise = true\n")).weights_sha256
    )
    path = model_file(tmp_path)
    (tmp_path / "net_of_mine.py").write_text(MODULE + "# changed\n")
    digests.append(load_card(path).weights_sha256)
    other = load_network(model_file(tmp_path))[0].module.state_dict()
    changed = {name: (value + 0.1).contiguous() for name, value in other.items()}
    safetensors.torch.save_file(changed, tmp_path / "w.safetensors")
    digests.append(load_card(model_file(tmp_path, top='weights = "w.safetensors"')).weights_sha256)
    assert len({*digests}) == 5


def test_carried_model_needs_neither_file_nor_module(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    path = model_file(folder)
    card = load_card(path)
    text = portable_model(path, card)
    shutil.rmtree(folder)
    del sys.modules["net_of_mine"]
    assert load_extractor(text, device="cpu").card == card
    assert shown(text).endswith("mine.toml")
    assert json.loads(text.partition(":")[2])["tested"] == card.weights_sha256


def test_packages_travel_whole(tmp_path: Path) -> None:
    package = tmp_path / "net_of_mine_too"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "parts" / "__init__.py").write_text("from .inner import *")
    (package / "parts" / "inner.py").write_text(MODULE)
    path = tmp_path / "mine.toml"
    path.write_text(f'model = "python:net_of_mine_too.parts:net"\n{INPUT}')
    text = portable_model(str(path), load_card(str(path)))
    shutil.rmtree(package)
    for name in [name for name in sys.modules if name.startswith("net_of_mine_too")]:
        del sys.modules[name]
    assert load_extractor(text, device="cpu").extract(photos())[0].shape == (3, 24)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"stem.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsRejected, match=r"w\.safetensors"):
        load_card(model_file(tmp_path, top='weights = "w.safetensors"'))
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsRejected, match="damaged"):
        load_card(model_file(tmp_path, top='weights = "w.safetensors"'))
    with pytest.raises(WeightsUnavailable, match="--weights"):
        load_card(model_file(tmp_path, top='weights = "none.safetensors"'))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model = ", "not TOML"),
        (INPUT, "not of a form"),
        (f'model = "os:system"\n{INPUT}', "not of a form"),
        (f'model = "hub:a/b:c"\n{INPUT}', "pinned commit"),
        (f'model = "hub:a/b:c"\ncommit = "main"\n{INPUT}', "pinned commit"),
        ('model = "python:m:f"', r"\[input\] is missing"),
        (f'model = "python:m:f"\nbatch = 4\n{INPUT}', "batch"),
        (f'model = "python:m:f"\ntypo = 4\n{INPUT}', "unknown entry 'typo'"),
        ('model = "python:m:f"\n[input]\nsize = [0, 9]', "size"),
        ('model = "python:m:f"\n[input]\nsize = 30\nmultiple_of = 14', "multiple of 14"),
        (f'model = "python:m:f"\n{INPUT}resize = "nearest"', "resize"),
        (f'model = "python:m:f"\n{INPUT}[local]\nmin_similarity = 0.5', "output or a layer"),
        (f'model = "python:m:f"\n{INPUT}[local]\nlayer = -2\npart = "token"', "part"),
        (f'model = "python:m:f"\nname = "../x"\n{INPUT}', "name"),
        (f'model = "python:no_such_module_here:f"\n{INPUT}', "no Python module"),
        ('model = "timm:no_such_network"', "timm has no model"),
    ],
)
def test_model_files_that_describe_no_model_are_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(BadModelFile, match=problem) as caught:
        load_card(str(path))
    assert caught.value.exit_code == 2


def test_entries_that_fail_are_refused(tmp_path: Path) -> None:
    path = Path(model_file(tmp_path))
    for function, error in (("text", ModelUnfit), ("missing", BadModelFile)):
        path.write_text(f'model = "python:net_of_mine:{function}"\n{INPUT}')
        with pytest.raises(error):
            load_card(str(path))
    with pytest.raises(BadModelFile, match="cannot be read"):
        load_card(str(tmp_path / "none.toml"))


def test_stores_do_not_name_a_file_to_load() -> None:
    with pytest.raises(UnknownModel, match=r"give it again with --model FILE\.toml"):
        load_card("custom:mine")


def test_hub_code_runs_at_its_commit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / f"someone_net_{commit}"
    cached.mkdir(parents=True)
    (cached / "hubconf.py").write_text(MODULE)
    path = tmp_path / "hub.toml"
    path.write_text(f'model = "hub:someone/net:net"\ncommit = "{commit}"\nlicence = "GPL-3.0"\n{INPUT}')
    former = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    try:
        card = load_card(str(path))
    finally:
        torch.hub.set_dir(former)
    assert card.model == "custom:hub"
    assert commit in caplog.text
    assert "GPL-3.0" in caplog.text


def test_torchscript_files_are_loaded(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, stride=4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(self.stem(images).amax((2, 3)), dim=1)

    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(Net(), torch.rand(1, 3, 64, 96)).save(str(tmp_path / "net.pt"))
    path = tmp_path / "script.toml"
    path.write_text(f'model = "file:net.pt"\n{INPUT}')
    assert load_extractor(str(path), device="cpu").extract(photos())[0].shape == (3, 8)
    (tmp_path / "net.pt").write_bytes(b"other")
    with pytest.raises(BadModelFile, match="TorchScript"):
        load_card(str(path))


def timm_weights(name: str, folder: Path) -> str:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0)
    path = folder / f"{name}.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    return str(path)


def test_timm_convolutional_network_gives_a_map_at_stride_16(tmp_path: Path) -> None:
    name = "mobilenetv3_small_050"
    model = carried(read_reference(f"timm:{name}", weights=timm_weights(name, tmp_path)))
    extractor = load_extractor(model, device="cpu")
    descriptors, features = extractor.extract(photos())
    assert extractor.card.model == f"timm:{name}"
    assert (descriptors.shape, features.shape[:3]) == ((3, 1024), (3, 14, 14))
    assert extractor.card.feature_layer is None


def test_timm_vision_transformer_gives_values_of_a_late_layer(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    model = carried(read_reference(f"timm:{name}", weights=timm_weights(name, tmp_path)))
    extractor = load_extractor(model, device="cpu", image_size=(64, 96))
    card = extractor.card
    assert (card.feature_layer, card.feature_part, card.grid_height, card.grid_width) == (10, "value", 4, 6)
    assert LocalLayer.of_card(card) is not None
    images = torch.randn(2, 3, 64, 96)
    vit = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval()
    vit.load_state_dict(safetensors.torch.load_file(tmp_path / f"{name}.safetensors"))
    with torch.inference_mode():
        features = extractor.network(images)[1]
        tokens = vit.patch_embed(images)
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(tokens)))
        for block in vit.blocks[:10]:
            tokens = block(tokens)
        expected = attention_features(vit.blocks[10], tokens, LocalLayer(10), prefix=1)
    torch.testing.assert_close(features.flatten(1, 2), expected, atol=1e-5, rtol=1e-4)


def test_timm_files_as_published_have_a_classifier_that_is_left_out(tmp_path: Path) -> None:
    name = "mobilenetv3_small_050"
    torch.manual_seed(0)
    published = timm.create_model(name)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(published.state_dict(), path)
    extractor = load_extractor(carried(read_reference(f"timm:{name}", weights=str(path))), device="cpu")
    backbone = extractor.network.state_dict()
    assert not [key for key in backbone if "classifier" in key]
    kept = [tensor for key, tensor in published.state_dict().items() if "classifier" not in key]
    assert len(kept) > 100
    assert all(any(torch.equal(tensor, mine) for mine in backbone.values()) for tensor in kept[:5])
    other = {**published.state_dict(), "other.weight": torch.ones(2)}
    safetensors.torch.save_file(other, path)
    with pytest.raises(WeightsRejected, match=r"other\.weight"):
        load_card(carried(read_reference(f"timm:{name}", weights=str(path))))


def test_timm_names_without_weights_say_where_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsUnavailable, match=r"--weights FILE\.safetensors"):
        load_card("timm:resnet18")
