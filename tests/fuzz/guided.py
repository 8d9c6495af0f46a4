"""Fuzz one target with inputs that reach new code: python -m tests.fuzz.guided footers --seconds 600.

Needs atheris (`pip install -e '.[fuzz]'`). It helps where our own Python decodes bytes; native decoders are
not instrumented, so photos, weights and requests are left to mutations alone (`tests.fuzz.run`). Inputs that
reached something new stay in --corpus. Ends with another status than 0 at the first input that raises
anything, takes more than two seconds of a core or fills the memory, and leaves it in --findings.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import atheris

INSTRUMENTED = ("storage", "pipelines", "models")
GUIDED = ("listings", "footers", "exif", "areas")
PATIENCE_S, MAX_MIB, MAX_BYTES = 60, 1024, 65_536  # of wall clock, on a busy machine


def main(arguments: list[str] | None = None) -> None:
    args = make_parser().parse_args(arguments)
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from tests.fuzz.run import MAX_CPU_S, Finding
        from tests.fuzz.targets import TARGETS, opened

        target = TARGETS[args.target]
        folder = Path(tempfile.mkdtemp(prefix="placeray-fuzz-"))
        # atheris leaves by os._exit: what `opened` would close is closed by the system.
        check = opened[args.target](folder).__enter__()
    corpus = args.corpus or folder / "corpus"
    for place in (corpus, args.findings):
        place.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
        check(seed)
    options = {
        "max_total_time": args.seconds,
        "timeout": PATIENCE_S,
        "rss_limit_mb": MAX_MIB + target.max_growth_mib,
        "max_len": MAX_BYTES,
        "artifact_prefix": f"{args.findings}/",
        "print_final_stats": 1,
    }
    command = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)]

    def once(data: bytes) -> None:
        began = time.process_time()
        check(data)
        if (took := time.process_time() - began) > MAX_CPU_S:
            raise Finding(f"it took {took:.1f} s of a core")

    atheris.Setup(command, once)
    atheris.Fuzz()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=GUIDED)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, help="folder that keeps inputs for a later run")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir(), "placeray-findings"))
    return parser


if __name__ == "__main__":
    main()
