"""A learned aggregation: from the local features of a photo to its descriptor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.aggregation.file import read_values, write_values
from models.aggregation.rejected import AggregationRejected
from models.aggregation.residuals import aggregate_residuals, multi_scale_cells, unit_norm
from models.aggregation.whitening import fit_whitening
from models.aggregation.words import cells_share, learn_words, sample_cells
from models.runtime.products import multiplied

__all__ = ["DESCRIPTOR_DIM", "Aggregation"]

DESCRIPTOR_DIM = 512
VOCABULARIES, WORDS = 2, 32  # and words of each
WIDE, WIDE_VOCABULARIES = 256, 1  # channels above which the vectors would be too long
SOFTNESS = 50.0
POWER = 0.25
_BLOCK = 8


@dataclass(frozen=True, eq=False)
class Aggregation:
    """Aggregates local features to descriptors of 512 numbers: VLAD, centred, projected, whitened in part.

    The formulas and their sources are in `residuals` and `whitening`. Safe to share between threads.

    Two runs on one machine with the same number of threads learn the same bytes from the same features. On
    another machine matrix products round differently: there the similarity of two descriptors agrees to three
    decimals, while single numbers of a descriptor need not. A store learns once and keeps what it learned, so
    all machines that work on a store use the same.

    Attributes:
        words: (K, C) float32, one vocabulary after the other.
        mean: (K C,) float32 of the aggregated vectors.
        projection: (K C, D') float32 with the precision of float16, D' at most 512.
        softness: Of the assignment to words.
        photos: Number of photos it was learned from.
        left_out: Share of the variance of these photos that the projection leaves out.
        city_photos: Number of photos in the store when it was learned from a sample of them.
        automatic: Whether a growing store may learn again by itself; False for one that was given as a file.
        vocabularies: Number of vocabularies, each of K / `vocabularies` words; stores that learned before
            there were several have one.
    """

    words: NDArray[np.float32]
    mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    softness: float
    photos: int
    left_out: float
    city_photos: int = 0
    automatic: bool = True
    vocabularies: int = 1

    def __post_init__(self) -> None:
        # One layout in memory: the rounding of a product depends on it.
        for name in ("words", "mean", "projection"):
            object.__setattr__(self, name, np.array(getattr(self, name), np.float32, order="C"))

    @classmethod
    def fit(
        cls,
        blocks: Sequence[NDArray[np.floating]],
        *,
        words: int = WORDS,
        vocabularies: int | None = None,
        power: float = POWER,
        components: int = DESCRIPTOR_DIM,
        seed: int = 0,
    ) -> Aggregation:
        """Learn from the local features of photos, as a store keeps them.

        Args:
            blocks: Arrays (B, H, W, C) float, decoded; the sequence is read three times, block by block.
                Their order matters for the last digits: sort photos by their sample key.
            words: Of each vocabulary.
            vocabularies: Each is clustered from another seed of the random numbers. Default: 2, or one for
                features of more than 256 channels.
            power: Of the whitening: 0 is none, 0.5 all of it.
            components: At most so many are kept.
            seed: Another one gives other words, to measure how much depends on chance.

        Raises:
            AggregationRejected: there are fewer than two photos, or a value is not finite.
        """
        photos = sum(len(block) for block in blocks)
        if photos < 2:
            raise AggregationRejected(
                "too_few_photos",
                f"an aggregation cannot be learned from {photos} photos: index more, or choose "
                "--aggregation gem",
            )
        height, width, channels = blocks[0].shape[1:]
        vocabularies = vocabularies or (VOCABULARIES if channels <= WIDE else WIDE_VOCABULARIES)
        share = cells_share(photos, height * width + (height - 1) * (width - 1))
        cells = np.concatenate([sample_cells(multi_scale_cells(block), share) for block in blocks])
        if not np.isfinite(cells).all():
            raise AggregationRejected(
                "not_finite", "local features hold NaN or infinity: run `placeray verify` on the store"
            )
        learned = np.concatenate(
            [learn_words(cells, words, seed=seed * vocabularies + at) for at in range(vocabularies)]
        )
        vectors = np.concatenate(
            [
                aggregate_residuals(multi_scale_cells(block), learned, SOFTNESS, vocabularies)
                for block in blocks
            ]
        )
        mean, projection, left_out = fit_whitening(vectors, components, power)
        return cls(
            learned,
            mean,
            rounded(projection),
            SOFTNESS,
            photos,
            left_out,
            city_photos=photos,
            vocabularies=vocabularies,
        )

    def describe(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Aggregate the local features of photos.

        A photo's descriptor does not depend on the other photos of the batch.

        Args:
            features: (B, H, W, C) float as a store keeps them, decoded. H and W need not be those that it was
                learned from.

        Returns:
            (B, 512) float32, unit L2 norm, zeros behind the learned components.

        Raises:
            AggregationRejected: C is not that of the words.
        """
        if features.ndim != 4 or features.shape[-1] != self.words.shape[1]:
            raise AggregationRejected(
                "wrong_width",
                f"features of shape {features.shape} do not fit words of {self.words.shape[1]} channels: use "
                "the aggregation that was learned with this model and encoding",
            )
        descriptors = np.zeros((len(features), DESCRIPTOR_DIM), np.float32)
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK]
            # Always full blocks: the rounding of a product depends on its shape.
            vectors = np.zeros((_BLOCK, len(self.mean)), np.float32)
            vectors[: len(block)] = self._vectors(block)
            vectors -= self.mean
            projected = multiplied(vectors, self.projection)
            descriptors[start : start + len(block), : projected.shape[1]] = projected[: len(block)]
        # A photo without structure has no direction; it is as far from all others as from each.
        lost = ~np.any(descriptors, axis=1)
        descriptors[lost, 0] = 1
        return unit_norm(descriptors)

    def left_out_of(self, features: NDArray[np.floating]) -> float:
        """Return the share of the variance of photos about the mean that the projection leaves out.

        Args:
            features: (B, H, W, C) float, as for `describe`.
        """
        axes = self.projection / np.maximum(np.linalg.norm(self.projection, axis=0), np.float32(1e-12))
        vectors = self._vectors(features) - self.mean
        total = float(np.square(vectors).sum())
        return max(0.0, 1 - float(np.square(vectors @ axes).sum()) / total) if total else 0.0

    def _vectors(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        cells = multi_scale_cells(features)
        return aggregate_residuals(cells, self.words, self.softness, self.vocabularies)

    @cached_property
    def sha256(self) -> str:
        """The digest of `to_bytes()`, by which a card names it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return a safetensors file, the same bytes for the same values."""
        return write_values(
            {"words": self.words, "mean": self.mean, "projection": self.projection.astype(np.float16)},
            {
                "softness": self.softness,
                "photos": self.photos,
                "left_out": self.left_out,
                "city_photos": self.city_photos,
                "automatic": self.automatic,
                "vocabularies": self.vocabularies,
            },
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Aggregation:
        """Read what `to_bytes` returned, from a source that need not be trusted.

        Raises:
            AggregationRejected: the bytes are too many, damaged, or describe something else.
        """
        arrays, values = read_values(data)
        return cls(
            arrays["words"],
            arrays["mean"],
            arrays["projection"],
            softness=values["softness"],
            photos=int(values["photos"]),
            left_out=values["left_out"],
            city_photos=int(values["city_photos"]),
            automatic=bool(values["automatic"]),
            vocabularies=int(values["vocabularies"]),
        )


def rounded(projection: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a projection to the range of float16 and round it as the file does; directions are kept."""
    largest = float(np.abs(projection).max(initial=0))
    scaled = projection / largest if largest else projection
    return scaled.astype(np.float16).astype(np.float32)
