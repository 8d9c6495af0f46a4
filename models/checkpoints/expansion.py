"""How much memory a checkpoint takes: no more than its file explains, checked before and after it is read."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import BinaryIO

from torch import Tensor

from models.errors import WeightsRejected

__all__ = ["require_plain_archive", "require_size"]

_MAX_MEMBERS = 100_000  # torch writes one per tensor
_SHARED = 4  # tensors that are saved once and used under several names


def require_plain_archive(file: BinaryIO, size: int) -> None:
    """Check that a checkpoint's archive holds its members as they are, as torch writes them.

    Args:
        file: The open checkpoint; its position is set back to the start. Files that are not archives are
            accepted.
        size: Its size in bytes.

    Raises:
        WeightsRejected: a member is compressed, or the members are larger than the file.
    """
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # for torch to report
    finally:
        file.seek(0)
    compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if compressed or len(members) > _MAX_MEMBERS or sum(member.file_size for member in members) > size:
        raise WeightsRejected(
            "unsafe",
            f"{file.name} would expand to more than its {size} bytes and was not opened: get it from its "
            "publisher, as torch.save wrote it",
        )


def require_size(tensors: Mapping[str, Tensor], size: int, path: str) -> None:
    """Check that tensors do not take more memory than their file explains, however they are laid out in it.

    Raises:
        WeightsRejected: they do.
    """
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > _SHARED * size:
        raise WeightsRejected(
            "unsafe", f"{path} has tensors much larger than the file: get it from its publisher"
        )
