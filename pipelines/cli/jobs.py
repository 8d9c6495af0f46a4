"""The verbs that run a whole job: demo, index, evaluate, finetune."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys

from pipelines.cli.options import (
    EXIT_OK,
    UsageError,
    execution_from,
    exit_code_for,
    matching_from,
    photos_from,
    rerank_from,
)
from pipelines.cli.output import (
    print_answer,
    print_calibration,
    print_evaluation,
    print_json,
    print_line,
    print_training,
    print_truth,
)
from pipelines.cli.source_options import source_options_of
from storage.text import plain

__all__ = ["run_calibrate", "run_demo", "run_evaluate", "run_finetune", "run_index"]


def run_demo(args: argparse.Namespace) -> int:
    """Run the whole pipeline on a generated city."""
    from pipelines.demo import job

    summary = job.run_demo(
        args.out,
        seed=args.seed,
        database_images=args.database,
        query_images=args.queries,
        hard=args.hard,
        drive=args.drive,
        quiet=args.quiet,
    )
    if args.json:
        print_json(summary)
    else:
        print("\nfirst query, as `placeray query` shows it:")
        print_answer(summary["first_query"])
        print_truth(summary["first_query"]["truth"])
        print_evaluation(summary["evaluation"])
        print_line(f"report: {summary['report']}")
        print_line(
            f"try it: {sys.argv[0]} query {summary['first_query']['image']} --store {summary['store']}"
        )
        if "drive" in summary:
            drive = summary["drive"]
            print_line(
                f"follow it: {sys.argv[0]} track {drive['frames']} --store {summary['store']} "
                f"--odometry {drive['odometry']}"
            )
    return EXIT_OK


def run_index(args: argparse.Namespace) -> int:
    """Index images into a store."""
    source_options = source_options_of(args)  # before anything is loaded
    from pipelines.cli.index_words import summary_lines
    from pipelines.indexing.job import index
    from pipelines.placement import Placement

    report = index(
        args.source,
        args.store,
        model=args.model,
        image_size=args.image_size,
        features=args.features,
        aggregation=args.aggregation,
        root=args.root,
        id_prefix=args.id_prefix,
        tags=tuple(args.tag),
        batch_size=args.batch_size,
        extractors=args.extractors,
        gpus_per_extractor=args.gpus_per_extractor,
        cpus=args.cpus,
        extractor_placement=Placement(args.extractor_resources, args.extractor_labels),
        decoder_placement=Placement(args.decoder_resources, args.decoder_labels),
        commit_every=args.commit_every,
        commit_seconds=args.commit_seconds,
        stall_timeout_s=args.stall_timeout,
        rejected_file=args.rejected,
        trace=args.trace,
        scaled_decode=args.scaled_decode,
        follow_links=args.follow_links,
        moved_from=args.moved_from,
        prune=args.prune,
        prune_share=args.prune_share,
        source_options=source_options,
        photo_column=args.photo_column,
        **photos_from(args),
        execution=execution_from(args),
        quiet=args.quiet,
    )
    if args.json:
        print_json(dataclasses.asdict(report))
    else:
        for line in summary_lines(report, args.store):
            print_line(line)
    return exit_code_for(report.rejected, report.input, args.max_rejected)


def run_evaluate(args: argparse.Namespace) -> int:
    """Measure recall on a data set."""
    from pipelines.evaluation.job import evaluate
    from pipelines.progress import ProgressBar

    rerank = rerank_from(args)
    matching = matching_from(args, reranked=bool(rerank))
    if args.url is not None and args.store is None:
        raise UsageError("--url needs --store, the store that the service serves: name its folder too")
    if args.url is not None and matching:
        raise UsageError("options of matching are the service's own: leave them out with --url")
    if args.descriptors and not args.predictions:
        raise UsageError("--descriptors goes with --predictions: name the folder to write them to")

    def say(sentence: str) -> None:
        if not args.quiet:
            print(plain(f"evaluate: {sentence}"), file=sys.stderr)

    with ProgressBar("evaluate", quiet=args.quiet) as bar:
        result = evaluate(
            args.dataset,
            store_uri=args.store,
            database=args.database,
            queries=args.queries,
            root=args.root,
            model=args.model,
            image_size=args.image_size,
            features=args.features,
            aggregation=args.aggregation,
            split=args.split,
            candidates=args.candidates,
            rerank=rerank,
            threshold_m=args.threshold_m,
            protocol=args.protocol,
            keys=args.keys,
            url=args.url,
            token=os.environ.get("PLACERAY_TOKEN"),
            remember=not args.fresh,
            report=args.report,
            predictions=args.predictions,
            descriptors=args.descriptors,
            follow_links=args.follow_links,
            **photos_from(args),
            execution=execution_from(args),
            progress=bar.update,
            say=say,
            **matching,
        )
    if args.json:
        print_json(dict(result))
    else:
        print_evaluation(result)
        if args.report:
            print_line(f"report: {args.report}/index.html")
        if args.predictions:
            print_line(f"predictions: {args.predictions}/predictions.csv, queries.csv, preds/ and others")
    return EXIT_OK


def run_calibrate(args: argparse.Namespace) -> int:
    """Calibrate a store on labelled photos."""
    from pipelines.calibration.job import calibrate
    from pipelines.progress import ProgressBar

    rerank = args.candidates != 0 and not args.no_rerank
    matching = matching_from(args, reranked=rerank)
    with ProgressBar("calibrate", quiet=args.quiet) as bar:
        summary = calibrate(
            args.dataset,
            args.store,
            max_wrong=args.max_wrong,
            elsewhere=args.elsewhere,
            split=args.split,
            model=args.model,
            candidates=args.candidates or None,
            rerank=rerank,
            threshold_m=args.threshold_m,
            method=args.method,
            execution=execution_from(args),
            progress=bar.update,
            **matching,
        )
    if args.json:
        print_json(summary)
    else:
        print_calibration(summary)
    return EXIT_OK


def run_finetune(args: argparse.Namespace) -> int:
    """Train adapters."""
    from storage.objects.address import require_no_secret

    if args.storage is not None:
        require_no_secret(args.storage)
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
        follow_links=args.follow_links,
        quiet=args.quiet,
    )
    if args.json:
        print_json(report)
    else:
        print_training(report)
    return EXIT_OK
