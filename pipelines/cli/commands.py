"""The command line: parse the arguments, run the verb, return its exit code.

Results go to stdout (a table, or one JSON object with --json), progress and notes to stderr. Exit codes:
0 success, 1 bug, 2 wrong usage or nothing can be written, 3 more images rejected than --max-rejected allows,
4 store locked, 5 card mismatch, 6 corrupt store, 7 disk full, 8 no progress, 9 object storage unreachable,
forbidden or throttled, 130 Ctrl-C, 141 nobody reads stdout any more, 143 SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from pipelines.cli import (
    jobs,
    locating,
    model,
    planning,
    queries,
    results,
    store,
    tagging,
    track,
    versions,
)
from pipelines.cli.options import UsageError, apply_weights
from pipelines.cli.outputs import require_outputs
from pipelines.cli.parser import build_parser
from pipelines.cli.prior_flags import join_coordinates
from pipelines.cli.storage_options import join_storage_options
from storage.durable import explain_write_errors
from storage.errors import NotWritable, OutOfSpace, PlacerayError
from storage.text import plain

__all__ = ["main"]

EXIT_INTERRUPTED, EXIT_UNREAD, EXIT_TERMINATED = 130, 141, 143
_MAX_MESSAGE_LENGTH = 4000

VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "demo": jobs.run_demo,
    "index": jobs.run_index,
    "plan": planning.run_plan,
    "query": queries.run_query,
    "track": track.run_track,
    "serve": queries.run_serve,
    "evaluate": jobs.run_evaluate,
    "compare": results.run_compare,
    "atlas": results.run_atlas,
    "tune": results.run_tune,
    "export": results.run_export,
    "finetune": jobs.run_finetune,
    "embed": model.run_embed,
    "import-weights": model.run_import_weights,
    "models": model.run_models,
    "info": store.run_info,
    "verify": store.run_verify,
    "compact": store.run_compact,
    "delete": store.run_delete,
    "relearn": store.run_relearn,
    "calibrate": jobs.run_calibrate,
    "upgrade": store.run_upgrade,
    "build-index": store.run_build_index,
    "history": versions.run_history,
    "tag-version": versions.run_tag_version,
    "rollback": versions.run_rollback,
    "copy": store.run_copy,
    "tag": tagging.run_tag,
    "locate": locating.run_locate,
}


class Terminated(SystemExit):
    """SIGTERM was received."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    args = build_parser().parse_args(join_coordinates(sys.argv[1:] if argv is None else argv))
    # A terminated job must leave its `with` blocks: that releases the lease.
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        join_storage_options(args)
        require_outputs(args)
        apply_weights(args)
        code = VERBS[args.verb](args)
        sys.stdout.flush()
        return code
    except PlacerayError as error:
        return _report(args.verb, error)
    except BrokenPipeError:  # as of `placeray evaluate ... | head`
        if _is_read():
            raise
        return EXIT_UNREAD
    except OSError as error:
        explained = _explained(error)
        if explained is None:
            raise
        return _report(args.verb, explained)
    except KeyboardInterrupt:
        print(f"placeray {args.verb}: interrupted; run the same command again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Terminated:
        print(f"placeray {args.verb}: terminated; run the same command again to continue", file=sys.stderr)
        return EXIT_TERMINATED


def _explained(error: OSError) -> PlacerayError | None:
    """Return the error to show where access is denied or the disk is full; None for any other error."""
    path = Path(str(error.filename or "a file"))
    try:
        with explain_write_errors(path, 0):
            raise error
    except NotWritable:
        return UsageError(
            f"{path} cannot be read or written ({error.strerror}): give this user access, or "
            "choose another path"
        )
    except OutOfSpace as full:
        return full
    except OSError:
        return None


def _is_read() -> bool:
    """Return whether anybody reads stdout; if not, nothing is left that Python fails to write at its end."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


def _report(verb: str, error: PlacerayError) -> int:
    """Print an error in one line and return its exit code."""
    print(plain(f"placeray {verb}: {error}", _MAX_MESSAGE_LENGTH), file=sys.stderr)
    return error.exit_code


def _on_sigterm(signum: int, frame: object) -> NoReturn:
    raise Terminated(EXIT_TERMINATED)
