"""SelaVPR++: images to float descriptors, binary codes and the cells that the descriptor pools.

Lu et al., "SelaVPR++: Towards Seamless Adaptation of Foundation Models for Efficient Place Recognition",
TPAMI 2026, sections 3.2 to 3.4.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.architecture import Architecture
from models.networks.dinov2 import DinoV2
from models.networks.multiconv import MultiConv, untrained_adapters
from models.networks.selavpr import generalized_mean
from models.networks.selavprpp_description import SelaVPRppDescription
from storage.card import Preprocessing

__all__ = ["CODE_BITS", "Branch", "Outputs", "SelaVPRpp"]

CODE_BITS = 512


class Outputs(NamedTuple):
    """What the network returns of a batch.

    Attributes:
        descriptors: (B, D) float32, unit L2 norm.
        features: (B, H, W, C) float32, unit L2 norm per cell.
        codes: (B, bits) float32, unit L2 norm, whose signs are the code; absent without a hash branch.
    """

    descriptors: Tensor
    features: Tensor
    codes: Tensor | None = None


class Branch(nn.Module):
    """Adapters along the trunk and the head that pools their side state; one for floats, one for the code.

    Attributes:
        adapters: One for each of the last blocks.
        cells: Linear map of a patch of the side state, D to D.
        gem_p: (1,) float, the learnt exponent of the generalized mean.
        head: Linear map of the pooled cells.
    """

    def __init__(self, width: int, adapters: int, out: int) -> None:
        super().__init__()
        self.adapters = untrained_adapters(width, adapters)
        self.cells = nn.Linear(width, width)
        self.gem_p = nn.Parameter(torch.full((1,), 3.0))
        self.head = nn.Linear(width, out)

    def unit_cells(self, state: Tensor) -> Tensor:
        """Map (B, 1 + N, D), the normalised side state, to (B, N, D) float32 of unit L2 norm per patch."""
        return F.normalize(self.cells(state[:, 1:]).float(), dim=-1)

    def pool(self, cells: Tensor) -> Tensor:
        """Pool (B, N, D) float32 cells to (B, out) float32 of unit L2 norm.

        In float32: half of the channels lie at the clamp of 1e-6, whose power of three underflows in float16.
        """
        with torch.autocast(cells.device.type, enabled=False):
            pooled = generalized_mean(cells.float(), self.gem_p.float())
        return F.normalize(self.head(pooled).float(), dim=-1)


class SelaVPRpp(nn.Module):
    """A DINOv2 trunk that never changes or receives gradients, and one or two branches beside it.

    Each adapter of a branch adds to the side state what it makes of the state and the output of its block.
    The state starts as the tokens before the first block that has an adapter, and passes the trunk's own
    final norm. The trunk's last output is used through the adapters only.

    Attributes:
        backbone: The trunk.
        float_branch: Makes descriptors.
        hash_branch: Makes codes, or None.
        min_similarity: Lowest similarity of mutual neighbours that are counted; None: all are. Saved with the
            weights.
        trunk_name: timm's name of the trunk where it is the one of timm's hub, which weights files then leave
            out; None: they hold it.
        trains_codes: Which branch is trained, see `train_branch`.
    """

    hash_branch: Branch | None

    def __init__(self, description: SelaVPRppDescription) -> None:
        super().__init__()
        self._description = description
        shape = description.architecture
        self.backbone = DinoV2(shape)
        self.float_branch = Branch(shape.width, description.adapters, description.float_dim)
        bits = description.code_bits
        self.hash_branch = None if bits is None else Branch(shape.width, description.adapters, bits)
        self.min_similarity: float | None = description.min_similarity
        self.trunk_name: str | None = None
        self.trains_codes = False
        self.activation_checkpointing = False  # of the trunk there are none to store
        self.local_head = None

    @property
    def description(self) -> SelaVPRppDescription:
        """The model's description."""
        return self._description

    @property
    def architecture(self) -> Architecture:
        """Shape of the trunk."""
        return self._description.architecture

    @property
    def name(self) -> str:
        """Architecture name for the card."""
        return self._description.name

    @property
    def descriptor_dim(self) -> int:
        """D, the width of the float descriptor."""
        return self._description.descriptor_dim

    @property
    def feature_dim(self) -> int:
        """C, the channels of a cell."""
        return self._description.feature_dim

    @property
    def code_bits(self) -> int | None:
        """Bits of the code; None without a hash branch."""
        return self._description.code_bits

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of cells for an input size in pixels.

        Raises:
            ValueError: a side is not a multiple of 14.
        """
        return self._description.grid(height, width)

    def default_preprocessing(self) -> Preprocessing:
        """Return the published evaluation's preprocessing."""
        return self._description.default_preprocessing()

    def train(self, mode: bool = True) -> SelaVPRpp:
        """Set the mode of the trained branch; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        frozen = self.float_branch if self.trains_codes else self.hash_branch
        if frozen is not None:
            frozen.eval()
        return self

    def forward(self, images: Tensor) -> Outputs | tuple[Tensor, Tensor]:
        """Return descriptors, cells and, with a hash branch, the values whose signs are the codes.

        Args:
            images: (B, 3, h, w) float, normalised, h and w multiples of 14.

        Raises:
            ValueError: a side of the input is not a multiple of 14.
        """
        branches = [branch for branch in (self.float_branch, self.hash_branch) if branch is not None]
        states, (rows, columns) = self.side_states(images, branches)
        cells = self.float_branch.unit_cells(states[0])
        descriptors = self.float_branch.pool(cells)
        features = cells.reshape(len(cells), rows, columns, -1)
        if self.hash_branch is None:
            return descriptors, features
        return Outputs(descriptors, features, self.hash_branch.pool(self.hash_branch.unit_cells(states[1])))

    def describe(self, images: Tensor) -> Tensor:
        """Return the output of the trained branch alone, (B, D or bits) of unit norm, for training."""
        branch = self.hash_branch if self.trains_codes else self.float_branch
        assert branch is not None
        (state,), _ = self.side_states(images, [branch])
        return branch.pool(branch.unit_cells(state))

    def train_branch(self, *, codes: bool) -> None:
        """Choose the branch that is trained: the other one and the trunk are frozen.

        Args:
            codes: The hash branch; without one it is added, with copies of the float branch's adapters.
        """
        if codes and self.hash_branch is None:
            shape = self._description.architecture
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(1)
                self.hash_branch = Branch(shape.width, self._description.adapters, CODE_BITS)
            self.hash_branch.adapters.load_state_dict(self.float_branch.adapters.state_dict())
            self._description = dataclasses.replace(self._description, code_bits=CODE_BITS)
        self.trains_codes = codes
        self.float_branch.requires_grad_(not codes)
        if self.hash_branch is not None:
            self.hash_branch.requires_grad_(codes)

    def side_states(self, images: Tensor, branches: list[Branch]) -> tuple[list[Tensor], tuple[int, int]]:
        """Return (B, 1 + N, D) normalised side states of branches after one pass of the trunk, and the grid.

        The trunk runs without gradients, so that only the adapters' activations are kept for training.
        """
        with torch.no_grad():
            tokens, grid = self.backbone.embed(images)
            blocks = list(self.backbone.vit.blocks)
            first = len(blocks) - self._description.adapters
            for block in blocks[:first]:
                tokens = self.backbone.run_block(block, tokens)
        states = [tokens for _ in branches]
        for number, block in enumerate(blocks[first:]):
            with torch.no_grad():
                tokens = self.backbone.run_block(block, tokens)
            for at, branch in enumerate(branches):
                adapter: MultiConv = branch.adapters[number]  # type: ignore[assignment]
                states[at] = states[at] + adapter(states[at] + tokens, grid)
        return [self.backbone.vit.norm(state) for state in states], grid
