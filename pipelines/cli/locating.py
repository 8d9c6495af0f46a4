"""The verb locate: its arguments, and what it does."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from typing import Any

from pipelines.cli.arguments.answers import add_candidates, add_matching, add_rerank
from pipelines.cli.arguments.model import add_aggregation, add_execution, add_model
from pipelines.cli.arguments.photos import add_follow_links, add_photos
from pipelines.cli.arguments.values import STORE_HELP, add_quiet
from pipelines.cli.flags import add_flag
from pipelines.cli.options import (
    EXIT_OK,
    UsageError,
    execution_from,
    matching_from,
    photos_from,
    require_aggregation,
    rerank_from,
)
from pipelines.cli.output import print_json, print_line
from pipelines.cli.prior_flags import add_filter_flags, add_prior_flag, priors_from
from pipelines.cli.storage_options import add_storage_options

__all__ = ["add_locate_arguments", "run_locate"]

_SHOWN = 20


def add_locate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `pipelines.locate`."""
    help = "folder or listing of photos; with --accepted: their folder, default: what the list names"
    parser.add_argument("source", nargs="?", metavar="FOLDER", help=help)
    find = parser.add_argument_group("locating")
    flag = partial(add_flag, find)
    flag("store", str, STORE_HELP, metavar="URI")
    add_storage_options(parser)
    flag(
        "out",
        str,
        "list of places: .csv, .geojson or .gpx; the review page lies beside it",
        default="places.csv",
        metavar="FILE",
    )
    add_model(find)
    add_aggregation(find)
    add_candidates(find)
    add_rerank(find)
    help = "largest share of wrong answers among those called known; the others are listed as unknown"
    flag("max_wrong", float, help, metavar="SHARE", gt=0, lt=1)
    flag("all", bool, "locate photos that have a position too")
    flag("no_review", bool, "write no review page")
    add_follow_links(find)
    add_photos(find)
    add_execution(find)
    add_matching(find)
    known = parser.add_argument_group("what is already known")
    add_filter_flags(known)
    add_prior_flag(known)
    write = parser.add_argument_group("writing positions")
    help = "list that a review page downloaded; may be given several times"
    write.add_argument("--accepted", action="append", default=[], metavar="CSV", help=help)
    flag = partial(add_flag, write)
    flag("write_gps", bool, "write the positions of accepted photos: JPEG into EXIF, others as XMP sidecars")
    flag("in_place", bool, "into the photos themselves instead of copies")
    flag("copies", str, "folder of the copies; default: FOLDER-located", metavar="DIR")
    flag("undo", str, "undo what was written: the list placeray-undo.jsonl in its folder", metavar="LIST")
    add_quiet(parser)


def run_locate(args: argparse.Namespace) -> int:
    """Locate photos, write accepted positions, or undo that."""
    if args.undo is not None:
        if args.store or args.accepted or args.source:
            raise UsageError("--undo goes alone: leave the other arguments out")
        return _undo(args)
    if args.accepted:
        return _write(args)
    if args.write_gps or args.in_place or args.copies:
        raise UsageError("--write-gps, --in-place and --copies go with --accepted reviewed.csv: add it")
    if args.store is None or args.source is None:
        raise UsageError("locating needs a FOLDER of photos and --store: give both")
    return _locate(args)


def _locate(args: argparse.Namespace) -> int:
    rerank, priors = rerank_from(args), priors_from(args)
    matching = matching_from(args, reranked=bool(rerank))
    require_aggregation(args)
    from pipelines.locate.job import locate

    report = locate(
        args.source,
        args.store,
        args.out,
        model=args.model,
        execution=execution_from(args),
        everything=args.all,
        review=not args.no_review,
        follow_links=args.follow_links,
        quiet=args.quiet,
        candidates=args.candidates or None,
        rerank=rerank,
        max_wrong=args.max_wrong,
        **photos_from(args),
        **matching,
        **priors,
    )
    if args.json:
        print_json(report.to_dict())
        return EXIT_OK
    print(
        f"{report.photos} photos: {report.located} located, {report.unknown} unknown, "
        f"{report.has_position} had a position, {report.rejected} rejected, {report.seconds:.1f} s"
    )
    for reason, count in sorted(report.rejected_by_reason.items()):
        print_line(f"  rejected {count}: {reason}")
    for reason, count in sorted(report.calibration_reasons.items()):
        print_line(f"  the calibration does not hold in full for {count}: {reason}")
    print_line(f"places: {report.out}")
    for page in report.review:
        print_line(f"review: {page}")
    return EXIT_OK


def _write(args: argparse.Namespace) -> int:
    if not args.write_gps:
        raise UsageError("--accepted writes into photos: confirm it by --write-gps")
    if args.in_place and args.copies:
        raise UsageError("--in-place and --copies exclude each other: give one of them")
    from pipelines.locate.reviewed import read_accepted
    from pipelines.locate.write_positions import write_positions

    accepted = [photo for path in args.accepted for photo in read_accepted(path)]
    report = write_positions(accepted, args.source, in_place=args.in_place, copies=args.copies)
    if args.json:
        print_json(dataclasses.asdict(report))
        return EXIT_OK
    print(
        f"{report.accepted} accepted photos: {report.exif} positions written into EXIF, "
        f"{report.sidecars} into sidecars, {len(report.skipped)} left alone"
    )
    _print_skipped(report.skipped)
    print_line(f"in {report.folder}")
    if report.undo_list is not None:
        print_line(f"undo it: placeray locate --undo {report.undo_list}")
    return EXIT_OK


def _undo(args: argparse.Namespace) -> int:
    from pipelines.locate.undo_list import undo

    undone = undo(args.undo)
    if args.json:
        print_json(dataclasses.asdict(undone))
        return EXIT_OK
    print(
        f"{undone.restored} photos are as they were, {undone.removed} new files removed, "
        f"{len(undone.skipped)} left alone"
    )
    _print_skipped(undone.skipped)
    return EXIT_OK


def _print_skipped(skipped: list[Any]) -> None:
    for name, reason in skipped[:_SHOWN]:
        print_line(f"  left alone: {name}: {reason}")
    if len(skipped) > _SHOWN:
        print(f"  and {len(skipped) - _SHOWN} more: --json lists all")
