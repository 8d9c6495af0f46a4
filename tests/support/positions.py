"""Positions in degrees, in UTM, or in both."""

from __future__ import annotations

from storage.position import Position


def at(lat: float, lon: float) -> Position:
    """Return a position in degrees and in UTM."""
    return Position(lat=lat, lon=lon).completed()


def utm_only(position: Position, *, band: bool = True) -> Position:
    """Return a position without its degrees; `band`: whether its zone keeps the band letter."""
    zone = position.utm_zone or ""
    return Position(
        utm_e=position.utm_e,
        utm_n=position.utm_n,
        utm_zone=zone if band else zone.rstrip("CDEFGHJKLMNPQRSTUVWX"),
    )
