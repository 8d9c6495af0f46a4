"""The verbs that answer queries: query, serve."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from typing import Any

from pipelines.cli.options import (
    EXIT_OK,
    UsageError,
    execution_from,
    exit_code_for,
    matching_from,
    photos_from,
    require_aggregation,
    rerank_from,
)
from pipelines.cli.output import print_answer, print_json
from pipelines.cli.place_words import geojson_of
from pipelines.cli.prior_flags import priors_from

__all__ = ["run_query", "run_serve"]


def run_query(args: argparse.Namespace) -> int:
    """Rank the places of photos."""
    from pipelines.query import ask_service, ask_store, query

    rerank = rerank_from(args)
    matching = matching_from(args, reranked=bool(rerank))
    if args.json and args.format not in (None, "json"):
        raise UsageError(f"--json and --format {args.format} exclude each other: give one of them")
    priors = priors_from(args)
    if args.url is None:
        require_aggregation(args)
        ask = ask_store(
            args.store, model=args.model, execution=execution_from(args), **photos_from(args), **matching
        )
    elif args.aggregation is not None:
        raise UsageError("--aggregation goes with --store: a service has that of its store")
    elif args.model is not None or {"precision", "compile"} & vars(args).keys():
        raise UsageError("--model, --precision and --compile go with --store: a service has its own settings")
    elif matching or args.max_megapixels is not None:
        raise UsageError(
            "--max-megapixels and options of matching go with --store: a service has its own settings"
        )
    else:
        ask = ask_service(args.url, token=os.environ.get("PLACERAY_TOKEN"))
    answers, rejected = query(
        args.image,
        ask,
        top_k=args.top_k,
        candidates=args.candidates or None,
        rerank=rerank,
        max_wrong=args.max_wrong,
        **priors,
    )
    if args.format == "geojson":
        print_json(geojson_of(answers))
    elif args.json or args.format == "json":
        print_json({"queries": answers})
    else:
        for answer in answers:
            print_answer(answer)
    return exit_code_for(rejected, len(answers), args.max_rejected)


def run_serve(args: argparse.Namespace) -> int:
    """Serve a store over HTTP."""
    from pipelines.serve import serve_store, settings_of
    from storage.store import Store

    require_aggregation(args)
    flags = _with_settings_file(vars(args))
    given = flags.get("log_file")
    log_file = given or _new_log_file()
    flags["log_file"] = "" if log_file == "-" else os.path.abspath(log_file)

    def ready(url: str) -> None:
        if args.json:
            print_json({"url": url, "log_file": flags["log_file"] or None})
        else:
            rows = Store.open(args.store).count
            print(f"{rows} images at {url}  (stop with Ctrl-C)")
            if flags["log_file"]:
                print(f"logs: {flags['log_file']}")
        sys.stdout.flush()

    try:
        serve_store(settings_of(flags), host=args.host, port=args.port, ready=ready)
    finally:
        if not given:
            _remove_if_empty(log_file)
    return EXIT_OK


def _with_settings_file(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags with the settings of `--settings` below them."""
    path = flags.get("settings")
    if path is None:
        return flags
    from pipelines.tuning.settings_file import read_settings_file

    given = read_settings_file(path)
    return {**given, **flags, "log_file": flags.get("log_file") or given.get("log_file")}


def _new_log_file() -> str:
    handle, path = tempfile.mkstemp(prefix="placeray-serve-", suffix=".log")
    os.close(handle)
    return path


def _remove_if_empty(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.getsize(path) == 0:
            os.remove(path)
