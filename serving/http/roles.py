"""What the roles of tokens allow."""

from __future__ import annotations

import os
from typing import Any

from fastapi import Depends, Request

from serving.answer import PlaceRecord
from serving.errors import Refusal
from storage.records import ImageRecord

__all__ = ["METRICS", "READ", "shown_uri"]


def _for_role(role: str) -> Any:
    """Return the dependency of routes for tokens of one role and `admin`; 403 for others.

    The role is compared where the routes are, not by path: the router decodes paths, and a comparison before
    it could see another one.
    """

    async def require(request: Request) -> None:
        has = request.state.role
        if has not in (role, "admin"):
            message = f"The role {has!r} does not allow this; use a token of the role {role!r} or 'admin'."
            raise Refusal(403, "forbidden", message)

    return Depends(require)


READ, METRICS = _for_role("read"), _for_role("metrics")


def shown_uri(record: ImageRecord | PlaceRecord, role: str) -> str:
    """Return where an image was indexed from, as a role may see it.

    Args:
        record: Of the image.
        role: `admin` sees all of it, others the path below the source; without a known source the part that
            is the image's id, or the file name.
    """
    uri = record.uri
    if role == "admin":
        return uri
    source = getattr(record, "source", None)
    if source and uri.startswith(source.rstrip("/") + "/"):
        return uri[len(source.rstrip("/")) + 1 :]
    if uri.endswith("/" + record.image_id):
        return record.image_id
    return os.path.basename(uri)
