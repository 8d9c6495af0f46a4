"""Drives through a drawn city: frames of a camera on a vehicle, their exact poses, and noisy odometry.

A drive turns at crossings, stops before some of them, and leaves the photographed streets for a while.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import utm

from pipelines.demo.camera import Pose
from pipelines.demo.dataset import take_picture
from pipelines.demo.plan import PLACE_STEP_M, City, Place, plan_city
from pipelines.demo.route import CRUISE_M_PER_S, Motion, drive_along, plan_route, road_of
from pipelines.demo.shots import ORIGIN_E, ORIGIN_N, ZONE, ZONE_LETTER, CityError, check_counts
from storage.text import spreadsheet_safe

__all__ = ["DRIVE_CONDITIONS", "Drive", "Frame", "draw_drive", "plan_drive"]

DRIVE_CONDITIONS = ("day", "night", "snow", "overcast", "rain", "glare")
MIN_FRAMES, MAX_FRAMES = 10, 10_000
CAMERA_DEG, LENS_DEG = 90.0, 92.0  # out of the right-hand window, through a wide lens
OUTSIDE_M = 25.0  # from the nearest place of the database
# Of the camera on an uneven road, and of the odometer: share of the distance, metres and degrees per frame.
JITTER_DEG, PITCH_DEG = 4.0, 1.5
SCALE_ERROR, DISTANCE_NOISE_M, TURN_NOISE_DEG = 0.03, 0.2, 2.0


@dataclass(frozen=True)
class Frame:
    """One picture of a drive.

    Attributes:
        name: Of its file.
        pose: Of the camera, in the city's metres.
        motion: Of the vehicle.
        inside: Whether the database has a place within 25 m.
        distance_m: Odometry: travelled since the frame before, with noise.
        turn_deg: Odometry: turned to the right since the frame before, with noise.
    """

    name: str
    pose: Pose
    motion: Motion
    inside: bool
    distance_m: float
    turn_deg: float


@dataclass(frozen=True)
class Drive:
    """A drive that was drawn.

    Attributes:
        folder: Holds `frames`, `odometry.csv` and `truth.csv`.
        frames: The pictures, in order.
    """

    folder: Path
    frames: tuple[Frame, ...]

    @property
    def frames_folder(self) -> Path:
        """Where the pictures are."""
        return self.folder / "frames"

    @property
    def odometry(self) -> Path:
        """CSV with the columns frame, time_s, distance_m and turn_deg."""
        return self.folder / "odometry.csv"


def plan_drive(
    *,
    seed: int,
    database_images: int,
    hard: bool = False,
    spacing_m: float = PLACE_STEP_M,
    frames: int = 120,
    frames_per_s: float = 1.0,
    number: int = 0,
) -> tuple[City, tuple[Frame, ...]]:
    """Plan a drive through the city that `draw_city` draws from the same values.

    Args:
        seed: Of the city.
        database_images: Of the city.
        hard: Of the city.
        spacing_m: Of the city.
        frames: Pictures of the drive.
        frames_per_s: Of the camera.
        number: Each number is another route.

    Raises:
        CityError: a number out of range, or a city without a photographed street between two crossings.
    """
    check_counts(seed, database_images, 0)
    if not MIN_FRAMES <= frames <= MAX_FRAMES or not 0.1 <= frames_per_s <= 60:
        raise CityError(
            f"{frames} frames at {frames_per_s:g} per second: give {MIN_FRAMES} to {MAX_FRAMES} frames and "
            "0.1 to 60 per second"
        )
    count = (database_images + 1) // 2
    city = plan_city(seed=seed, places=count, hard=hard, spacing_m=spacing_m)
    places = list(islice(city.places(spacing_m), count))
    try:
        length_m = 1.1 * CRUISE_M_PER_S * frames / frames_per_s
        route = plan_route(city, places, length_m=length_m, seed=number)
    except ValueError as error:
        raise CityError(str(error)) from None
    points, corners_m = road_of(city, route)
    seed_of = f"{seed}/drive/{number}"
    motions = drive_along(points, corners_m, frames=frames, frames_per_s=frames_per_s, seed=seed_of)
    return city, _frames(list(motions), places, Random(seed_of))


def _frames(motions: Sequence[Motion], places: Sequence[Place], random: Random) -> tuple[Frame, ...]:
    scale = 1.0 + random.gauss(0.0, SCALE_ERROR)
    made: list[Frame] = []
    for number, motion in enumerate(motions):
        before = motions[max(0, number - 1)]
        turn = (motion.heading_deg - before.heading_deg + 180.0) % 360.0 - 180.0
        travelled = motion.travelled_m - before.travelled_m
        noise_m = random.gauss(0.0, DISTANCE_NOISE_M) if travelled else 0.0
        pose = Pose(
            round(motion.x_m, 2),
            round(motion.y_m, 2),
            round((motion.heading_deg + CAMERA_DEG + random.gauss(0.0, JITTER_DEG)) % 360.0, 2),
            round(8.0 + random.gauss(0.0, PITCH_DEG), 2),
            2.0,
            LENS_DEG,
        )
        made.append(
            Frame(
                f"{number:06d}.jpg",
                pose,
                motion,
                min(math.hypot(p.x_m - motion.x_m, p.y_m - motion.y_m) for p in places) <= OUTSIDE_M,
                round(max(0.0, scale * travelled + noise_m), 2),
                round(turn + random.gauss(0.0, TURN_NOISE_DEG), 2),
            )
        )
    return tuple(made)


def draw_drive(
    out: str | Path,
    *,
    seed: int = 0,
    database_images: int = 240,
    hard: bool = False,
    spacing_m: float = PLACE_STEP_M,
    condition: str = "night",
    frames: int = 120,
    frames_per_s: float = 1.0,
    number: int = 0,
    size: tuple[int, int] = (320, 240),
) -> Drive:
    """Draw a drive into a folder; pictures that are there are not drawn again.

    Args:
        out: Folder of the drive.
        seed: As of `plan_drive`.
        database_images: As of `plan_drive`.
        hard: As of `plan_drive`.
        spacing_m: As of `plan_drive`.
        condition: Light and weather, one of `DRIVE_CONDITIONS`.
        frames: As of `plan_drive`.
        frames_per_s: As of `plan_drive`.
        number: As of `plan_drive`.
        size: Width and height of the pictures in pixels.

    Raises:
        CityError: as of `plan_drive`, or an unknown condition.
    """
    if condition not in DRIVE_CONDITIONS:
        raise CityError(f"condition {condition!r}: give one of {', '.join(DRIVE_CONDITIONS)}")
    city, planned = plan_drive(
        seed=seed,
        database_images=database_images,
        hard=hard,
        spacing_m=spacing_m,
        frames=frames,
        frames_per_s=frames_per_s,
        number=number,
    )
    drive = Drive(Path(out), planned)
    drive.frames_folder.mkdir(parents=True, exist_ok=True)
    moment = 1_000_000 + number  # the cars that were parked when the database was taken have gone
    for frame in planned:
        take_picture(drive.frames_folder / frame.name, city, frame.pose, condition, moment, size)
    _write_csv(drive.odometry, [_odometry(frame) for frame in planned])
    _write_csv(drive.folder / "truth.csv", [_truth(frame, condition) for frame in planned])
    return drive


def _odometry(frame: Frame) -> dict[str, object]:
    values = {"time_s": frame.motion.time_s, "distance_m": frame.distance_m, "turn_deg": frame.turn_deg}
    return {"frame": frame.name, **values}


def _truth(frame: Frame, condition: str) -> dict[str, object]:
    """Return where a frame was taken, in columns that `placeray index` reads."""
    east, north = ORIGIN_E + frame.pose.x_m, ORIGIN_N + frame.pose.y_m
    lat, lon = utm.to_latlon(east, north, ZONE, ZONE_LETTER)
    return {
        "path": f"frames/{frame.name}",
        "lat": f"{lat:.7f}",
        "lon": f"{lon:.7f}",
        "utm_e": f"{east:.2f}",
        "utm_n": f"{north:.2f}",
        "utm_zone": f"{ZONE}{ZONE_LETTER}",
        "heading_deg": frame.pose.heading_deg,
        "inside": int(frame.inside),
        "condition": condition,
    }


def _write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet_safe(value) for name, value in row.items()} for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8")
