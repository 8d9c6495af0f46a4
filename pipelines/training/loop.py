"""The training loop: rounds of mining, steps on triplets, validation, and its progress.

Lu et al., "Towards Seamless Adaptation of Pre-trained Models for Visual Place Recognition", ICLR 2024,
sections 3.4 and 4.1. One worker or many: the global batch, and with it the gradient, is the same. Everything
random is drawn from (seed, round, query), so a resumed run ends exactly as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.networks.selavprpp import SelaVPRpp
from models.photo_limits import pixels_of
from models.training.checkpoint import load_checkpoint, save_checkpoint
from pipelines.training.data import TrainingSet
from pipelines.training.distances import BatchDistances
from pipelines.training.mining import MiningState, draw_round, mine
from pipelines.training.photos import Photos
from pipelines.training.plan import check_data
from pipelines.training.rankings import Ranking, Recall, best_ranking, rankings_of
from pipelines.training.settings import TrainingSettings
from pipelines.training.state import Progress
from pipelines.training.step import TrainingStep
from pipelines.training.triplets import TripletReader, Triplets
from pipelines.training.validation import recall_of
from pipelines.training.worker_group import WorkerGroup
from storage.card import Preprocessing

__all__ = ["TrainingLoop"]

Row = dict[str, float | str]

_DESCRIBE_BLOCK = 8
_LOG_EVERY = 10


class TrainingLoop:
    """Trains one model on one data set, as one of several workers.

    Attributes:
        model: The model, on its device.
        progress: Epochs, rounds and steps so far.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        settings: TrainingSettings,
        training: TrainingSet,
        validation: TrainingSet,
        *,
        group: WorkerGroup | None = None,
        on_row: Callable[[Row], None] = lambda row: None,
        on_round: Callable[[TrainingLoop, bool], None] = lambda loop, best: None,
        decode_threads: int = 1,
    ) -> None:
        """Put the model on its device and make the optimiser.

        Args:
            model: A `SelaVPR` or an adapted `EfficientNetLite0`, the same on every worker.
            preprocessing: Preprocessing of the model.
            settings: The recipe.
            training: Photos to train on.
            validation: Photos to validate with.
            group: The workers.
            on_row: Called with each row of the log.
            on_round: Called after each round with this loop and whether the latest validation is the best so
                far; the time to write a checkpoint.
            decode_threads: Threads that read photos.

        Raises:
            MiningRejected, DataRejected: as `check_data`.
        """
        self.group = group or WorkerGroup()
        self._settings = settings
        self._plan = check_data(training, validation, settings)
        self._on_row, self._on_round = on_row, on_round
        settings = settings.with_rate_for(model)
        assert settings.learning_rate is not None
        self._rate = settings.learning_rate
        self._step = TrainingStep(model, preprocessing, settings, self.group)
        self.model = self._step.model
        self.optimiser = torch.optim.AdamW(
            self._step.parameters.values(), lr=self._rate, weight_decay=settings.weight_decay
        )

        def photos(uris: tuple[str, ...]) -> Photos:
            pixels = pixels_of(settings.max_megapixels)
            return Photos(uris, preprocessing, threads=decode_threads, max_pixels=pixels)

        self._queries, self._database = photos(training.queries.uris), photos(training.database.uris)
        self._val_queries, self._val_database = (
            photos(validation.queries.uris),
            photos(validation.database.uris),
        )
        self._gem_p = next(each for name, each in self._step.parameters.items() if name.endswith("gem_p"))
        self._apart = BatchDistances(training) if isinstance(model, SelaVPRpp) else None
        self._triplets = TripletReader(self._queries, self._database, settings, self.group)
        self.progress = Progress(MiningState(settings.mining, settings.seed))
        self._begun = time.perf_counter()

    @property
    def losses(self) -> tuple[str, str]:
        """Names of the two losses of the log."""
        return self._step.losses

    def close(self) -> None:
        """End the reading threads."""
        self._triplets.close()
        for photos in (self._queries, self._database, self._val_queries, self._val_database):
            photos.close()

    def save(self, path: str | Path, values: dict[str, Any]) -> None:
        """Write the state of training, with values of the caller's, to a new file."""
        save_checkpoint(path, self.model, self.optimiser, values | {"progress": self.progress.to_dict()})

    def restore(self, path: str | Path) -> dict[str, Any]:
        """Resume from a file that `save` wrote and return the caller's values.

        Raises:
            WeightsRejected, MiningRejected: the file is damaged or of another model.
        """
        values = load_checkpoint(path, self.model, self.optimiser)
        self.progress = Progress.from_dict(values.pop("progress", None))
        self._begun = time.perf_counter() - self.progress.seconds
        return values

    @property
    def finished(self) -> bool:
        """Whether training is finished."""
        done = self.progress
        return done.epoch >= self._settings.epochs or done.misses >= self._settings.patience

    @property
    def rounds_per_epoch(self) -> int:
        """Return the number of mining rounds per epoch."""
        usable = len(self._plan.neighbours.usable)
        settings = self._settings
        return math.ceil(min(settings.queries_per_epoch, usable) / min(settings.round_size, usable))

    @property
    def steps_per_round(self) -> int:
        """Return the number of steps per round; queries that do not fill a step wait for another round."""
        queries = min(self._settings.round_size, len(self._plan.neighbours.usable))
        return queries // self._settings.batch

    def run(self) -> None:
        """Train to the end: all epochs, or until the validation stops improving.

        Raises:
            TrainingDiverged: the loss became NaN or infinite.
            DataRejected: a photo can no longer be read.
            OutOfSpace: the local features of validation do not fit on the temporary disk.
        """
        if not self.progress.validated:
            ranking, recall = self._validate()
            self._advance(validated=True, best=recall.score, ranking=ranking[:2])
            self._on_round(self, True)
        while not self.finished:
            self._round()
            best = False
            if self.progress.round >= self.rounds_per_epoch:
                best = self._end_epoch()
            self._on_round(self, best)

    def validate(self, rankings: Sequence[Ranking]) -> list[Recall]:
        """Measure recall on the validation split in several ways to rank."""
        self.model.eval()
        return recall_of(
            self._plan.truth,
            lambda rows: self._step.extract(self._val_queries.read(rows)),
            lambda rows: self._step.extract(self._val_database.read(rows)),
            group=self.group,
            candidates=self._settings.val_candidates,
            rankings=rankings,
        )

    @property
    def rankings(self) -> tuple[Ranking, ...]:
        """The ways in which the trained model may be used; its weights file names the best one."""
        floor = self.model.min_similarity
        # SelaVPR++ is ranked by its descriptors or codes alone.
        return (Ranking("gem", "count", floor),) if isinstance(self.model, SelaVPRpp) else rankings_of(floor)

    def triplets_of_round(self) -> tuple[Triplets, MiningState]:
        """Mine the triplets of the next round, sharing the descriptors with the other workers."""
        settings, state = self._settings, self.progress.mining
        drawn = draw_round(
            self._plan.neighbours,
            state,
            queries=settings.round_size,
            sampled=settings.sampled,
            weights=self._plan.weights,
        )
        self.model.eval()
        queries = self._describe(self._queries, drawn.queries)
        database = self._describe(self._database, drawn.database)
        return mine(
            drawn,
            self._plan.neighbours,
            state,
            queries.numpy(),
            database.numpy(),
            negatives=settings.negatives,
            sampled=settings.sampled,
        )

    def gradients(self, batch: Triplets) -> tuple[float, float]:
        """Add up the gradient of one global batch and return its triplet and local loss.

        Args:
            batch: (B, 1 + 1 + N) int64, rows as `mine` returns them, the same on every worker.
        """
        photos = self._triplets.read(batch, round_number=self.progress.mining.round)
        return self._step.backward(photos, len(batch), self._distances(batch))

    def _distances(self, batch: Triplets) -> list[NDArray[np.float64]] | None:
        if self._apart is None:
            return None
        return [self._apart.of(part) for part in self._triplets.shares(batch)]

    def _round(self) -> None:
        started = time.perf_counter()
        triplets, mining = self.triplets_of_round()
        mining_s = time.perf_counter() - started
        batch = self._settings.batch
        batches = [triplets[i * batch : (i + 1) * batch] for i in range(self.steps_per_round)]
        self.model.train()
        sums, steps, started = np.zeros(2), 0, time.perf_counter()
        reading = self._triplets.read_ahead(batches, round_number=self.progress.mining.round)
        for number, parts in enumerate(reading, start=1):
            sums += self._step.backward(parts, batch, self._distances(batches[number - 1]))
            steps += 1
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self._advance(step=self.progress.step + 1)
            if steps == _LOG_EVERY or number == len(batches):
                triplet, local = (sums / steps).tolist()
                seconds = time.perf_counter() - started
                self._log_step(triplet, local, steps * batch * triplets.shape[1] / seconds, mining_s)
                sums, steps, started = np.zeros(2), 0, time.perf_counter()
        self._advance(round=self.progress.round + 1, mining=mining)

    def _log_step(self, triplet: float, local: float, images_per_s: float, mining_s: float) -> None:
        self._on_row(
            {
                **self._where("step"),
                "loss": round(triplet + self._settings.local_weight * local, 6),
                "triplet_loss": round(triplet, 6),
                "local_loss": round(local, 6),
                "images_per_s": round(images_per_s, 2),
                "mining_s": round(mining_s, 2),
                "learning_rate": self._rate,
                "gem_p": round(float(self._gem_p.detach()), 5),
            }
        )

    def _end_epoch(self) -> bool:
        ranking, recall = self._validate(epoch=self.progress.epoch + 1)
        best = recall.score > self.progress.best
        self._advance(
            epoch=self.progress.epoch + 1,
            round=0,
            misses=0 if best else self.progress.misses + 1,
            best=recall.score if best else self.progress.best,
            best_epoch=self.progress.epoch + 1 if best else self.progress.best_epoch,
            ranking=ranking[:2] if best else self.progress.ranking,
        )
        return best

    def _validate(self, epoch: int = 0) -> tuple[Ranking, Recall]:
        """Return the best way to rank and its recall, by which epochs are compared."""
        started = time.perf_counter()
        ranking, recall = best_ranking(self.rankings, self.validate(self.rankings))
        recalls = {f"recall_{name}": value for name, value in recall._asdict().items()}
        seconds = time.perf_counter() - started
        self._on_row(
            {**self._where("validation"), "epoch": epoch, **recalls, "validation_s": round(seconds, 2)}
        )
        return ranking, recall

    def _where(self, kind: str) -> Row:
        done = self.progress
        seconds = round(time.perf_counter() - self._begun, 2)
        return {"kind": kind, "epoch": done.epoch, "round": done.round, "step": done.step, "seconds": seconds}

    def _advance(self, **changes: Any) -> None:
        seconds = time.perf_counter() - self._begun
        self.progress = dataclasses.replace(self.progress, seconds=round(seconds, 3), **changes)

    def _describe(self, photos: Photos, rows: NDArray[np.int64]) -> Tensor:
        blocks = [
            self._step.describe(photos.read(rows[start:end]))
            for start, end in self.group.blocks(len(rows), _DESCRIBE_BLOCK)
        ]
        own = torch.cat(blocks) if blocks else torch.zeros(0, self.model.descriptor_dim)
        return self.group.gather_blocks(own, len(rows), _DESCRIBE_BLOCK)
