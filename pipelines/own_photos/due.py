"""Keeps what a store's own photos say about the radius of its places up to date."""

from __future__ import annotations

import logging

from serving.places.own_photos import OwnPhotos
from storage.calibration_file import OWN_PHOTOS_FILE
from storage.errors import PlacerayError
from storage.store import Store

__all__ = ["measure_if_due"]

LOG = logging.getLogger(__name__)

_GROWN = 1.5  # times the rows of the last measurement


def measure_if_due(store: Store) -> OwnPhotos | None:
    """Measure a store's own photos where that was never done, or not since it changed; needs the lease.

    Due is what was measured on two thirds of the rows or fewer, on half as many more, or with other
    descriptors. Nothing that goes wrong here fails the run that it is the end of.
    """
    try:
        values = store.measured(OWN_PHOTOS_FILE)
        former = None if values is None else OwnPhotos.from_dict(values)
    except (ValueError, PlacerayError):
        former = None
    if former is not None and former.fits(store.card) and _still_as_large(store.count, former.rows):
        return None
    if not _has_positions(store):
        return None
    from pipelines.own_photos.measuring import measure_own_photos  # loads torch

    try:
        measured = measure_own_photos(store)
        if measured is not None:
            store.write_measured(OWN_PHOTOS_FILE, measured.to_dict())
    except PlacerayError as error:
        LOG.warning("the radius of places was not measured: %s", error)
        return None
    return measured


def _still_as_large(rows: int, former: int) -> bool:
    return max(former, 1) / _GROWN <= rows <= max(former, 1) * _GROWN


def _has_positions(store: Store) -> bool:
    names = ("lat", "utm_e")
    return any(rows[name].null_count < len(rows) for rows in store.scan(names) for name in names)
