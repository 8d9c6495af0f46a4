"""The verb that follows a drive: its flags, its run, and its table."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipelines.cli.flags import add_flag
from pipelines.cli.options import (
    UsageError,
    execution_from,
    exit_code_for,
    matching_from,
    photos_from,
    require_aggregation,
    rerank_from,
)
from pipelines.cli.output import print_json, print_line
from serving.tracks.defaults import DEFAULT_FPS, DEFAULT_LAG, MAX_LAG
from storage.durable import replace_file

__all__ = ["add_drive_arguments", "run_track"]

_FORMATS = ("json", "gpx", "geojson")


def add_drive_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `pipelines.tracks.job.follow_drive`."""
    help = "frames in their order, or one folder, whose images are taken by the numbers in their names"
    parser.add_argument("image", nargs="+", metavar="FRAMES", help=help)
    flag = partial(add_flag, parser)
    flag("fps", float, f"frames per second; default: {DEFAULT_FPS:g}", gt=0, le=1000)
    help = "metres per second of the vehicle, if it is about steady"
    flag("speed", float, help, metavar="M", gt=0, le=200)
    help = (
        "CSV with a row per frame: distance_m since the frame before, or speed_m_per_s and time_s; optional "
        "turn_deg or heading_deg, and frame, the name of its file"
    )
    flag("odometry", str, help, metavar="CSV")
    help = "further frames that a position may be corrected by; 0: none, as while driving"
    flag("lag", int, help, default=DEFAULT_LAG, ge=0, le=MAX_LAG)
    help = "what is printed; default: table, or json with --json; with --out the summary alone"
    flag("format", Literal["table", "json", "gpx", "geojson"], help)
    help = "write the track to this file, by its ending .json, .gpx or .geojson"
    flag("out", str, help, metavar="FILE")


def run_track(args: argparse.Namespace) -> int:
    """Follow a drive."""
    from pipelines.progress import ProgressBar
    from pipelines.tracks.job import follow_drive
    from serving.engine import QueryEngine

    if args.json and args.format not in (None, "json"):
        raise UsageError(f"--json and --format {args.format} exclude each other: give one of them")
    if args.out is not None and _kind_of(args.out) not in _FORMATS:
        raise UsageError(f"--out {args.out} ends with none of .json, .gpx, .geojson: rename it")
    rerank = rerank_from(args)
    matching = matching_from(args, reranked=bool(rerank))
    require_aggregation(args)
    engine = QueryEngine.open(
        args.store,
        model=args.model,
        execution=execution_from(args),
        **photos_from(args),
        **matching,
    )
    with ProgressBar("track", unit="frames", quiet=args.quiet) as bar:
        result = follow_drive(
            engine,
            args.image,
            fps=args.fps,
            speed_m_per_s=args.speed,
            odometry=args.odometry,
            lag=args.lag,
            candidates=args.candidates or None,
            rerank=rerank,
            progress=bar.update,
        )
    if args.out is not None:
        replace_file(Path(args.out).expanduser(), _text_of(result, _kind_of(args.out)).encode())
        if args.format is None:  # the frames are in the file
            result = {name: value for name, value in result.items() if name != "frames"} | {"out": args.out}
    _print(result, args.format or ("json" if args.json else "table"))
    summary = result["summary"]
    return exit_code_for(summary["rejected"], summary["frames"], args.max_rejected)


def _kind_of(path: str) -> str:
    return Path(path).suffix.lower().lstrip(".")


def _text_of(result: dict[str, Any], kind: str) -> str:
    from pipelines.tracks.files import geojson_of_track, gpx_of_track

    if kind == "gpx":
        return gpx_of_track(result["frames"])
    return json.dumps(geojson_of_track(result["frames"]) if kind == "geojson" else result) + "\n"


def _print(result: dict[str, Any], kind: str) -> None:
    if kind == "json":
        print_json(result)
    elif kind in _FORMATS:
        print(_text_of(result, kind), end="")
    else:
        _print_table(result)


def _print_table(result: dict[str, Any]) -> None:
    """Print a line per frame, unless these lie in a file, and what was found."""
    if "frames" in result:
        _print_frames(result["frames"])
    counts, times = result["summary"], result["ms_per_frame"]
    print_line(
        f"{counts['frames']} frames: {counts['known']} known, {counts['lost']} lost, {counts['unsure']} "
        f"unsure, {counts['rejected']} rejected; {times['answer']:.0f} ms per frame to answer, "
        f"{times['track']:.1f} to track"
    )
    if "out" in result:
        print_line(f"track: {result['out']}")


def _print_frames(frames: list[dict[str, Any]]) -> None:
    print(f"{'state':<7} {'probability':>11} {'radius':>7}  {'position':<28}  frame")
    for frame in frames:
        position, radius = frame["position"], frame["radius_m"]
        where = "-"
        if position is not None and position["lat"] is not None:
            where = f"{position['lat']:.6f}, {position['lon']:.6f}"
        elif position is not None:
            where = f"{position['utm_e']:.1f} E {position['utm_n']:.1f} N"
        shown = "-" if radius is None else f"{radius:.0f} m"
        rejected = f"  rejected: {frame['error']['reason']}" if "error" in frame else ""
        head = f"{frame['state']:<7} {frame['probability']:>11.2f} {shown:>7}  {where:<28}"
        print_line(f"{head}  {frame['image']}{rejected}")
