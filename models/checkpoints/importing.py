"""Import of published checkpoints as weights files.

No code in a checkpoint is executed: it is unpickled with `weights_only=True`, which allows only the NumPy
types that published checkpoints contain.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as numpy_multiarray
import torch
from torch import Tensor

from models.checkpoints import published_selavprpp
from models.checkpoints.expansion import require_plain_archive, require_size
from models.checkpoints.hub_trunk import is_hub_trunk
from models.checkpoints.pretrained import untrained_parts
from models.checkpoints.published import UnknownLayout, published_name, read_architecture, translate
from models.checkpoints.tensors import fill
from models.checkpoints.weights_file import save_weights
from models.errors import WeightsRejected
from models.names import SELAVPRPP_MODELS
from models.networks.build import build_selavpr
from models.networks.descriptions import SelaVPRDescription
from models.networks.selavprpp import SelaVPRpp
from storage.card import Card

__all__ = ["import_checkpoint"]

_ALLOWED_TYPES: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
    *(
        (function, f"{module}.{name}")
        for name, function in (
            ("_reconstruct", numpy_multiarray._reconstruct),
            ("scalar", numpy_multiarray.scalar),
        )
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    ),
]


# How torch's restricted unpickler words what it refuses to load or call.
_REFUSED = re.compile(r"unsupported|unrecognized|is blocked|TorchScript|legacy \.tar", re.IGNORECASE)


def import_checkpoint(
    pth_path: str | Path, out_path: str | Path, *, num_heads: int | None = None, whole: bool = False
) -> Card:
    """Convert a published SelaVPR, SelaVPR++ or plain DINOv2 checkpoint to a safetensors file.

    Width, depth, registers and the presence of a local head, of adapters and of a hash branch are inferred
    from the tensors; then every tensor of that model must be there. A plain DINOv2 checkpoint gets untrained
    adapters, which do not change its output. Of SelaVPR++ the trunk is left out where it is the DINOv2 of
    timm's hub, which is asked for it; loading the file then takes it from there.

    Args:
        pth_path: The checkpoint as published.
        out_path: The safetensors file to write.
        num_heads: Attention heads. Default: one per 64 channels, or per 32 where 64 does not divide C; for
            SelaVPR++ also per 32 in models narrower than the published ones.
        whole: Keep the trunk in the file in any case, and ask no hub.

    Raises:
        WeightsRejected: the file is unsafe, damaged or of another model; nothing in it was executed.
        OutOfSpace: the disk is full.
    """
    path = Path(pth_path)
    published = _state_of(_read_checkpoint(path))
    require_size(published, path.stat().st_size, str(path))
    if published_selavprpp.is_selavprpp(published):
        return _import_selavprpp(path, out_path, published, num_heads=num_heads, whole=whole)
    try:
        tensors = {name: tensor.float() for name, tensor in translate(published).items()}
        architecture = read_architecture(tensors, num_heads=num_heads)
    except UnknownLayout as error:
        raise WeightsRejected(
            "wrong_layout",
            f"{pth_path} is not a SelaVPR or DINOv2 checkpoint ({error}): pass a published one",
        ) from error
    local_head = any(name.startswith("local_head.") for name in tensors)
    model = build_selavpr(SelaVPRDescription(architecture, local_head=local_head))
    if not any(name.startswith(("backbone.adapters.", "gem_p", "local_head.")) for name in tensors):
        tensors |= untrained_parts(architecture)
    _fill(path, model, tensors, published_name)
    return save_weights(out_path, model)


def _import_selavprpp(
    path: Path, out_path: str | Path, published: dict[str, Tensor], *, num_heads: int | None, whole: bool
) -> Card:
    try:
        tensors = published_selavprpp.translate(published)
        description = published_selavprpp.read_description(tensors, num_heads=num_heads)
    except UnknownLayout as error:
        raise WeightsRejected(
            "wrong_layout", f"{path} is not a complete SelaVPR++ checkpoint ({error}): pass a published one"
        ) from error
    with torch.device("meta"):
        model = SelaVPRpp(description)
    _fill(path, model, tensors, published_selavprpp.published_name)
    hub = SELAVPRPP_MODELS.get(model.name)
    if hub is not None and not whole and is_hub_trunk(tensors, hub[2]):
        model.trunk_name = hub[2]
    return save_weights(out_path, model)


def _fill(path: Path, model: Any, tensors: dict[str, Tensor], shown: Callable[[str], str]) -> None:
    """Fill a model; a refusal names the file, and tensors as the file does."""
    try:
        fill(model, tensors, shown=shown)
    except WeightsRejected as error:
        raise WeightsRejected(error.reason, f"{path}: {error}") from error


def _read_checkpoint(path: Path) -> Any:
    if not path.is_file():
        raise WeightsRejected("not_a_file", f"{path} is not a file: pass the checkpoint itself")
    try:
        # An open file: given a path, torch chooses the reader by its suffix.
        with (
            open(path, "rb") as file,
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(_ALLOWED_TYPES),
        ):
            require_plain_archive(file, path.stat().st_size)
            return torch.load(file, map_location="cpu", weights_only=True)
    except WeightsRejected:
        raise
    except Exception as error:  # damaged archives raise nearly every built-in type
        if _REFUSED.search(str(error)):
            raise WeightsRejected(
                "unsafe", f"{path} holds more than tensors and was not opened: get it from its publisher"
            ) from error
        raise WeightsRejected(
            "unreadable", f"{path} is damaged or not a checkpoint: download it again"
        ) from error


def _state_of(checkpoint: Any) -> dict[str, Tensor]:
    """Return the tensors of a published checkpoint: its `model_state_dict`, or the checkpoint itself."""
    state = checkpoint.get("model_state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if (
        not isinstance(state, dict)
        or not state
        or not all(
            isinstance(name, str) and isinstance(tensor, Tensor) and _is_weight(name, tensor)
            for name, tensor in state.items()
        )
    ):
        raise WeightsRejected(
            "wrong_layout",
            "the checkpoint has no model_state_dict of named tensors: pass a published SelaVPR, SelaVPR++ or "
            "DINOv2 one",
        )
    return state


def _is_weight(name: str, tensor: Tensor) -> bool:
    """Return whether a tensor holds real numbers, or is one of batch normalisation's counters."""
    return tensor.is_floating_point() or (name.endswith(".num_batches_tracked") and tensor.numel() == 1)
