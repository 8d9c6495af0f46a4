"""The command line: parse, call, print, exit code.

Results go to stdout (a table, or one JSON object with --json), progress and notes to stderr. Exit codes:
0 ok, 1 bug, 2 usage, 3 more images rejected than --max-rejected allows, 4 store locked, 5 card mismatch,
6 corrupt store, 7 no space.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.cli.output import print_answer, print_evaluation, print_json, print_pairs, print_training
from pipelines.cli.parser import build_parser
from storage.errors import CorruptStore, PlacerayError

if TYPE_CHECKING:
    from models.runtime.execution import Execution

__all__ = ["main"]

EXIT_OK, EXIT_REJECTED = 0, 3  # the other codes are those of the errors


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    args = build_parser().parse_args(argv)
    # A terminated job must leave its `with` blocks: that releases the lease.
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        code = VERBS[args.verb](args)
    except PlacerayError as error:
        print(f"placeray {args.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"placeray {args.verb}: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return code


class UsageError(PlacerayError):
    """Arguments that parse but do not fit together."""

    reason = "usage"


def _on_sigterm(signum: int, frame: object) -> NoReturn:
    sys.exit(128 + signum)


def _index(args: argparse.Namespace) -> int:
    from pipelines.indexing.job import index

    report = index(
        args.source,
        args.store,
        model=args.model,
        image_size=args.image_size,
        features=args.features,
        root=args.root,
        id_prefix=args.id_prefix,
        batch_size=args.batch_size,
        extractors=args.extractors,
        gpus_per_extractor=args.gpus_per_extractor,
        commit_every=args.commit_every,
        rejected_file=args.rejected,
        trace=args.trace,
        scaled_decode=args.scaled_decode,
        execution=_execution(args),
        quiet=args.quiet,
    )
    if args.json:
        print_json(dataclasses.asdict(report))
    else:
        print(
            f"{report.input} images: {report.accepted} accepted ({report.unchanged} unchanged), "
            f"{report.rejected} rejected, {report.seconds:.1f} s, {report.images_per_s:.1f} images/s, "
            f"store version {report.store_version}"
        )
        for reason, count in sorted(report.rejected_by_reason.items()):
            print(f"  rejected {count}: {reason}")
        if report.rejected_file:
            print(f"  listed in {report.rejected_file}")
    return _code_for_rejected(report.rejected, report.input, args.max_rejected)


def _query(args: argparse.Namespace) -> int:
    from pipelines.query import ask_service, ask_store, query

    matching = _matching(args)
    if matching and args.no_rerank:
        raise UsageError("--no-rerank leaves nothing to match: drop it, or the flags of matching")
    if args.url is None:
        ask = ask_store(args.store, model=args.model, execution=_execution(args), **matching)
    elif args.model is not None or {"precision", "compile"} & vars(args).keys():
        raise UsageError(
            "--model, --precision and --compile go with --store: a service has those it was started with"
        )
    elif matching:
        raise UsageError("flags of matching go with --store: a service has those it was started with")
    else:
        ask = ask_service(args.url, token=os.environ.get("PLACERAY_TOKEN"))
    answers, rejected = query(
        args.image, ask, top_k=args.top_k, candidates=args.candidates, rerank=not args.no_rerank
    )
    if args.json:
        print_json({"queries": answers})
    else:
        for answer in answers:
            print_answer(answer)
    return _code_for_rejected(rejected, len(answers), args.max_rejected)


def _execution(args: argparse.Namespace) -> Execution:
    from models.runtime.execution import execution_of

    return execution_of(vars(args))


def _matching(args: argparse.Namespace) -> dict[str, Any]:
    """Return the option `matching` where one of its flags is given."""
    from serving.matching_options import OPTIONS, matching_of

    given = {name: value for name, value in vars(args).items() if name in OPTIONS}
    return {"matching": matching_of(given)} if given else {}


def _serve(args: argparse.Namespace) -> int:
    from pipelines.serve import serve_store, settings_of
    from storage.store import Store

    flags = vars(args)
    log_file = flags.get("log_file") or _new_log_file()
    flags["log_file"] = "" if log_file == "-" else os.path.abspath(log_file)

    def ready(url: str) -> None:
        if args.json:
            print_json({"url": url, "log_file": flags["log_file"] or None})
        else:
            rows = Store.open(args.store).count
            print(f"{rows} images at {url}  (Ctrl-C ends the service)")
            if flags["log_file"]:
                print(f"logs: {flags['log_file']}")
        sys.stdout.flush()

    serve_store(settings_of(flags), host=args.host, port=args.port, ready=ready)
    return EXIT_OK


def _new_log_file() -> str:
    handle, path = tempfile.mkstemp(prefix="placeray-serve-", suffix=".log")
    os.close(handle)
    return path


def _evaluate(args: argparse.Namespace) -> int:
    from pipelines.evaluation.job import evaluate
    from pipelines.progress import ProgressBar

    with ProgressBar("evaluate", quiet=args.quiet) as bar:
        summary = evaluate(
            args.dataset,
            store_uri=args.store,
            model=args.model,
            image_size=args.image_size,
            split=args.split,
            candidates=args.candidates,
            threshold_m=args.threshold_m,
            report=args.report,
            execution=_execution(args),
            progress=bar.update,
            **_matching(args),
        )
    if args.json:
        print_json(summary)
    else:
        print_evaluation(summary)
        if args.report:
            print(f"report: {args.report}/index.html")
    return EXIT_OK


def _finetune(args: argparse.Namespace) -> int:
    from pipelines.training.job import finetune
    from pipelines.training.settings import settings_of

    report = finetune(
        args.dataset,
        args.out,
        settings=settings_of(vars(args)),
        split=args.split,
        val=args.val,
        val_split=args.val_split,
        workers=args.workers,
        gpus_per_worker=args.gpus_per_worker,
        run=args.run,
        storage=args.storage,
        max_rejected=args.max_rejected,
        max_failures=args.max_failures,
        choose_floor=not args.keep_floor,
        quiet=args.quiet,
    )
    print_json(report) if args.json else print_training(report)
    return EXIT_OK


def _demo(args: argparse.Namespace) -> int:
    from pipelines.demo.job import run_demo

    summary = run_demo(
        args.out, seed=args.seed, database_images=args.database, query_images=args.queries, quiet=args.quiet
    )
    if args.json:
        print_json(summary)
    else:
        print("\nfirst query, as `placeray query` answers it:")
        print_answer(summary["first_query"])
        print_evaluation(summary["evaluation"])
        print(f"report: {summary['report']}")
        print(f"try it: {sys.argv[0]} query {summary['first_query']['image']} --store {summary['store']}")
    return EXIT_OK


def _embed(args: argparse.Namespace) -> int:
    from pipelines.embed import embed

    embedded, rejected = embed(
        args.image, args.out, model=args.model, image_size=args.image_size, execution=_execution(args)
    )
    if args.json:
        print_json({"out": args.out if embedded else None, "images": embedded, "rejected": rejected})
    else:
        print(f"{embedded} images embedded" + (f" into {args.out}" if embedded else "; nothing written"))
        for row in rejected:
            print(f"  rejected {row['image']}: {row['reason']} ({row['message']})")
    return _code_for_rejected(len(rejected), len(args.image), args.max_rejected)


def _import_weights(args: argparse.Namespace) -> int:
    from models.weights import import_checkpoint

    card = import_checkpoint(args.checkpoint, args.out, num_heads=args.heads)
    if args.json:
        print_json({"out": args.out, "card": dataclasses.asdict(card)})
    else:
        print(
            f"{args.out}: {card.model}, descriptor {card.descriptor_dim}, weights {card.weights_sha256[:12]}"
        )
    return EXIT_OK


def _info(args: argparse.Namespace) -> int:
    from storage.store import Store

    info = Store.open(args.store).info()
    if args.json:
        print_json(info)
    else:
        print_pairs(info)
    return EXIT_OK


def _verify(args: argparse.Namespace) -> int:
    from storage.care.repair import repair_store
    from storage.care.verify import verify_store

    result: dict[str, Any] = {}
    if args.repair:
        result["repair"] = dataclasses.asdict(repair_store(args.store))
    report = verify_store(args.store)
    result |= {"ok": report.ok, **dataclasses.asdict(report)}
    print_json(result) if args.json else print_pairs(result)
    return EXIT_OK if report.ok else CorruptStore.exit_code


def _compact(args: argparse.Namespace) -> int:
    from storage.store import Store

    store = Store.open(args.store)
    with store.lease():
        report = dataclasses.asdict(store.compact())
    print_json(report) if args.json else print_pairs(report)
    return EXIT_OK


def _delete(args: argparse.Namespace) -> int:
    from storage.store import Store

    store = Store.open(args.store)
    with store.lease():
        deleted = store.delete(args.image_id)
    result = {"asked": len(args.image_id), "deleted": deleted, "store_version": store.version}
    print_json(result) if args.json else print_pairs(result)
    return EXIT_OK


def _code_for_rejected(rejected: int, total: int, max_rejected: float) -> int:
    return EXIT_REJECTED if total and rejected / total > max_rejected else EXIT_OK


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "demo": _demo,
    "index": _index,
    "query": _query,
    "serve": _serve,
    "evaluate": _evaluate,
    "finetune": _finetune,
    "embed": _embed,
    "import-weights": _import_weights,
    "info": _info,
    "verify": _verify,
    "compact": _compact,
    "delete": _delete,
}
