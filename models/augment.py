"""Augmentations of training triplets, by torchvision's v2 transforms; all off unless asked for.

Each photo is changed by itself, but a horizontal flip takes the whole triplet: a mirrored street is another
place. Which of them help whom: Berton et al., "Deep Visual Geo-localization Benchmark", CVPR 2022.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

__all__ = ["Augmentation", "augment"]

Photos = NDArray[np.uint8] | NDArray[np.float32]

# torchvision draws from torch's random state, which belongs to the whole process.
_DRAWING = threading.Lock()


@dataclass(frozen=True)
class Augmentation:
    """How strongly photos are changed; 0 leaves them as they are.

    Attributes:
        jitter: Brightness, contrast and saturation are scaled by 1 - jitter to 1 + jitter, hue is turned by
            up to a tenth of jitter of the circle; 0..1.
        perspective: Distortion of the corners, as a share of half the side; 0..1.
        crop: A rectangle of 1 - crop to all of the area is cut out and scaled to the whole; 0 to below 1.
        rotation_deg: Turned by up to so many degrees either way; 0..180.
        flip: Chance that a triplet is mirrored; 0..1.
    """

    jitter: float = 0.0
    perspective: float = 0.0
    crop: float = 0.0
    rotation_deg: float = 0.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        most = {"rotation_deg": 180.0}
        for field in fields(self):
            value, limit = getattr(self, field.name), most.get(field.name, 1.0)
            if not (0.0 <= value <= limit) or (field.name == "crop" and value == limit):
                raise ValueError(f"{field.name} {value:g} is not within 0 to {limit:g}: give such a value")

    @property
    def is_off(self) -> bool:
        """Whether photos stay as they are."""
        return self == Augmentation()


def augment(images: Photos, augmentation: Augmentation, *, seed: tuple[int, ...]) -> Photos:
    """Change the photos of one triplet.

    Args:
        images: (1 + 1 + N, h, w, 3) uint8, or float32 in 0..255: query, positive, negatives.
        augmentation: How strongly.
        seed: Of every draw; the same gives the same photos in any process and order.

    Returns:
        Photos of the same shape and dtype; the very input when all is off.

    Raises:
        ValueError: the images are not of that shape and dtype.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype not in (np.uint8, np.float32):
        raise ValueError(f"images {images.shape} {images.dtype} must be (n, h, w, 3) uint8 or float32")
    if augmentation.is_off:
        return images
    words = np.random.SeedSequence(seed).generate_state(2, np.uint32)
    photos = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    whole = photos.float() / 255 if images.dtype == np.float32 else photos
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
        changed = torch.stack([_changed(photo, augmentation) for photo in whole])
        if torch.rand(()) < augmentation.flip:
            changed = F.horizontal_flip(changed)
    if images.dtype == np.float32:
        changed = changed.clamp(0, 1) * 255
    return np.ascontiguousarray(changed.numpy().transpose(0, 2, 3, 1))


def _changed(photo: Tensor, augmentation: Augmentation) -> Tensor:
    """Change one photo (3, h, w), uint8 or float32 in 0..1."""
    height, width = photo.shape[1:]
    bilinear = InterpolationMode.BILINEAR
    # What turning and tilting uncover shows the mean colour: black corners would be a landmark of their own.
    fill = photo.float().mean(dim=(1, 2)).tolist()
    steps: list[v2.Transform] = []
    if augmentation.crop:
        area = (1 - augmentation.crop, 1.0)
        shape = (3 / 4 * width / height, 4 / 3 * width / height)
        steps.append(v2.RandomResizedCrop((height, width), scale=area, ratio=shape, antialias=True))
    if augmentation.perspective:
        steps.append(v2.RandomPerspective(augmentation.perspective, p=1.0, interpolation=bilinear, fill=fill))
    if augmentation.rotation_deg:
        steps.append(v2.RandomRotation(augmentation.rotation_deg, interpolation=bilinear, fill=fill))
    if augmentation.jitter:
        scaled = augmentation.jitter
        steps.append(v2.ColorJitter(scaled, scaled, scaled, min(0.5, scaled / 10)))
    for step in steps:
        photo = step(photo)
    return photo
