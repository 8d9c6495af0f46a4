"""The verbs that use a model alone: embed, import-weights."""

from __future__ import annotations

import argparse
import dataclasses

from pipelines.cli.options import EXIT_OK, UsageError, execution_from, exit_code_for, photos_from
from pipelines.cli.output import print_json, print_line

__all__ = ["run_embed", "run_import_weights", "run_models"]


def run_embed(args: argparse.Namespace) -> int:
    """Write descriptors and features to a file."""
    from pipelines.embed import embed

    if args.model is None and args.store is None:
        raise UsageError("embed needs a model: give --model, or --store for the model of a store")
    embedded, rejected = embed(
        args.image,
        args.out,
        model=args.model,
        store_uri=args.store,
        image_size=args.image_size,
        aggregation=args.aggregation,
        execution=execution_from(args),
        **photos_from(args),
    )
    if args.json:
        print_json({"out": args.out if embedded else None, "images": embedded, "rejected": rejected})
    else:
        print_line(f"{embedded} images embedded" + (f" into {args.out}" if embedded else "; nothing written"))
        for row in rejected:
            print_line(f"  rejected {row['image']}: {row['reason']} ({row['message']})")
    return exit_code_for(len(rejected), len(args.image), args.max_rejected)


def run_import_weights(args: argparse.Namespace) -> int:
    """Convert a published checkpoint."""
    from models.checkpoints.importing import import_checkpoint

    card = import_checkpoint(args.checkpoint, args.out, num_heads=args.heads, whole=args.whole)
    if args.json:
        print_json({"out": args.out, "card": dataclasses.asdict(card)})
    else:
        bits = f", code of {card.code_bits} bits" if card.code_bits else ""
        print_line(
            f"{args.out}: {card.model}, descriptor {card.descriptor_dim}{bits}, "
            f"weights {card.weights_sha256[:12]}"
        )
    return EXIT_OK


def run_models(args: argparse.Namespace) -> int:
    """List the models."""
    from pipelines.model_list import list_models

    rows = list_models(args.model, bench=args.bench, execution=execution_from(args))
    if args.json:
        print_json({"models": rows})
        return EXIT_OK
    for row in rows:
        print_line(f"{row['name']}")
        bits = f", code of {row['code_bits']} bits" if row["code_bits"] else ""
        features = {None: "unknown", 0: "none"}.get(
            row["feature_bytes"], f"{row['feature_bytes'] or 0:,} bytes"
        )
        print_line(
            f"  input {row['input']}; descriptor {row['descriptor_dim']}{bits}, {row['descriptor_bytes']:,} "
            f"bytes; local features {features}; licence {row['licence']}"
        )
        print_line(f"  needs {row['needs']}")
        if row["published"]:
            print_line(f"  published: {row['published']}")
        if "ms_per_photo" in row:
            print_line(f"  {row['ms_per_photo']} ms per photo ({row['device']}, {row['precision']})")
        elif "not_measured" in row:
            print_line(f"  not measured: {row['not_measured']}")
    return EXIT_OK
