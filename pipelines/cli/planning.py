"""The verb plan: its arguments, and what it prints."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from pipelines.cli.flags import add_flag
from pipelines.cli.options import EXIT_OK, execution_from
from pipelines.cli.output import print_json, print_line

__all__ = ["add_trial_arguments", "run_plan"]

_PRICES = {
    "core_hour": "of a core for an hour, with its share of the memory",
    "gpu_hour": "of a GPU for an hour",
    "gb_month": "of a GB in the store for a month",
    "thousand_writes": "of 1,000 requests that write or list",
    "thousand_reads": "of 1,000 requests that read",
}
_MAX_IMAGES = 10**12
_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))


def add_trial_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `pipelines.plan.job`."""
    parser.add_argument("--images", required=True, type=_count, metavar="N", help="number of images to index")
    flag = partial(add_flag, parser)
    flag(
        "store",
        str,
        "the store: its card is used, and requests are counted in a bucket",
        metavar="URI",
    )
    flag("cores", float, "cores of all nodes; default: those of this machine", gt=0, le=1e7)
    flag("gpus", int, "GPUs of all nodes", default=0, ge=0, le=10**6)
    help = "images per second of one GPU; default: as the trial measures it where there is one"
    flag("gpu_images_per_s", float, help, gt=0, le=1e7)
    flag("trial", int, "images to measure; at most two minutes", default=200, ge=1, le=100_000)
    flag("photos", str, "folder, listing or bucket that they are taken from; default: drawn pictures")
    for name, help in _PRICES.items():
        flag(f"price_{name}", float, f"price {help}", ge=0, le=1e9)


def run_plan(args: argparse.Namespace) -> int:
    """Print what an index run takes."""
    from pipelines.plan.estimate import Prices
    from pipelines.plan.job import plan_index

    plan = plan_index(
        args.images,
        model=args.model,
        store_uri=args.store,
        image_size=args.image_size,
        features=args.features,
        aggregation=args.aggregation,
        cores=args.cores,
        gpus=args.gpus,
        gpu_images_per_s=args.gpu_images_per_s,
        trial=args.trial,
        photos=args.photos,
        scaled_decode=args.scaled_decode,
        prices=Prices(**{name: getattr(args, f"price_{name}") for name in _PRICES}),
        execution=execution_from(args),
        quiet=args.quiet,
    )
    if args.json:
        print_json(plan)
    else:
        _print(plan)
    return EXIT_OK


def _print(plan: dict[str, Any]) -> None:
    work, made = plan["workload"], plan["estimate"]
    on = f"{work['cores']:g} cores" + (f" and {work['gpus']} GPUs" if work["gpus"] else "")
    print_line(
        f"{work['images']:,} images on {on}: {_duration(made['hours'])}, {made['images_per_s']:,.1f} images/s"
    )
    print_line(f"  limited by {made['limit']}; {made['core_hours']:,.1f} core hours" + _gpus(work, made))
    print_line(
        f"  store {made['store_gb']:,.2f} GB: local features {made['features_gb']:,.2f}, "
        f"rows {made['rows_gb']:,.2f}; {made['commits']:,} commits"
    )
    if made["photos_gb"] is not None:
        print_line(f"  photos to read {made['photos_gb']:,.2f} GB")
    if made["writes"] or made["reads"]:
        print_line(f"  requests: {made['writes']:,} write or list, {made['reads']:,} read")
    for name, amount in made["cost"].items():
        print_line(f"  price of {name.replace('_', ' ')}: {amount:,.2f}")
    print_line("assumed:")
    for sentence in made["assumed"]:
        print_line(f"  {sentence}")


def _count(text: str) -> int:
    count = int(text.replace(",", "").replace("_", ""))
    if not 1 <= count <= _MAX_IMAGES:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {_MAX_IMAGES}")
    return count


def _gpus(work: dict[str, Any], made: dict[str, Any]) -> str:
    if not work["gpus"]:
        return ""
    return f", {made['gpu_hours']:,.1f} GPU hours; {made['cores_for_gpus']:,.1f} cores keep the GPUs busy"


def _duration(hours: float) -> str:
    seconds = hours * 3600
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"
