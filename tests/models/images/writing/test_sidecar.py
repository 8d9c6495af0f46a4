"""XMP sidecars: well-formed, and the position to the millimetre."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.images.writing.sidecar import names_position, sidecar_of
from models.images.writing.tiff_gps import ExifPosition
from pipelines.sources.degrees import read_degrees

EXIF = "{http://ns.adobe.com/exif/1.0/}"


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.floats(-90, 90), st.floats(-180, 180), st.none() | st.floats(0, 1e5))
def test_a_sidecar_names_the_position(lat: float, lon: float, error_m: float | None) -> None:
    sidecar = sidecar_of(ExifPosition(lat, lon, error_m))
    (description,) = ElementTree.fromstring(sidecar).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    assert read_degrees(description.get(EXIF + "GPSLatitude"), "lat") == pytest.approx(lat, abs=1e-8)
    assert read_degrees(description.get(EXIF + "GPSLongitude"), "lon") == pytest.approx(lon, abs=1e-8)
    assert (description.get(EXIF + "GPSHPositioningError") is None) == (error_m is None)
    assert names_position(sidecar)
    assert not names_position(b"<x:xmpmeta/>")
