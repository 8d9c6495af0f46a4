"""The losses against the published implementation's numbers, and against their formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoints.importing import import_checkpoint
from models.checkpoints.published import translate
from models.images.decoder import decode_image
from models.images.preprocess import prepare
from models.networks.selavpr import SelaVPR
from models.training.losses import mnn_local_loss, triplet_loss
from models.weights import load_network
from tests.support.paths import GOLDEN


def unit(*shape: int, seed: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Both losses of the golden triplets (0,1,2) and (0,1,3), and each gradient's norm by its name here."""
    path = tmp_path_factory.mktemp("golden") / "small.safetensors"
    import_checkpoint(GOLDEN / "selavpr_small.pth", path, num_heads=3)
    network, card = load_network(str(path))
    assert isinstance(network, SelaVPR)
    pre = card.preprocessing
    mean, std = torch.tensor(pre.mean).view(3, 1, 1), torch.tensor(pre.std).view(3, 1, 1)
    photos = [prepare(decode_image((GOLDEN / f"image_{i}.png").read_bytes()).pixels, pre) for i in range(4)]
    batch = [(torch.from_numpy(photo).permute(2, 0, 1).float() / 255 - mean) / std for photo in photos]
    descriptors, features = network(torch.stack(batch))
    global_loss = triplet_loss(descriptors[:1], descriptors[1:2], descriptors[None, 2:])
    local_loss = mnn_local_loss(features[:1], features[1:2], features[None, 2:])
    (global_loss + local_loss).backward()  # type: ignore[no-untyped-call]
    values = {"global": global_loss.item(), "local": local_loss.item()}
    for name, weights in network.named_parameters():
        if weights.grad is not None:
            values[name] = float(weights.grad.norm())
    return values


def test_losses_agree_with_the_published_ones(trained: dict[str, float]) -> None:
    golden = np.load(GOLDEN / "selavpr_small.npz")
    assert trained["global"] == pytest.approx(float(golden["global_loss"]), rel=1e-4)
    assert trained["local"] == pytest.approx(float(golden["local_loss"]), rel=1e-4)


def test_gradients_agree_with_the_published_ones(trained: dict[str, float]) -> None:
    published = json.loads((GOLDEN / "selavpr_small_grad_norms.json").read_text())
    golden = {
        name: float(norm)
        for name, norm in translate({k: torch.tensor(float(v)) for k, v in published.items()}).items()
    }
    assert set(trained) - {"global", "local"} == set(golden)
    for name, norm in golden.items():
        assert trained[name] == pytest.approx(norm, rel=1e-4), name


def test_triplet_loss_is_its_formula() -> None:
    query, positive, negatives = unit(3, 8, seed=1), unit(3, 8, seed=2), unit(3, 2, 8, seed=3)
    expected = []
    for b in range(3):
        for n in range(2):
            near = float((query[b] - positive[b]).norm())
            far = float((query[b] - negatives[b, n]).norm())
            expected.append(max(0.0, near - far + 0.3))
    assert 0 < sum(value == 0 for value in expected) < 6
    loss = float(triplet_loss(query, positive, negatives, margin=0.3))
    assert loss == pytest.approx(sum(expected) / 6, abs=1e-5)


def test_local_loss_with_the_query_as_negative_is_the_distance_of_the_positive() -> None:
    query, positive = unit(1, 4, 5, 16, seed=4), unit(1, 4, 5, 16, seed=5)
    loss = mnn_local_loss(query, positive, query[:, None])
    similarity = query[0].reshape(20, 16) @ positive[0].reshape(20, 16).T
    forth, back = similarity.argmax(1), similarity.argmax(0)
    mutual = [i for i in range(20) if int(back[forth[i]]) == i]
    mean = float(np.mean([float(similarity[i, forth[i]]) for i in mutual]))
    assert float(loss) == pytest.approx(1 - mean, abs=1e-5)
    assert float(mnn_local_loss(query, query, positive[:, None])) == 0.0


def test_losses_of_many_queries_are_the_mean_of_each() -> None:
    query, positive, negatives = (
        unit(3, 3, 3, 8, seed=6),
        unit(3, 3, 3, 8, seed=7),
        unit(3, 2, 3, 3, 8, seed=8),
    )
    each = [mnn_local_loss(query[i : i + 1], positive[i : i + 1], negatives[i : i + 1]) for i in range(3)]
    assert float(sum(each)) > 0
    together = mnn_local_loss(query, positive, negatives)
    assert float(together) == pytest.approx(float(sum(each)) / 3, abs=1e-6)


def test_losses_in_mixed_precision_are_those_of_float32() -> None:
    query, positive, negatives = (
        unit(2, 9, 9, 16, seed=6),
        unit(2, 9, 9, 16, seed=7),
        unit(2, 2, 9, 9, 16, seed=8),
    )
    plain = mnn_local_loss(query, positive, negatives)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = mnn_local_loss(query, positive, negatives)
        descriptors = triplet_loss(query[0, 0], positive[0, 0], negatives[0].flatten(0, 1)[:9, None, 0])
    assert float(plain) > 0
    assert torch.equal(plain, mixed)
    assert descriptors.dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 8), (2, 2, 8), (3, 2, 7), (3, 2, 8, 1), (3, 0, 8)])
def test_triplet_loss_of_shapes_that_do_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        triplet_loss(unit(3, 8, seed=1), unit(3, 8, seed=2), unit(*shape, seed=3))


@pytest.mark.parametrize(
    "shape", [(3, 2, 2, 8), (2, 1, 2, 2, 8), (3, 1, 2, 3, 8), (3, 1, 2, 2, 7), (3, 0, 2, 2, 8)]
)
def test_local_loss_of_shapes_that_do_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    query = unit(3, 2, 2, 8, seed=1)
    with pytest.raises(ValueError, match="must be"):
        mnn_local_loss(query, query, unit(*shape, seed=3))
    with pytest.raises(ValueError, match="must be"):
        mnn_local_loss(query, query[:2], query[:, None])
