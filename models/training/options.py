"""Options of training. Imports nothing heavy: the help of the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

__all__ = ["MARGIN", "Augmentation"]

MARGIN = 0.1  # of the triplet loss, in L2 distance of descriptors


@dataclass(frozen=True)
class Augmentation:
    """How strongly photos are changed; 0 leaves them as they are.

    Attributes:
        jitter: Brightness, contrast and saturation are scaled by 1 - jitter to 1 + jitter, hue is turned by
            up to a tenth of jitter of the circle; 0..1.
        perspective: Each corner moves inwards by up to this share of half the side, both ways; 0..1.
        crop: A rectangle of 1 - crop to all of the area is cut out and scaled to the whole; 0 to below 1.
        rotation_deg: Turned by up to so many degrees either way; 0..180.
        flip: Chance that a triplet is mirrored; 0..1.
    """

    jitter: float = field(
        default=0.0, metadata={"help": "strength of colour jitter, 0 to 1", "ge": 0, "le": 1}
    )
    perspective: float = field(
        default=0.0, metadata={"help": "strength of perspective distortion, 0 to 1", "ge": 0, "le": 1}
    )
    crop: float = field(
        default=0.0,
        metadata={"help": "largest share of the area that a random crop removes", "ge": 0, "lt": 1},
    )
    rotation_deg: float = field(
        default=0.0, metadata={"help": "largest rotation in degrees", "ge": 0, "le": 180}
    )
    flip: float = field(
        default=0.0, metadata={"help": "probability of mirroring a whole triplet", "ge": 0, "le": 1}
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            value, limit = getattr(self, one.name), 180.0 if one.name == "rotation_deg" else 1.0
            # Written so that NaN is refused too.
            if not (0.0 <= value <= limit) or (one.name == "crop" and value == limit):
                below = "below " * (one.name == "crop")
                raise ValueError(
                    f"{one.name} {value:g} is not within 0 to {below}{limit:g}: give such a value"
                )

    @property
    def is_off(self) -> bool:
        """Whether photos stay as they are."""
        return self == Augmentation()
