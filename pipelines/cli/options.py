"""Options and exit codes shared by several verbs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Literal

from storage.errors import PlacerayError

if TYPE_CHECKING:
    from models.runtime.execution import Execution

__all__ = [
    "EXIT_OK",
    "UsageError",
    "execution_from",
    "exit_code_for",
    "matching_from",
    "photos_from",
    "require_aggregation",
    "rerank_from",
]

EXIT_OK, EXIT_REJECTED = 0, 3  # the other codes are those of the errors


class UsageError(PlacerayError):
    """Arguments that are valid by themselves but not together."""

    reason = "usage"


def execution_from(args: argparse.Namespace) -> Execution:
    """Return the execution options of the network."""
    from models.runtime.execution import execution_of

    return execution_of(vars(args))


def matching_from(args: argparse.Namespace, *, reranked: bool = True) -> dict[str, Any]:
    """Return the argument `matching` if one of its flags is given.

    Args:
        args: The flags.
        reranked: Whether anything is re-ranked.

    Raises:
        UsageError: a flag is given and nothing is re-ranked.
        BadMatching: a value is out of bounds.
    """
    from serving.matching_options import OPTIONS, matching_of

    options = {name: value for name, value in vars(args).items() if name in OPTIONS}
    if options and not reranked:
        raise UsageError("without re-ranking there is nothing to match: leave out the options of matching")
    return {"matching": matching_of(options)} if options else {}


def require_aggregation(args: argparse.Namespace) -> None:
    """Check that the store's descriptors are those of `--aggregation`, where it is given.

    Raises:
        CardMismatch: they are not.
        StoreError: the store cannot be read.
    """
    if args.aggregation is not None:
        from models.store_fit import require_fit
        from storage.store import Store

        require_fit(args.store, Store.open(args.store).card, {"aggregation": args.aggregation})


def rerank_from(args: argparse.Namespace) -> bool | Literal["auto"]:
    """Return whether candidates are re-ranked.

    Raises:
        UsageError: the flags contradict each other.
    """
    never = args.no_rerank or args.candidates == 0
    if never and args.rerank in ("always", "auto"):
        raise UsageError(f"--rerank {args.rerank} goes neither with --no-rerank nor with --candidates 0")
    if args.rerank == "auto":
        return "auto"
    return not never and args.rerank != "never"


def photos_from(args: argparse.Namespace) -> dict[str, Any]:
    """Return the argument `max_megapixels` if its flag is given."""
    return {} if args.max_megapixels is None else {"max_megapixels": args.max_megapixels}


def apply_weights(args: argparse.Namespace) -> None:
    """Put the file of --weights into --model, which is then a text that carries both.

    Raises:
        UsageError: the model is not one whose weights are given so.
        BadModelFile: the model file cannot be used.
    """
    weights = getattr(args, "weights", None)
    if weights is None:
        return
    from models.custom.reference import carried, is_reference, read_reference

    model = getattr(args, "model", None)
    if model is None or not is_reference(model):
        raise UsageError("--weights goes with --model timm:NAME or --model FILE.toml: give one of them")
    args.model = carried(read_reference(model, weights=weights))


def exit_code_for(rejected: int, total: int, max_rejected: float) -> int:
    """Return the exit code of a job that rejected some of its images."""
    return EXIT_REJECTED if total and rejected / total > max_rejected else EXIT_OK
