"""One training step: from photos of triplets to the gradient, the same for one worker and for many."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.networks.selavprpp import SelaVPRpp
from models.runtime.execution import multiply_exactly
from models.training.losses import mnn_local_loss, triplet_loss
from models.training.pair_losses import (
    CODE_GAP_WEIGHT,
    code_gap,
    mined_pairs,
    multi_similarity,
    place_labels,
    straight_through,
)
from models.training.trainable import trainable_parameters
from pipelines.training.errors import TrainingDiverged
from pipelines.training.settings import TrainingSettings
from pipelines.training.worker_group import WorkerGroup
from storage.card import Preprocessing

__all__ = ["TrainingStep"]

Photos = NDArray[Any]


class TrainingStep:
    """Runs the model forwards and backwards, in the precision of the settings on the device of the group.

    Attributes:
        model: The model, on its device.
        parameters: The trained parameters, by name.
        group: The workers.
    """

    def __init__(
        self, model: Any, preprocessing: Preprocessing, settings: TrainingSettings, group: WorkerGroup
    ) -> None:
        """Put the model on its device."""
        self.group, self._settings = group, settings
        self.model = model
        self.model.to(group.device).to(memory_format=torch.channels_last)
        self.model.activation_checkpointing = settings.recompute
        self.parameters = trainable_parameters(model)
        self._forward: Any = _Trained(model)
        if group.size > 1:
            self._forward = DistributedDataParallel(self._forward)
        self._mean = torch.tensor(preprocessing.mean, device=group.device).mul(255).view(1, 3, 1, 1)
        self._scale = torch.tensor(preprocessing.std, device=group.device).mul(255).view(1, 3, 1, 1)
        on_accelerator = group.device.type != "cpu"
        self._mixed = settings.precision == "bf16" or (settings.precision == "auto" and on_accelerator)
        multiply_exactly(group.device, torch.bfloat16 if self._mixed else torch.float32)

    @property
    def losses(self) -> tuple[str, str]:
        """Names of the two losses that are added up."""
        if isinstance(self.model, SelaVPRpp):
            return "multi-similarity", "code gap"
        return "triplet", "local"

    def describe(self, photos: Photos) -> Tensor:
        """Return descriptors (n, D) float32 of prepared photos (n, h, w, 3), without local features."""
        with torch.inference_mode(), self._precision():
            return _finite(self.model.describe(self._input(photos)).float())

    def extract(self, photos: Photos) -> tuple[Tensor, Tensor]:
        """Return descriptors (n, D) and features (n, H, W, C) float32 of prepared photos (n, h, w, 3)."""
        with torch.inference_mode(), self._precision():
            if isinstance(self.model, SelaVPRpp):
                return self._extract_trained(photos)
            descriptors, features = self.model(self._input(photos))
        return _finite(descriptors.float()), _finite(features.float())

    def _extract_trained(self, photos: Photos) -> tuple[Tensor, Tensor]:
        """Return what the trained branch of a SelaVPR++ ranks by, and no features to re-rank by.

        One equal cell per photo leaves the order of the descriptors. Codes as vectors rank as by Hamming
        distance.
        """
        values = _finite(self.model.describe(self._input(photos)).float())
        ranked = straight_through(values) if self.model.trains_codes else values
        return ranked, torch.ones((len(values), 1, 1, 1), device=values.device)

    def backward(
        self, parts: list[Photos], total: int, apart: list[NDArray[np.float64]] | None = None
    ) -> tuple[float, float]:
        """Add up the gradient of the mean loss over one global batch.

        Args:
            parts: This worker's share, at least one triplet, in parts (b, 1 + 1 + N, h, w, 3) of prepared
                photos: query, positive, negatives.
            total: Triplets of the batch over all workers.
            apart: For each part the metres between its n photos, (n, n), for losses over all pairs.

        Returns:
            The batch's two losses, as `losses` names them, the same on every worker.
        """
        sums = torch.zeros(2, device=self.group.device)
        for number, photos in enumerate(parts, start=1):
            share = len(photos) / total
            last = number == len(parts)
            waiting = self.group.size > 1 and not last
            with self._forward.no_sync() if waiting else contextlib.nullcontext():
                if isinstance(self.model, SelaVPRpp):
                    assert apart is not None
                    triplet, local = self._pair_losses(photos, apart[number - 1])
                else:
                    triplet, local = self._losses(photos)
                # Workers average their gradients: times their number, the average is the sum.
                loss = (triplet + self._settings.local_weight * local) * share * self.group.size
                loss.backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([triplet.detach(), local.detach()]) * share
        triplet_sum, local_sum = self.group.sum(sums).tolist()
        return triplet_sum, local_sum

    def _losses(self, photos: Photos) -> tuple[Tensor, Tensor]:
        count, views = photos.shape[:2]
        # Queries first, then positives, then negatives.
        ordered = np.concatenate([photos[:, 0], photos[:, 1], photos[:, 2:].reshape(-1, *photos.shape[2:])])
        with self._precision():
            descriptors, features = map(_finite, self._forward(self._input(ordered)))

        def split(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            rows = rows.float()
            negatives = rows[2 * count :].reshape(count, views - 2, *rows.shape[1:])
            return rows[:count], rows[count : 2 * count], negatives

        triplet = triplet_loss(*split(descriptors), margin=self._settings.margin)
        if not self._settings.local_weight and self.model.local_head is None:
            return triplet, torch.zeros((), device=self.group.device)
        return triplet, mnn_local_loss(*split(features))

    def _pair_losses(self, photos: Photos, apart: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Return the multi-similarity loss of all photos of triplets and, for codes, their weighted gap."""
        settings = self._settings
        flat = photos.reshape(-1, *photos.shape[2:])
        with self._precision():
            values = _finite(self.model.describe(self._input(flat))).float()
        metres = torch.from_numpy(apart).to(values.device)
        labels = place_labels(metres, positive_m=settings.positive_m)
        used = straight_through(values) if self.model.trains_codes else values
        pairs = mined_pairs(
            used, labels, metres, positive_m=settings.positive_m, negative_m=settings.negative_m
        )
        loss = multi_similarity(used, pairs)
        if not self.model.trains_codes:
            return loss, torch.zeros((), device=loss.device)
        # Divided, since the sum weights the second loss again.
        gap = CODE_GAP_WEIGHT * code_gap(values, used, pairs)
        return loss, gap / settings.local_weight if settings.local_weight else gap

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(
            self.group.device.type, dtype=torch.bfloat16 if self._mixed else None, enabled=self._mixed
        )

    def _input(self, photos: Photos) -> Tensor:
        """Normalise (n, h, w, 3) prepared photos to (n, 3, h, w) float32 on the device."""
        images = torch.from_numpy(photos).to(self.group.device).permute(0, 3, 1, 2).float()
        return ((images - self._mean) / self._scale).contiguous(memory_format=torch.channels_last)


def _finite(output: Tensor) -> Tensor:
    if not bool(torch.isfinite(output.detach()).all()):
        raise TrainingDiverged(
            "the output of the model became NaN or infinite: give a smaller --learning-rate, or "
            "--precision fp32"
        )
    return output


class _Trained(nn.Module):
    """The module that data-parallel training wraps: the trained parameters alone.

    The frozen part is not a child of this module, so it is neither broadcast nor reduced.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.trained = nn.ParameterList(trainable_parameters(model).values())
        self._model = (model,)

    def forward(self, images: Tensor) -> Any:
        return self._model[0](images)
