"""The place of an answer and its calibration in a line of text each, and answers as GeoJSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["calibration_words", "geojson_of", "place_words"]

NOT_KNOWN = "not in this city, or not recognisable"
NOT_CONSIDERED = "not among the images considered, or not recognisable"
_PLACE = (
    *("radius_m", "heading_deg", "probability_right", "known", "evidence", "spread_m", "calibrated"),
    "position",
)
_MATCH = ("rank", "image_id", "similarity", "mutual_matches", "score", "score_kind")


def place_words(place: Mapping[str, Any], *, filtered: bool = False) -> str:
    """Return the place of an answer as a sentence without a full stop.

    Args:
        place: As answers have it.
        filtered: Whether a part of the images was searched.
    """
    if place["position"] is None:
        return "place unknown: no candidate has a position"
    if place["known"] is False:
        return f"{NOT_CONSIDERED if filtered else NOT_KNOWN} (probability {place['probability_right']:.0%})"
    sure = "" if place["probability_right"] is None else f" ({place['probability_right']:.0%})"
    words = f"probably taken at {_position(place['position'])}{sure}"
    if place["radius_m"] is not None:
        words += f", within {place['radius_m']:.0f} m with 90 %"
    if place["heading_deg"] is not None:
        words += f", looking {place['heading_deg']:.0f} degrees"
    return words


def calibration_words(about: Mapping[str, Any] | None) -> str | None:
    """Return what keeps the calibration of a store from holding for an answer in full; None: nothing does.

    Args:
        about: `calibration` of the answer; None where the service is older than that.
    """
    if not about or not about.get("exists") or about["guaranteed"]:
        return None
    return f"{'not guaranteed' if about['valid'] else 'not calibrated'}: {about['reason']}"


def geojson_of(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the answers as a GeoJSON FeatureCollection (RFC 7946).

    Each photo has a feature `place`, with its radius among the properties, and one for each match. What has
    no degrees has no geometry. `calibration_reason` says why the place is not calibrated, or why nothing is
    `guaranteed`.

    Args:
        answers: As `placeray query --json` lists them.
    """
    features = []
    for answer in answers:
        place = answer.get("place")  # a rejected photo has none
        about = {"kind": "place", "image": answer["image"], "error": answer.get("error")}
        values = {name: None if place is None else place[name] for name in _PLACE}
        calibration = answer.get("calibration") or {}
        values |= {
            "calibration_reason": calibration.get("reason"),
            "guaranteed": calibration.get("guaranteed"),
        }
        values |= {"considered": answer["considered"]} if "considered" in answer else {}
        features.append(_feature(None if place is None else place["position"], about | values))
        for match in answer.get("matches", ()):
            listed = {name: match.get(name) for name in _MATCH}
            listed |= {"prior_weight": match["prior_weight"]} if "prior_weight" in match else {}
            features.append(_feature(match, {"kind": "match", "image": answer["image"], **listed}))
    return {"type": "FeatureCollection", "features": features}


def _feature(position: Mapping[str, Any] | None, properties: dict[str, Any]) -> dict[str, Any]:
    geometry = None
    if position is not None and position["lat"] is not None:
        geometry = {"type": "Point", "coordinates": [position["lon"], position["lat"]]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _position(position: Mapping[str, Any]) -> str:
    if position["lat"] is not None:
        return f"{position['lat']:.6f}, {position['lon']:.6f}"
    return f"{position['utm_e']:.1f} E {position['utm_n']:.1f} N"
