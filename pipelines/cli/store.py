"""The verbs that look after a store: info, verify, compact, delete, relearn, upgrade, build-index, copy."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from pipelines.cli.options import EXIT_OK
from pipelines.cli.output import print_json, print_pairs
from storage.errors import CorruptStore

__all__ = [
    "run_build_index",
    "run_compact",
    "run_copy",
    "run_delete",
    "run_info",
    "run_relearn",
    "run_upgrade",
    "run_verify",
]


def run_info(args: argparse.Namespace) -> int:
    """Describe a store."""
    from pipelines.relearning import aggregation_info
    from storage.store import Store

    store = Store.open(args.store)
    info = store.info() | aggregation_info(store)
    _print_result(args, info)
    return EXIT_OK


def run_verify(args: argparse.Namespace) -> int:
    """Check a store, after repairing it if requested."""
    from storage.care.repair import repair_store
    from storage.care.verify import verify_store

    result: dict[str, Any] = {}
    if args.repair:
        result["repair"] = dataclasses.asdict(repair_store(args.store))
    report = verify_store(args.store)
    result |= {"ok": report.ok, **dataclasses.asdict(report)}
    _print_result(args, result)
    return EXIT_OK if report.ok else CorruptStore.exit_code


def run_compact(args: argparse.Namespace) -> int:
    """Merge small files of a store."""
    from storage.store import Store

    store = Store.open(args.store)
    if args.dry_run:
        _print_result(args, dataclasses.asdict(store.preview_compaction(min_age_s=args.min_age)))
        return EXIT_OK
    with store.lease():
        kept_s = args.keep_versions
        report = dataclasses.asdict(store.compact(keep_versions_s=kept_s, min_age_s=args.min_age))
    _print_result(args, report)
    return EXIT_OK


def run_delete(args: argparse.Namespace) -> int:
    """Delete images from a store."""
    from storage.store import Store

    store = Store.open(args.store)
    with store.lease():
        if args.forget:
            _print_result(args, dataclasses.asdict(store.forget(args.image_id)) | _forget_here(args.image_id))
            return EXIT_OK
        deleted = store.delete(args.image_id)
    result = {"asked": len(args.image_id), "deleted": deleted, "store_version": store.version}
    _print_result(args, result)
    return EXIT_OK


def _forget_here(image_ids: list[str]) -> dict[str, int]:
    """Remove what evaluations by this user on this machine remember of photos."""
    from pipelines.evaluation.answer_cache import forget_answers
    from pipelines.evaluation.engines import cache_folder

    return {"answers_removed": forget_answers(cache_folder(), image_ids)}


def run_relearn(args: argparse.Namespace) -> int:
    """Learn a store's descriptors again."""
    from pipelines.relearn import relearn

    result = relearn(
        args.store,
        use=args.use,
        dataset=args.dataset,
        split=args.split,
        model=args.model,
        threshold_m=args.threshold_m,
    )
    _print_result(args, result)
    return EXIT_OK


def run_upgrade(args: argparse.Namespace) -> int:
    """Bring a store to the newest format."""
    from storage.care.upgrade import upgrade_store

    _print_result(args, dataclasses.asdict(upgrade_store(args.store)))
    return EXIT_OK


def run_build_index(args: argparse.Namespace) -> int:
    """Build LanceDB's index, alone or with many workers."""
    if args.workers is not None:
        from pipelines.vector_index.job import build_index

        _print_result(args, build_index(args.store, workers=args.workers, quiet=args.quiet))
        return EXIT_OK
    from storage.store import Store

    store = Store.open(args.store)
    version = store.build_index()
    _print_result(args, {"store_version": version, "indexed": store.has_index})
    return EXIT_OK


def run_copy(args: argparse.Namespace) -> int:
    """Copy a store, then verify the copy."""
    from pipelines.progress import ProgressBar
    from storage.care.copying import copy_store
    from storage.care.verify import verify_store

    with ProgressBar("copy", quiet=args.quiet) as bar:
        report = copy_store(
            args.from_store, args.to_store, progress=lambda done, total: bar.update(done, None, total)
        )
    verified = verify_store(args.to_store)
    problems = dataclasses.asdict(verified) if not verified.ok else {}
    _print_result(args, {**dataclasses.asdict(report), "verified": verified.ok, **problems})
    return EXIT_OK if verified.ok else CorruptStore.exit_code


def _print_result(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print a result as JSON or as one line per value."""
    if args.json:
        print_json(result)
    else:
        print_pairs(result)
