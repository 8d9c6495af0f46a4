"""The default model: frozen ImageNet EfficientNet-Lite0 features, optionally with adapters and a local head.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; Lite0
leaves out squeeze-and-excitation and swish.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.networks.adapters import conv_adapters, up_head
from models.networks.descriptions import LOCAL_STAGE, STAGE_CHANNELS, EfficientNetDescription
from models.networks.folding import PAIRS, fold_batch_norm
from models.networks.inference_convolutions import lay_out_convolutions
from models.networks.selavpr import generalized_mean
from storage.card import Preprocessing

__all__ = ["ADAPTER_STAGES", "EfficientNetLite0"]

_GEM_P = 3.0
# Stages with stride 8 and more: earlier stages are most of the cost of a backward pass, and their features,
# edges and colours, do not depend on the place.
ADAPTER_STAGES = (2, 3, 4, 5, 6)


class EfficientNetLite0(nn.Module):
    """Global and local features of timm's `tf_efficientnet_lite0` without its classifier.

    Initially it has no trainable parts. `add_adapters` and `add_local_head` add some that do not change its
    output until trained; the backbone stays frozen, including its batch statistics.

    Attributes:
        adapters: Residual bottlenecks by stage, or None.
        gem_p: (1,) float, the learnt exponent of the generalized mean; None: 3.
        local_head: The up-convolution head, or None.
        min_similarity: Lowest similarity of mutual neighbours that are counted; None: all are. Saved with the
            weights.
        activation_checkpointing: Recompute feature maps in the backward pass instead of storing them.
    """

    backbone: Any
    adapters: nn.ModuleDict | None
    local_head: nn.Module | None

    def __init__(self, *, adapter_stages: Sequence[int] = (), local_head: bool = False) -> None:
        super().__init__()
        self.backbone = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
        self.requires_grad_(False)
        # On the backbone, so that a deep copy has its own; in a list, so that torch registers no submodule.
        self.backbone.folded = []
        self.backbone.register_load_state_dict_post_hook(_forget_folded)
        self.adapters, self.local_head = None, None
        self.gem_p: nn.Parameter | None = None
        self.min_similarity: float | None = self.description.min_similarity
        self.activation_checkpointing = False
        self._laid_out = False
        if adapter_stages:
            self.add_adapters(adapter_stages)
        if local_head:
            self.add_local_head()

    @property
    def description(self) -> EfficientNetDescription:
        """The network's description, see `models.networks.descriptions`."""
        return EfficientNetDescription(self.adapter_stages, local_head=self.local_head is not None)

    @property
    def name(self) -> str:
        """Architecture name for the card."""
        return self.description.name

    @property
    def descriptor_dim(self) -> int:
        """D, the width of the descriptor."""
        return self.description.descriptor_dim

    @property
    def feature_dim(self) -> int:
        """C, the channels of one local feature."""
        return self.description.feature_dim

    @property
    def adapter_stages(self) -> tuple[int, ...]:
        """The stages followed by an adapter, in order."""
        return tuple(int(stage) for stage in self.adapters) if self.adapters is not None else ()

    def add_adapters(self, stages: Sequence[int] = ADAPTER_STAGES) -> None:
        """Add untrained adapters and a trainable pooling exponent, unless present.

        Args:
            stages: The stages, of 0..6, to be followed by an adapter.

        Raises:
            ValueError: `stages` is empty or a stage does not exist.
        """
        if not stages or not set(stages) <= set(range(len(STAGE_CHANNELS))):
            raise ValueError(f"unknown stages in {list(stages)}: pass some of 0 to {len(STAGE_CHANNELS) - 1}")
        if self.adapters is None:
            device = self.backbone.conv_stem.weight.device
            self.adapters = conv_adapters({i: STAGE_CHANNELS[i] for i in sorted(set(stages))}).to(device)
            self.gem_p = nn.Parameter(torch.full((1,), _GEM_P, device=device))

    def add_local_head(self) -> None:
        """Add an untrained local head, unless present.

        The head is initialised as interpolation. The training loss has no similarity threshold, so with a
        head every mutual neighbour is counted until `min_similarity` is set, for example by validation.
        """
        if self.local_head is None:
            self.local_head = up_head(self.feature_dim).to(self.backbone.conv_stem.weight.device)
            self.min_similarity = self.description.min_similarity

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Set the mode of the trainable parts; the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def lay_out_convolutions(self) -> None:
        """Lay the frozen backbone's convolutions out for inference in float32 on a CPU.

        Without gradients it then cannot be exported, until it moves to another device or precision.
        """
        self.backbone.folded.clear()
        self._laid_out = True

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.backbone.folded.clear()  # the backbone moves to another device or layout
        self._laid_out = False
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _network(self) -> Any:
        """Return the frozen backbone; without gradients a faster copy with folded batch normalisation."""
        if torch.is_grad_enabled():
            return self.backbone
        if not self.backbone.folded:
            folded = fold_batch_norm(self.backbone)
            if self._laid_out:
                lay_out_convolutions(folded, PAIRS)
            self.backbone.folded.append(folded)
        return self.backbone.folded[0]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of local features for an input size.

        Raises:
            ValueError: a side is not a positive multiple of 32.
        """
        return self.description.grid(height, width)

    def default_preprocessing(self) -> Preprocessing:
        """Return 224 x 224, antialiased, scaled to -1..1."""
        return self.description.default_preprocessing()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors and local features.

        Args:
            images: (B, 3, h, w) float, normalised.

        Returns:
            descriptors: (B, 1280) float32, unit L2 norm.
            features: (B, H, W, 112) float32, unit L2 norm per cell; H, W as returned by `grid`.
        """
        local, last = self._maps(images)
        return self._pooled(last), self._features(local)

    def describe(self, images: Tensor) -> Tensor:
        """Return the descriptors of `forward` without computing local features, for mining."""
        return self._pooled(self._maps(images)[1])

    def _maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps for local features (B, 112, h/16, w/16) and for pooling (B, 1280, h/32, w/32)."""
        # Autograd tracks nothing before the first adapter: neither inputs nor weights require gradients.
        net = self._network()
        maps = net.bn1(net.conv_stem(images))
        local = maps
        for index in range(len(net.blocks)):
            maps = self._recomputed(partial(self._stage, net), index, maps)
            if index == LOCAL_STAGE:
                local = maps
        return local, self._recomputed(partial(self._last, net), 0, maps)

    def _recomputed(self, part: Callable[[int, Tensor], Tensor], index: int, maps: Tensor) -> Tensor:
        if not (self.activation_checkpointing and maps.requires_grad and torch.is_grad_enabled()):
            return part(index, maps)
        # No part is random.
        again: Tensor = checkpoint(part, index, maps, use_reentrant=False, preserve_rng_state=False)
        return again

    def _stage(self, net: Any, index: int, maps: Tensor) -> Tensor:
        maps = net.blocks[index](maps)
        if self.adapters is not None and str(index) in self.adapters:
            maps = self.adapters[str(index)](maps)
        return maps

    @staticmethod
    def _last(net: Any, _: int, maps: Tensor) -> Tensor:
        return net.bn2(net.conv_head(maps))  # type: ignore[no-any-return]

    def _pooled(self, last: Tensor) -> Tensor:
        cells = last.float().flatten(2).transpose(1, 2)
        return F.normalize(generalized_mean(cells, _GEM_P if self.gem_p is None else self.gem_p), dim=-1)

    def _features(self, local: Tensor) -> Tensor:
        cells = local if self.local_head is None else self.local_head(local)
        return F.normalize(cells.permute(0, 2, 3, 1).float(), dim=-1).contiguous()


def _forget_folded(backbone: Any, _: object) -> None:
    """Drop the folded copy of a backbone that loads other weights."""
    backbone.folded.clear()
