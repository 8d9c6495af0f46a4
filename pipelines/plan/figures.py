"""What one image costs, as a trial measured it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Figures"]


@dataclass(frozen=True)
class Figures:
    """Measured costs of one image.

    Attributes:
        images: Number of images that were measured.
        photos: What they were: the source, or drawn pictures.
        cpu: Name of the processor.
        decode_s: Core seconds to read, decode and resize an image.
        extract_s: Core seconds of the model with one thread, or seconds of the GPU that `on_gpu` names.
        write_s: Core seconds to write local features.
        commit_s: Core seconds of the driver for a commit of up to 1,024 rows.
        photo_bytes: Size of a photo; None: unknown.
        feature_bytes: Size of its local features in the store.
        row_bytes: Size of its row in the store: descriptor, code and metadata.
        on_gpu: Name of the GPU that the model ran on; None: a CPU.
    """

    images: int
    photos: str
    cpu: str
    decode_s: float
    extract_s: float
    write_s: float
    commit_s: float
    photo_bytes: float | None
    feature_bytes: float
    row_bytes: float
    on_gpu: str | None = None
