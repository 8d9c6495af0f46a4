"""The training step as placeray takes it, and the plain formulation of the published recipe beside it.

Plain means: float32, memory layout as loaded, the full tracked similarity matrix of cells in the local
loss, blocks written out layer by layer, and a graph that reaches from the losses to the very first layer.
What tracks it there is either the input (`plain, input tracked`; one tracked tensor before the first block,
such as a position embedding, does the same) or every frozen weight (`plain, weights tracked`: their
gradients are computed too, and thrown away). Losses and gradients are equal to placeray's; `bench_train`
checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.architecture import Architecture
from models.networks.selavpr import SelaVPR
from models.training.options import MARGIN
from models.weights import load_network
from pipelines.training.settings import TrainingSettings
from pipelines.training.step import TrainingStep
from pipelines.training.worker_group import WorkerGroup

Step = Callable[[], tuple[float, float]]

QUERIES, VIEWS, SIDE = 4, 4, 224
IMAGES = QUERIES * VIEWS
OURS, RECOMPUTED = "placeray", "placeray, checkpointing"
INPUT, WEIGHTS = "plain, input tracked", "plain, weights tracked"
FORMULATIONS = (OURS, RECOMPUTED, INPUT, WEIGHTS)


def make_model(name: str) -> Any:
    """Return the adapted model `conv` or `vit` with a local head, the same every time."""
    torch.manual_seed(0)
    if name == "conv":
        model: Any = load_network("efficientnet-lite0")[0]
        model.add_adapters()
        model.add_local_head()
    else:
        model = SelaVPR(Architecture.of_size("s"), local_head=True)
    # Untrained adapters return zero: gradients would stop in them.
    for weights in model.parameters():
        if weights.requires_grad and not weights.any():
            nn.init.normal_(weights, std=1e-3)
    return model.train()


def training_photos(name: str) -> Any:
    """Return (4, 4, 224, 224, 3) photos as the training step receives them."""
    photos = np.random.default_rng(0).uniform(0, 255, (QUERIES, VIEWS, SIDE, SIDE, 3))
    return photos.astype(np.uint8 if name == "conv" else np.float32)


def make_step(name: str, formulation: str, *, device: str = "cpu", precision: str = "fp32") -> Step:
    """Return a function that takes one training step and returns the two losses."""
    model, photos = make_model(name), training_photos(name)
    preprocessing = model.default_preprocessing()
    if formulation in (OURS, RECOMPUTED):
        chosen: Any = {"precision": precision, "recompute": formulation == RECOMPUTED}
        group = WorkerGroup(device=torch.device(device))
        ours = TrainingStep(model, preprocessing, TrainingSettings(**chosen), group)
        optimizer = torch.optim.Adam(ours.parameters.values(), lr=1e-6)

        def placeray() -> tuple[float, float]:
            optimizer.zero_grad()
            losses = ours.backward([photos], QUERIES)
            optimizer.step()
            return losses

        placeray.model = model  # type: ignore[attr-defined]
        return placeray
    model.to(device)
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-6)
    if formulation == WEIGHTS:
        model.requires_grad_(True)
    forward = _plain_conv if name == "conv" else _plain_vit
    mean = torch.tensor(preprocessing.mean, device=device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=device).view(3, 1, 1)

    def plain() -> tuple[float, float]:
        model.zero_grad()
        pixels = torch.from_numpy(photos).to(device).flatten(0, 1).permute(0, 3, 1, 2).float()
        images = ((pixels / 255 - mean) / std).contiguous()
        descriptors, features = forward(model, images.requires_grad_(formulation == INPUT))
        global_loss = _plain_triplet(descriptors.unflatten(0, (QUERIES, VIEWS)))
        local_loss = _plain_local(features.flatten(1, 2).unflatten(0, (QUERIES, VIEWS)))
        (global_loss + local_loss).backward()
        optimizer.step()
        return global_loss.item(), local_loss.item()

    plain.model = model  # type: ignore[attr-defined]
    return plain


def _plain_conv(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    net = model.backbone
    maps = net.bn1(net.conv_stem(images))
    local = maps
    for index, stage in enumerate(net.blocks):
        maps = stage(maps)
        if str(index) in model.adapters:
            adapter = model.adapters[str(index)]
            maps = maps + adapter.up(F.relu(adapter.down(maps)))
        if index == 4:
            local = maps
    last = net.bn2(net.conv_head(maps)).flatten(2).transpose(1, 2)
    features = model.local_head(local).permute(0, 2, 3, 1)
    return _plain_gem(last, model.gem_p), F.normalize(features, dim=-1)


def _plain_vit(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    vit = model.backbone.vit
    side = SIDE // 14
    patches = vit.patch_embed.proj(images).flatten(2).transpose(1, 2)
    tokens = model.backbone._with_positions(patches, side, side)
    for adapters, block in zip(model.backbone.adapters, vit.blocks, strict=True):
        attended = block.attn(block.norm1(tokens))
        attended = attended + adapters.serial.up(F.relu(adapters.serial.down(attended)))
        tokens = tokens + block.ls1(attended)
        normed = block.norm2(tokens)
        parallel = adapters.parallel.up(F.relu(adapters.parallel.down(normed)))
        hidden = F.gelu(F.linear(normed, block.mlp.fc1.weight, block.mlp.fc1.bias))
        mlp = F.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)
        tokens = tokens + block.ls2(mlp + 0.2 * parallel)
    tokens = vit.norm(tokens)[:, 1:]
    head = model.local_head
    maps = tokens.transpose(1, 2).unflatten(2, (side, side))
    features = head.second(F.relu(head.first(maps))).permute(0, 2, 3, 1)
    return _plain_gem(F.normalize(tokens, dim=-1), model.gem_p), F.normalize(features, dim=-1)


def _plain_gem(cells: Tensor, p: Tensor) -> Tensor:
    return F.normalize(cells.clamp(min=1e-6).pow(p).mean(dim=1).pow(1 / p), dim=-1)


def _plain_triplet(descriptors: Tensor) -> Tensor:
    query, positive = descriptors[:, 0], descriptors[:, 1]
    losses = [
        F.triplet_margin_loss(query, positive, descriptors[:, 2 + i], margin=MARGIN) for i in range(VIEWS - 2)
    ]
    return torch.stack(losses).mean()


def _plain_local(cells: Tensor) -> Tensor:
    """Return the local loss of (4, 4, N, C) unit cells from whole, tracked similarity tensors."""
    losses = []
    for photos in cells:
        similarity = photos[1:] @ photos[0].T
        forth, back = similarity.argmax(dim=2), similarity.argmax(dim=1)
        rows = torch.arange(similarity.shape[1], device=cells.device)
        means = []
        for matrix, to_query, to_other in zip(similarity, forth, back, strict=True):
            mutual = to_other[to_query] == rows
            means.append(matrix[rows[mutual], to_query[mutual]].mean())
        losses += [F.relu(means[i] - means[0]) for i in range(1, VIEWS - 1)]
    return torch.stack(losses).mean()
