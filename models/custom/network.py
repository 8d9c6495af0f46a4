"""A network of others as an extractor needs it: unit descriptors, a grid of local features, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.custom.definition import InputRule, LocalRule, OutputRule
from models.custom.errors import ModelUnfit
from models.networks.attention_features import attention_features
from models.networks.local_layer import LocalLayer
from storage.card import Preprocessing

__all__ = ["OwnNetwork"]


class OwnNetwork(nn.Module):
    """Wraps a module; its layers stay as they are, since code of others may look into them.

    Attributes:
        name: For the card.
        module: The network.
        keep_layers: Tells the extractor to leave the layers alone.
        local_layer: The layer that gives local features, or None.
        min_similarity: Lowest similarity of mutual neighbours that are counted; None: all are.
    """

    keep_layers = True

    def __init__(
        self,
        name: str,
        module: nn.Module,
        *,
        taken: InputRule,
        output: OutputRule,
        local: LocalRule | None,
        singly: bool,
        source: str,
    ) -> None:
        super().__init__()
        self.name = name
        self.module = module
        self._input, self._output, self._local = taken, output, local
        self._singly = singly
        self._source = source
        self._shapes: dict[tuple[int, int], tuple[int, tuple[int, int], int]] = {}
        self.min_similarity = None if local is None else local.min_similarity
        self.local_layer: LocalLayer | None = None
        if local is not None and local.layer:
            self._vit: Any = _submodule(module, local.module, source)
            self.local_layer = LocalLayer.of_values(local.layer, len(self._vit.blocks))
            self.min_similarity = self.local_layer.min_similarity

    @property
    def description(self) -> OwnNetwork:
        """What cards are made from: itself."""
        return self

    @property
    def descriptor_dim(self) -> int:
        """D, the width of the descriptor."""
        return self._shape(*self._size)[0]

    @property
    def feature_dim(self) -> int:
        """C, the channels of one local feature; 0 without any."""
        return self._shape(*self._size)[2]

    @property
    def _size(self) -> tuple[int, int]:
        return self._input.preprocessing.height, self._input.preprocessing.width

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of local features for an input size in pixels; 0 without any.

        Raises:
            ValueError: the network does not take this size.
        """
        multiple = self._input.multiple_of
        if (height, width) != self._size and (not multiple or height % multiple or width % multiple):
            rule = f"multiples of {multiple}" if multiple else "{}x{}".format(*self._size)
            raise ValueError(f"input {height}x{width} is not what {self.name} takes: use {rule}")
        return self._shape(height, width)[1]

    def default_preprocessing(self) -> Preprocessing:
        """Return the preprocessing of the model file."""
        return self._input.preprocessing

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors (B, D) and local features (B, H, W, C), of unit L2 norm; cells may be zeros.

        Args:
            images: (B, 3, h, w) float, normalised.
        """
        if not self._singly or len(images) < 2:
            return self._run(images)
        parts = [self._run(images[at : at + 1]) for at in range(len(images))]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def raw_descriptors(self, images: Tensor) -> Tensor:
        """Return what the network itself gives as descriptors, for the self-test."""
        return self._descriptors(self.module(images))

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.local_layer is None:
            outputs, cells = self.module(images), None
        else:
            outputs, cells = self._with_layer(images, self.local_layer)
        descriptors = F.normalize(self._descriptors(outputs).float(), dim=-1)
        if cells is None:
            cells = self._cells(outputs, len(images), images.device)
        return descriptors, cells

    def _with_layer(self, images: Tensor, local: LocalLayer) -> tuple[Any, Tensor]:
        """Run the network and catch what enters the block."""
        caught: list[Tensor] = []
        block = self._vit.blocks[local.layer]
        hook = block.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            outputs = self.module(images)
        finally:
            hook.remove()
        prefix = _prefix_tokens(self._vit)
        cells = attention_features(block, caught[0], local, prefix=prefix)
        return outputs, cells.reshape(len(images), *self._patches(images, cells.shape[1]), -1)

    def _patches(self, images: Tensor, count: int) -> tuple[int, int]:
        """Return rows and columns of `count` patches, which have the shape of the image."""
        side = ((images.shape[2] * images.shape[3]) / count) ** 0.5
        grid = round(images.shape[2] / side), round(images.shape[3] / side)
        if grid[0] * grid[1] != count:
            raise ModelUnfit(
                "model_output",
                f"{self._source}: {count} tokens do not form a grid over {images.shape[2]}x{images.shape[3]} "
                "pixels: choose another [local] layer or output",
            )
        return grid

    def _descriptors(self, outputs: Any) -> Tensor:
        value = _select(outputs, self._output.descriptor, self._source, "descriptor")
        if value.ndim != 2:
            raise ModelUnfit(
                "model_output",
                f"{self._source}: the descriptor has the shape {tuple(value.shape)} instead of (B, D): name "
                "another output in [output]",
            )
        return value

    def _cells(self, outputs: Any, count: int, device: torch.device) -> Tensor:
        if self._local is None or self._local.output is None:
            return torch.zeros((count, 0, 0, 0), device=device)
        maps = _select(outputs, self._local.output, self._source, "local features")
        if maps.ndim != 4:
            raise ModelUnfit(
                "model_output",
                f"{self._source}: local features have the shape {tuple(maps.shape)} instead of (B, C, H, W): "
                "name another output in [local]",
            )
        return F.normalize(maps.float().permute(0, 2, 3, 1), dim=-1)

    def _shape(self, height: int, width: int) -> tuple[int, tuple[int, int], int]:
        """Return D, (H, W) and C for an input size, seen by running the network once.

        Raises:
            ValueError: it does not take this size.
        """
        if (height, width) not in self._shapes:
            device = next(self.module.parameters(), torch.zeros(0)).device
            try:
                with torch.inference_mode():
                    descriptors, cells = self._run(torch.zeros(1, 3, height, width, device=device))
            except ModelUnfit:
                raise
            except Exception as error:  # code of others
                raise ValueError(
                    f"{self.name} does not take input {height}x{width} ({type(error).__name__}: "
                    f"{str(error)[:200]}): correct the size"
                ) from error
            rows, columns, channels = cells.shape[1:]
            self._shapes[height, width] = descriptors.shape[1], (rows, columns), channels
        return self._shapes[height, width]


def _select(outputs: Any, selector: int | str | None, source: str, what: str) -> Tensor:
    try:
        value = outputs if selector is None else outputs[selector]
    except (KeyError, IndexError, TypeError) as error:
        raise ModelUnfit(
            "model_output",
            f"{source}: the output is {_described(outputs)}, which has no {selector!r}: name the {what} anew",
        ) from error
    if not isinstance(value, Tensor):
        raise ModelUnfit(
            "model_output",
            f"{source}: the {what} would be {_described(value)}: name an index or a key of the output",
        )
    return value


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, list(value)[:8]))}"
    if isinstance(value, Sequence):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _submodule(module: nn.Module, path: str, source: str) -> Any:
    try:
        found: Any = module.get_submodule(path)
        found.blocks[0].attn.qkv  # noqa: B018 - what the layer's features are made of
    except (AttributeError, TypeError, IndexError) as error:
        raise ModelUnfit(
            "model_output",
            f"{source}: {path or 'the network'} has no blocks with attn.qkv, so no layer can give local "
            "features: name the vision transformer with module in [local], or leave [local] out",
        ) from error
    return found


def _prefix_tokens(vit: Any) -> int:
    known = getattr(vit, "num_prefix_tokens", None)
    return int(known) if known is not None else 1 + int(getattr(vit, "num_register_tokens", 0) or 0)
