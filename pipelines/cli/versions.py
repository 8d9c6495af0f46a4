"""The verbs about versions of a store: history, tag-version, rollback."""

from __future__ import annotations

import argparse
import dataclasses

from pipelines.cli.options import EXIT_OK
from pipelines.cli.output import print_json, print_pairs
from storage.text import plain

__all__ = ["run_history", "run_rollback", "run_tag_version"]


def run_history(args: argparse.Namespace) -> int:
    """List the versions that can be gone back to."""
    from storage.store import Store

    versions = Store.open(args.store).versions()
    if args.json:
        print_json({"versions": [dataclasses.asdict(version) for version in versions]})
        return EXIT_OK
    heads = ("version", "time", "rows", "", "by", "change", "tags")
    lines = [heads]
    for each in versions:
        more = "" if not each.rows_changed else f"{each.rows_changed:+d}"
        named = ", ".join((*each.tags, *(("newest",) if each.newest else ())))
        lines.append((f"{each.version}", each.at, f"{each.rows}", more, each.by, each.change, named))
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    for line in lines:
        print(plain("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))).rstrip())
    return EXIT_OK


def run_tag_version(args: argparse.Namespace) -> int:
    """Give a version a name, or take one away."""
    from storage.store import Store

    store = Store.open(args.store)
    with store.lease():
        if args.remove:
            store.remove_tag(args.name)
            result: dict[str, object] = {"tag": args.name, "removed": True}
        else:
            result = {"tag": args.name, "store_version": store.tag_version(args.name, args.version)}
    _print(args, result)
    return EXIT_OK


def run_rollback(args: argparse.Namespace) -> int:
    """Go back to an old version, as a new one."""
    from storage.store import Store

    store = Store.open(args.store)
    with store.lease():
        before = store.version
        store.roll_back(args.to)
    result = {"rolled_back_from": before, "rolled_back_to": args.to}
    _print(args, result | {"store_version": store.version, "rows": store.count})
    return EXIT_OK


def _print(args: argparse.Namespace, result: dict[str, object]) -> None:
    if args.json:
        print_json(result)
    else:
        print_pairs(result)
