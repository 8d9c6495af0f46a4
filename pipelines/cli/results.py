"""The verbs that work on results: atlas, compare, export, tune."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipelines.cli.options import EXIT_OK, UsageError, execution_from
from pipelines.cli.output import print_json, print_line, print_pairs
from storage.text import plain

__all__ = ["run_atlas", "run_compare", "run_export", "run_tune"]


def run_compare(args: argparse.Namespace) -> int:
    """Compare two evaluations of the same queries."""
    from pipelines.evaluation.comparison import compare
    from pipelines.evaluation.comparison_page import comparison_lines, write_comparison

    comparison = compare(args.first, args.second)
    if args.report:
        write_comparison(Path(args.report), comparison)
    if args.json:
        print_json(dict(comparison))
    else:
        for line in comparison_lines(comparison):
            print_line(line)
        if args.report:
            print_line(f"report: {args.report}/comparison.html")
    return EXIT_OK


def run_atlas(args: argparse.Namespace) -> int:
    """Find holes, near-duplicates and places that look alike."""
    from pipelines.atlas.describe import atlas_lines
    from pipelines.atlas.job import make_atlas

    names = ("listing", "root", "radius_m", "near_m", "far_m", "duplicate_similarity")
    result = make_atlas(args.store, args.out, **{name: getattr(args, name) for name in names})
    if args.json:
        print_json(result)
    else:
        for line in atlas_lines(result):
            print_line(line)
    return EXIT_OK


def run_tune(args: argparse.Namespace) -> int:
    """Choose the settings of a service."""
    from pipelines.tuning.describe import tuning_lines
    from pipelines.tuning.job import tune

    def progress(sentence: str) -> None:
        if not args.quiet:
            print(plain(f"tune: {sentence}"), file=sys.stderr)

    names = ("target_recall", "target_ms", "split", "protocol", "photos", "model", "out")
    options = {name: getattr(args, name) for name in names}
    result = tune(args.dataset, args.store, execution=execution_from(args), progress=progress, **options)
    if args.json:
        print_json(result)
    else:
        for line in tuning_lines(result):
            print_line(line)
    return EXIT_OK


def run_export(args: argparse.Namespace) -> int:
    """Write descriptors or a model for other programs."""
    if args.store is None and args.model is None:
        raise UsageError("export needs --store for descriptors, or --model for ONNX: give one of them")
    if args.store is not None:
        from models.store_fit import require_fit
        from storage.store import Store

        given = {"model": args.model, "image_size": args.image_size}
        require_fit(args.store, Store.open(args.store).card, given)
    if args.out.lower().endswith(".onnx"):
        from pipelines.export.network import export_network

        model, image_size = _exported_model(args)
        result = export_network(model, args.out, image_size=image_size)
    elif args.store is not None:
        from pipelines.export.descriptors import export_descriptors

        result = export_descriptors(args.store, args.out)
    else:
        raise UsageError(f"--out {args.out} does not end with .onnx, as the file of a model does: rename it")
    if args.json:
        print_json(result)
    else:
        size = {"image_size": "{}x{}".format(*result["image_size"])} if "image_size" in result else {}
        print_pairs({name: value for name, value in (result | size).items() if value is not None})
    return EXIT_OK


def _exported_model(args: argparse.Namespace) -> tuple[str, tuple[int, int] | None]:
    """Return the model to export with its input size: those of a store where one is given."""
    if args.store is None:
        return args.model, args.image_size
    from models.store_fit import named_model
    from storage.store import Store

    card = Store.open(args.store).card
    return args.model or named_model(card), (card.preprocessing.height, card.preprocessing.width)
