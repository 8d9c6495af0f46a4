"""A folder as it comes off phones and cameras: photos with the EXIF of many makers, and the rows they give.

`python -m tests.support.phone_photos FOLDER` writes it, to try by hand.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tests.support.encoded_images import HEIC, encoded, encoded_heic
from tests.support.pictures import draw

__all__ = ["Photo", "expected_rows", "phone_photos", "write_phone_photos"]

SIZE = (320, 240)
PLACE = (48.13725, 11.57549)
TEN = datetime(2024, 7, 1, 10, tzinfo=UTC)
FILM = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + os.urandom(64) + b"\xff\xda\0\x08" * 400
UNKNOWN = IFDRational(0, 0)


@dataclass(frozen=True)
class Photo:
    """A file, and the row that indexing makes of it.

    Attributes:
        name: Relative to the folder.
        data: Its content.
        upright: Width and height of the picture as it is seen.
        place: Latitude and longitude, or None.
        heading_deg: Direction of view, or None.
        captured_at: Time, or None.
        rejected: Why it cannot be used, or None.
        notes: Reasons of the values that are dropped.
    """

    name: str
    data: bytes
    upright: tuple[int, int] = SIZE
    place: tuple[float, float] | None = None
    heading_deg: float | None = None
    captured_at: datetime | None = None
    rejected: str | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Camera:
    """What a maker writes into EXIF: tags of the image, of the Exif IFD and of the GPS IFD."""

    make: str
    image: dict[int, Any] = field(default_factory=dict)
    details: dict[int, Any] = field(default_factory=dict)
    gps: dict[int, Any] = field(default_factory=dict)

    def exif(self) -> bytes:
        block = Image.Exif()
        block[0x010F] = self.make
        for tag, value in self.image.items():
            block[tag] = value
        block.get_ifd(0x8769).update(self.details)
        block.get_ifd(0x8825).update(self.gps)
        return block.tobytes()


def dms(degrees: float) -> tuple[float, float, float]:
    minutes = abs(degrees) % 1 * 60
    return float(int(abs(degrees))), float(int(minutes)), round(minutes % 1 * 60, 4)


def fix(lat_ref: Any = "N", lon_ref: Any = "E", **more: Any) -> dict[int, Any]:
    """The GPS block of a photo at `PLACE`."""
    tags = {1: lat_ref, 2: dms(PLACE[0]), 3: lon_ref, 4: dms(PLACE[1])}
    return tags | {int(name.removeprefix("t")): value for name, value in more.items()}


def clock(time: str = "2024:07:01 12:00:00", offset: str | None = "+02:00", **more: Any) -> dict[int, Any]:
    """The Exif block of a photo taken at `TEN`."""
    tags: dict[int, Any] = {0x9003: time} | ({} if offset is None else {0x9011: offset})
    return tags | {int(name.removeprefix("t"), 16): value for name, value in more.items()}


def jpeg(
    seed: int, camera: Camera, *, size: tuple[int, int] = SIZE, kind: str = "JPEG", **options: Any
) -> bytes:
    return encoded(draw(seed, size=size), kind, quality=90, exif=camera.exif(), **options)


def phone_photos(*, heic: bool = HEIC) -> list[Photo]:
    """Return the photos of the folder.

    Args:
        heic: Whether HEIC can be read; otherwise such files are refused. Without pillow-heif their content is
            only the beginning of one.
    """
    return [*_with_everything(heic), *_without_a_fix(), *_odd_values(), *_odd_files()]


def _with_everything(heic: bool) -> Iterator[Photo]:
    """Makers whose position, heading and time are read."""
    apple = Camera("Apple", {0x0112: 6}, clock(t9291="250"), fix(t16="T", t17=271.5, t31=4.7))
    seen = {"place": PLACE, "heading_deg": 271.5, "captured_at": TEN.replace(microsecond=250_000)}
    upright = SIZE[::-1]
    yield Photo("100APPLE/IMG_0001.JPG", jpeg(1, apple), upright, **seen)
    live = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)
    if HEIC:
        live = encoded_heic(draw(2, size=SIZE), exif=apple.exif())
    taken = {"upright": upright, **seen} if heic else {"rejected": "format_not_allowed"}
    yield Photo("100APPLE/IMG_0002.HEIC", live, **taken)
    yield Photo("100APPLE/IMG_0003.avif", jpeg(3, apple, kind="AVIF"), upright, **seen)
    samsung = Camera("samsung", {0x0112: 1}, clock(), fix(t17=IFDRational(9000, 100), t29="2024:07:01"))
    moving = jpeg(4, samsung) + b"MotionPhoto_Data" + FILM + b"SEFT"
    yield Photo("DCIM/20240701_120000.jpg", moving, place=PLACE, heading_deg=90.0, captured_at=TEN)
    panorama = jpeg(5, samsung, size=(960, 120))[:-2] + FILM  # without an end marker before its trailer
    yield Photo("DCIM/20240701_120001.jpg", panorama, (960, 120), PLACE, 90.0, TEN)
    google = Camera("Google", {}, clock(t9291="000"), fix(t17=0.0, t7=(10.0, 0.0, 0.0), t29="2024:07:01"))
    yield Photo(
        "PXL_20240701_100000000.MP.jpg", jpeg(6, google, progressive=True) + FILM, SIZE, PLACE, 0.0, TEN
    )
    lg = Camera("LG Electronics", {}, clock(offset=None), fix("North", "East\0\0", t7=(10.0, 0.0, 0.0)))
    lg.gps |= {29: "2024-07-01"}
    yield Photo("lg.jpg", jpeg(7, lg), SIZE, PLACE, None, TEN)
    xiaomi = Camera("Xiaomi", {}, clock("2024-07-01T10:00:00", "Z"), fix("n", "e", t17=359.99))
    yield Photo("xiaomi.webp", jpeg(8, xiaomi, kind="WEBP"), SIZE, PLACE, 359.99, TEN)


def _without_a_fix() -> Iterator[Photo]:
    """Makers that write a position before they have one."""
    huawei = Camera("HUAWEI", {}, clock(), {1: "N", 2: (UNKNOWN,) * 3, 3: "E", 4: (UNKNOWN,) * 3})
    huawei.gps |= {17: UNKNOWN, 29: "1970:01:01", 7: (0.0, 0.0, 0.0)}
    yield Photo("huawei.jpg", jpeg(11, huawei), captured_at=TEN)
    oppo = Camera("OPPO", {}, clock(), {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)})
    yield Photo("oppo.jpg", jpeg(12, oppo), captured_at=TEN, notes=("null_island",))
    canon = Camera("Canon", {0x0112: 8}, clock(offset=None), {0: b"\x02\x03\0\0"})
    yield Photo("EOS/IMG_1001.JPG", jpeg(13, canon), SIZE[::-1], notes=("unknown_time_zone",))
    sony = Camera("SONY", {0x0112: 3}, clock(), {})
    yield Photo("DSC00001.JPG", jpeg(14, sony), captured_at=TEN)


def _odd_values() -> Iterator[Photo]:
    """Makers whose clock or compass says nothing; the rest of the photo is used."""
    nikon = Camera("NIKON CORPORATION", {}, clock("    :  :     :  :  "), fix())
    yield Photo("DSC_0001.JPG", jpeg(21, nikon), place=PLACE)
    gopro = Camera("GoPro", {}, clock("0000:00:00 00:00:00"), fix(t17=65535.0))
    yield Photo("GOPR0001.JPG", jpeg(22, gopro), place=PLACE, notes=("bad_heading",))
    dji = Camera("DJI", {}, clock(offset="+2"), fix(t1="N", t17=4294967251.0))
    yield Photo("DJI_0001.JPG", jpeg(23, dji), place=PLACE, captured_at=TEN, notes=("bad_heading",))
    kodak = Camera("EASTMAN KODAK", {0x0112: 0}, {}, fix(t2=(91.0, 0.0, 0.0)))
    yield Photo("kodak.jpg", jpeg(24, kodak), notes=("bad_position",))
    fuji = Camera("FUJIFILM", {}, clock(), fix())
    pair = draw(26, size=SIZE)
    stereo = jpeg(25, fuji, kind="MPO", save_all=True, append_images=[pair])
    yield Photo("DSCF0001.MPO.jpg", stereo, place=PLACE, captured_at=TEN)


def _odd_files() -> Iterator[Photo]:
    """Files without EXIF, damaged ones, and those that are no photos."""
    yield Photo("WhatsApp/IMG-20240701-WA0001.jpg", encoded(draw(31, size=SIZE), "JPEG"))
    yield Photo("Screenshot_20240701.png", encoded(draw(32, size=SIZE), "PNG"))
    broken = bytearray(jpeg(33, Camera("Apple", {}, clock(), fix())))
    start = broken.index(b"Exif\0\0") + 14
    broken[start : start + 40] = b"\xff" * 40
    yield Photo("exif-damaged.jpg", bytes(broken))
    yield Photo("cut.jpg", encoded(draw(34, size=SIZE), "JPEG")[:-600], rejected="truncated")
    yield Photo("film-named.jpg", FILM, rejected="format_not_allowed")
    yield Photo("empty.jpg", b"", rejected="empty")


def write_phone_photos(folder: Path, *, heic: bool = HEIC) -> list[Photo]:
    """Write the photos, with what else lies in such a folder, and return them."""
    photos = phone_photos(heic=heic)
    others = {"DCIM/.thumbnails/1.jpg": b"x", "DCIM/._a.jpg": b"\0\5\26\7", "100APPLE/IMG_0001.MOV": FILM}
    others |= {"100APPLE/IMG_0001.AAE": b"<xml/>", "Thumbs.db": b"\xd0\xcf\x11\xe0", "DSC_0001.NEF": b"II*\0"}
    for name, data in [*((photo.name, photo.data) for photo in photos), *others.items()]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return photos


def expected_rows(photos: list[Photo]) -> dict[str, dict[str, Any]]:
    """Return what the store must hold of each accepted photo, by its id."""
    return {
        photo.name: {
            "width": photo.upright[0],
            "height": photo.upright[1],
            "lat": photo.place and round(photo.place[0], 5),
            "lon": photo.place and round(photo.place[1], 5),
            "heading_deg": photo.heading_deg,
            "captured_at": photo.captured_at,
        }
        for photo in photos
        if photo.rejected is None
    }


if __name__ == "__main__":
    write: Callable[..., list[Photo]] = write_phone_photos
    print(f"{len(write(Path(sys.argv[1])))} photos in {sys.argv[1]}")
