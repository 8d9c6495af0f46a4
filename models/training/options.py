"""Options of training. Imports nothing heavy, since the command line's help reads them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

__all__ = ["MARGIN", "Augmentation"]

MARGIN = 0.1  # of the triplet loss, in L2 distance of descriptors


@dataclass(frozen=True)
class Augmentation:
    """Strength of each augmentation; 0 turns it off.

    Attributes:
        jitter: Brightness, contrast and saturation are scaled by 1 - jitter to 1 + jitter, hue is rotated by
            up to jitter / 10 of a full turn; 0..1.
        perspective: Each corner moves inwards by up to this share of half the side, in both directions; 0..1.
        crop: A rectangle of 1 - crop to all of the area is cropped and resized to the full size; 0 to below
            1.
        rotation_deg: Largest rotation in either direction, in degrees; 0..180.
        flip: Probability that a triplet is mirrored; 0..1.
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
            # Written so that NaN is rejected too.
            if not (0.0 <= value <= limit) or (one.name == "crop" and value == limit):
                below = "below " * (one.name == "crop")
                raise ValueError(
                    f"{one.name} {value:g} is not within 0 to {below}{limit:g}: pass such a value"
                )

    @property
    def is_off(self) -> bool:
        """Whether photos are left unchanged."""
        return self == Augmentation()
