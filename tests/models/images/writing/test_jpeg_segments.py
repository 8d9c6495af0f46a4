"""Positions in the EXIF of JPEGs: read back, nothing else changed, hostile files refused."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from models.images.decoder import decode_image
from models.images.facts import facts_of_file
from models.images.writing.jpeg_segments import find_exif, replace_exif, segment_of, with_position
from models.images.writing.tiff_gps import ExifPosition, NotEmbeddable, add_position, new_block
from tests.support.pictures import draw

SYDNEY = ExifPosition(-33.8567844, 151.2152967, 12.34)
UNKNOWN = IFDRational(0, 0)
NOTE = b"\x01\x02maker's own offsets" * 5


def jpeg(exif: Image.Exif | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    given = {} if exif is None else {"exif": exif.tobytes()}
    draw(3).save(file, "JPEG", quality=90, **given, **options)  # type: ignore[arg-type]
    return file.getvalue()


def camera(**gps: object) -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Orientation] = "Maker of cameras", 6
    exif.get_ifd(IFD.Exif).update({Base.DateTimeOriginal: "2020:01:02 03:04:05", Base.MakerNote: NOTE})
    exif.get_ifd(IFD.GPSInfo).update({GPS[name]: value for name, value in gps.items()})
    return exif


def exif_of(data: bytes) -> Image.Exif:
    return Image.open(io.BytesIO(data)).getexif()


def around_exif(data: bytes) -> tuple[bytes, bytes]:
    place = find_exif(data)
    return data[: place.begin], data[place.end :]


CASES = {
    "no EXIF": jpeg(),
    "EXIF without a position": jpeg(camera()),
    "direction and date alone": jpeg(camera(GPSImgDirection=90.0, GPSDateStamp="2020:01:02")),
    "a position of 0/0": jpeg(camera(GPSLatitude=(UNKNOWN,) * 3, GPSLongitude=(UNKNOWN,) * 3)),
    "progressive": jpeg(camera(), progressive=True),
    "without JFIF": (lambda data: data[:2] + data[20:])(jpeg()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_position_is_read_back_and_no_byte_outside_of_the_segment_changes(case: str) -> None:
    data = CASES[case]
    written = with_position(data, SYDNEY)
    facts = facts_of_file(written)
    assert facts.lat == pytest.approx(SYDNEY.lat, abs=1e-8)
    assert facts.lon == pytest.approx(SYDNEY.lon, abs=1e-8)
    assert around_exif(written) == around_exif(data)
    assert np.array_equal(decode_image(written).pixels, decode_image(data).pixels)
    before, after = exif_of(data), exif_of(written)
    assert {tag: value for tag, value in after.items() if tag != IFD.GPSInfo} == {
        tag: value for tag, value in before.items() if tag != IFD.GPSInfo
    }
    assert dict(after.get_ifd(IFD.Exif)) == dict(before.get_ifd(IFD.Exif))
    gps, former = after.get_ifd(IFD.GPSInfo), before.get_ifd(IFD.GPSInfo)
    assert {tag: gps[tag] for tag in former if tag not in (GPS.GPSLatitude, GPS.GPSLongitude)} == {
        tag: value for tag, value in former.items() if tag not in (GPS.GPSLatitude, GPS.GPSLongitude)
    }
    assert float(gps[GPS.GPSHPositioningError]) == pytest.approx(12.34)


def test_what_was_there_is_put_back_byte_for_byte() -> None:
    for data in CASES.values():
        place = find_exif(data)
        former = data[place.begin : place.end]
        written = with_position(data, SYDNEY)
        assert written != data
        assert replace_exif(written, find_exif(written), former) == data


def test_old_offsets_stay_valid_since_nothing_moves() -> None:
    data = jpeg(camera())
    place, written = find_exif(data), with_position(data, SYDNEY)
    block, now = data[place.begin + 10 : place.end], written[find_exif(written).begin + 10 :]
    assert now.startswith(block[:4])
    assert len(now) > len(block)
    assert block.index(NOTE) == now.index(NOTE)
    changed = [at for at, (a, b) in enumerate(zip(block, now, strict=False)) if a != b]
    assert changed
    assert max(changed) - min(changed) < 4  # the number that leads to the new directory


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-90, 90), st.floats(-180, 180), st.sampled_from([b"II*\0", b"MM\0*"]))
def test_any_position_is_kept_to_a_millimetre(lat: float, lon: float, order: bytes) -> None:
    data = jpeg()
    empty = order + struct.pack("<LHL" if order[:1] == b"I" else ">LHL", 8, 0, 0)
    written = replace_exif(data, find_exif(data), segment_of(add_position(empty, ExifPosition(lat, lon))))
    gps = exif_of(written).get_ifd(IFD.GPSInfo)
    for tag, half, negative, degrees in (
        (GPS.GPSLatitude, GPS.GPSLatitudeRef, "S", lat), (GPS.GPSLongitude, GPS.GPSLongitudeRef, "W", lon)
    ):  # fmt: skip
        whole, minutes, seconds = map(float, gps[tag])
        assert minutes < 60
        assert seconds < 60
        read = (whole + minutes / 60 + seconds / 3600) * (-1 if gps[half] == negative else 1)
        assert read == pytest.approx(degrees, abs=1e-8)


def damaged(data: bytes) -> list[bytes]:
    place = find_exif(data)
    begin = place.begin + 10
    order = ">" if data[begin : begin + 1] == b"M" else "<"
    outside = data[: begin + 4] + struct.pack(f"{order}L", 2**31) + data[begin + 8 :]
    (first,) = struct.unpack_from(f"{order}L", data, begin + 4)
    many = data[: begin + first] + struct.pack(f"{order}H", 60_000) + data[begin + first + 2 :]
    return [outside, many, data[:begin] + b"XXXX" + data[begin + 4 :]]


def test_what_cannot_take_a_position_is_left_alone() -> None:
    full = jpeg(camera())
    place = find_exif(full)
    stuffed = segment_of(full[place.begin + 10 : place.end] + b"\0" * (65_500 - (place.end - place.begin)))
    pictures = b"\xff\xe2" + struct.pack(">H", 10) + b"MPF\0" + b"\0" * 4
    files = [
        *(b"", b"\xff\xd8", b"\xff\xd8\xff\xe1\xff\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8" + b"\0" * 100),
        b"\xff\xd8" + b"\xff\xe3\0\2" * 20_000,
        *damaged(full),
        replace_exif(full, place, stuffed),
        full[: place.begin] + pictures + full[place.begin :],
    ]
    for data in files:
        with pytest.raises(NotEmbeddable):
            with_position(data, SYDNEY)
    with pytest.raises(NotEmbeddable):
        segment_of(b"\0" * 65_600)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.integers(0, 400), st.binary(max_size=6))
def test_no_block_of_exif_causes_another_error(block: bytes, at: int, noise: bytes) -> None:
    good = camera(GPSImgDirection=90.0).tobytes()[6:]
    for hostile in (block, good[:at], good[:at] + noise + good[at + len(noise) :]):
        try:
            written = add_position(hostile, SYDNEY)
        except NotEmbeddable:
            continue
        assert len(written) > len(hostile)


def test_a_new_block_holds_the_position_alone() -> None:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + new_block(SYDNEY))
    assert set(exif) == {IFD.GPSInfo}
