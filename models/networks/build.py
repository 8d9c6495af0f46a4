"""Networks built from their descriptions, without weights."""

from __future__ import annotations

import torch

from models.networks.descriptions import EfficientNetDescription, SelaVPRDescription
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR
from models.networks.selavprpp import SelaVPRpp
from models.networks.selavprpp_description import SelaVPRppDescription

__all__ = ["build_network", "build_selavpr"]


def build_network(
    description: SelaVPRDescription | SelaVPRppDescription | EfficientNetDescription,
) -> SelaVPR | SelaVPRpp | EfficientNetLite0:
    """Return a network without weights; one with a DINOv2 trunk is on the meta device."""
    if isinstance(description, SelaVPRppDescription):
        with torch.device("meta"):
            return SelaVPRpp(description)
    if isinstance(description, SelaVPRDescription):
        return build_selavpr(description)
    return EfficientNetLite0(adapter_stages=description.adapter_stages, local_head=description.local_head)


def build_selavpr(description: SelaVPRDescription) -> SelaVPR:
    """Return a model without weights, on the meta device."""
    with torch.device("meta"):
        return SelaVPR(description.architecture, local_head=description.local_head)
