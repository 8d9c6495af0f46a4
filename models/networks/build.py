"""Networks built from their descriptions, without weights."""

from __future__ import annotations

import torch

from models.networks.descriptions import EfficientNetDescription, SelaVPRDescription
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR

__all__ = ["build_network", "build_selavpr"]


def build_network(description: SelaVPRDescription | EfficientNetDescription) -> SelaVPR | EfficientNetLite0:
    """Return a network without weights; a `SelaVPR` is on the meta device."""
    if isinstance(description, SelaVPRDescription):
        return build_selavpr(description)
    return EfficientNetLite0(adapter_stages=description.adapter_stages, local_head=description.local_head)


def build_selavpr(description: SelaVPRDescription) -> SelaVPR:
    """Return a model without weights, on the meta device."""
    with torch.device("meta"):
        return SelaVPR(description.architecture, local_head=description.local_head)
