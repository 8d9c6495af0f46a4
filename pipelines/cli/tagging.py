"""The verb tag: its arguments, and what it does."""

from __future__ import annotations

import argparse
import dataclasses

from pipelines.cli.flags import add_flag
from pipelines.cli.options import EXIT_OK
from pipelines.cli.output import print_json, print_line
from pipelines.cli.prior_flags import add_filter_flags, filter_from

__all__ = ["add_tag_arguments", "run_tag"]

_SHOWN = 50


def add_tag_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `pipelines.tagging.job.tag_store`."""
    for name, what in (("add", "tag to add"), ("remove", "tag to remove")):
        help = f"{what}; may be given several times"
        parser.add_argument(f"--{name}", action="append", default=[], metavar="TAG", help=help)
    chosen = parser.add_argument_group("which images; of several, those that all of them choose")
    help = "image by its id; may be given several times"
    chosen.add_argument("--id", dest="image_id", action="append", default=[], metavar="IMAGE_ID", help=help)
    add_flag(chosen, "source", str, "images that were indexed from this folder or listing", metavar="SOURCE")
    add_filter_flags(chosen)
    add_flag(chosen, "all", bool, "every image of the store")
    add_flag(parser, "dry_run", bool, "only show what would change")


def run_tag(args: argparse.Namespace) -> int:
    """Change the tags of stored images; without --add and --remove count them."""
    within = filter_from(args)
    from pipelines.tagging.change import TagChange
    from pipelines.tagging.job import tag_store

    report = tag_store(
        args.store,
        TagChange(tuple(args.add), tuple(args.remove)),
        image_ids=args.image_id,
        source=args.source,
        within=within,
        everything=args.all,
        dry_run=args.dry_run,
    )
    if args.json:
        print_json(dataclasses.asdict(report))
        return EXIT_OK
    would = "would change" if args.dry_run else "changed"
    print(f"{report.selected} images chosen, {report.changed} {would}, store version {report.store_version}")
    for tag, count in list(report.tags.items())[:_SHOWN]:
        print_line(f"  {count:>8}  {tag}")
    if len(report.tags) > _SHOWN:
        print(f"  and {len(report.tags) - _SHOWN} more: --json lists all")
    return EXIT_OK
