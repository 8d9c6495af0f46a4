"""Named protocols: which images and queries a published figure is of, and which answers are right.

The counts are those of the data sets as the usual downloaders write them. Figures of one data set under two
protocols differ by several points: MSLS's validation cities have an official subset of 740 of their 11,084
queries, and Nordland is scored within 1, 2 or 10 frames.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.sources import SourceError
from storage.text import plain

__all__ = ["PROTOCOLS", "BadProtocol", "Protocol", "protocol_of"]

_MAX_FILE_BYTES = 1 << 20
_MAX_METRES, _MAX_FRAMES = 1e6, 100_000


class BadProtocol(SourceError):
    """There is no such protocol, or the data set is not the one that it is of."""

    reason = "bad_protocol"


@dataclass(frozen=True)
class Protocol:
    """What a figure is of.

    Attributes:
        name: As given by `--protocol`.
        rule: Whether answers are right by distance or by frame number.
        tolerance: Metres, or frames to either side; inclusive.
        database: Images of the database; None: any number.
        queries: Queries that are scored; None: any number.
        split: Split of the data set; None: as asked for.
        stride: Frames of the database from one query to the next.
        folder: Where the usual downloaders put it, for messages.
        subset: Whether the queries are a subset of those in the folder, so that their keys are needed.
        keys: File with the keys of the queries; None: all.
    """

    name: str
    rule: Literal["metres", "frames"]
    tolerance: float
    database: int | None = None
    queries: int | None = None
    split: str | None = None
    stride: int = 1
    folder: str = ""
    subset: bool = False
    keys: Path | None = None

    @property
    def threshold_m(self) -> float | None:
        """The distance up to which answers are right; None where frames decide."""
        return self.tolerance if self.rule == "metres" else None

    def check_counts(self, folder: Path, database: int, queries: int) -> None:
        """Check that a data set has the images and queries of the protocol.

        Args:
            folder: The data set, for the message.
            database: Its images.
            queries: Its queries, those with the protocol's keys where it has some.

        Raises:
            BadProtocol: it is another one; the message names the protocol or folder that fits.
        """
        if self.database in (None, database) and self.queries in (None, queries):
            return
        expected = " and ".join(
            f"{count:,} {what}"
            for count, what in ((self.database, "database images"), (self.queries, "queries"))
            if count is not None
        )
        found = f"{folder} has {database:,} database images and {queries:,} queries"
        fitting = [p.name for p in PROTOCOLS.values() if (p.database, p.queries) == (database, queries)]
        if fitting:
            step = f"these are the counts of {' and '.join(fitting)}: give --protocol {fitting[0]}"
            step += f", or the folder of {self.name}, {self.folder}" if self.folder else ""
        elif self.subset and self.database == database:
            step = f"give the keys of all {self.queries:,} with --keys"
        else:
            step = f"give the folder {self.folder or 'that it is of'}, or --protocol {self.rule}:"
            step += f"{self.tolerance:g} for a data set of your own"
        raise BadProtocol(f"{self.name} has {expected}, and {found}: {step}")


def _named(*protocols: Protocol) -> dict[str, Protocol]:
    return {protocol.name: protocol for protocol in protocols}


_MSLS, _PITTS, _NORDLAND = "msls/val", "pitts30k/images", "nordland/images/test"
PROTOCOLS = _named(
    Protocol("msls-val-740", "metres", 25.0, 18_871, 740, "val", folder=_MSLS, subset=True),
    Protocol("msls-val-11k", "metres", 25.0, 18_871, 11_084, "val", folder=_MSLS),
    Protocol("msls-test", "metres", 25.0, 38_770, 27_092, "test", folder="msls/test"),
    Protocol("pitts30k", "metres", 25.0, 10_000, 6_816, "test", folder=f"{_PITTS}/test"),
    Protocol("pitts30k-val", "metres", 25.0, 10_000, 7_608, "val", folder=f"{_PITTS}/val"),
    Protocol("pitts250k", "metres", 25.0, 83_952, 8_280, "test", folder="pitts250k/images/test"),
    Protocol("tokyo247", "metres", 25.0, 75_984, 315, "test", folder="tokyo247/images/test"),
    Protocol("nordland-3450", "frames", 2, 3_450, 3_450, folder=_NORDLAND),
    Protocol("nordland-27592", "frames", 10, 27_592, 27_592, folder=_NORDLAND),
    Protocol("nordland-2760", "frames", 1, 27_592, 2_760, stride=10, folder=_NORDLAND),
    Protocol("sped", "frames", 0, 607, 607, folder="sped/images/test"),
)


def protocol_of(text: str) -> Protocol:
    """Return a protocol by its name, `metres:25`, `frames:10`, or the path of a TOML file.

    Raises:
        BadProtocol: there is no such protocol, or the file is not one.
    """
    if text in PROTOCOLS:
        return PROTOCOLS[text]
    if text.lower().endswith(".toml"):
        return _from_file(Path(text).expanduser())
    return _from_rule(text)


def _from_rule(text: str) -> Protocol:
    kind, _, number = text.partition(":")
    try:
        if kind == "metres" and 0 < float(number) <= _MAX_METRES:
            return Protocol(text, "metres", float(number))
        if kind == "frames" and 0 <= int(number) <= _MAX_FRAMES:
            return Protocol(text, "frames", int(number))
    except ValueError:
        pass
    raise BadProtocol(
        f"--protocol {plain(text, 100)} is not known: give one of {', '.join(PROTOCOLS)}, metres:25, "
        "frames:10, or a FILE.toml"
    )


def _from_file(path: Path) -> Protocol:
    """Read a protocol: `rule`, and any of `name`, `database`, `queries`, `split`, `stride` and `keys`."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise BadProtocol(f"{path} is too large for a protocol: give a TOML file with rule and counts")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadProtocol(f"{path} cannot be read ({error.strerror}): check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadProtocol(f"{path} is not TOML ({plain(str(error), 200)}): correct it") from error
    _require_known(values, ("name", "rule", "database", "queries", "split", "stride", "keys"), path)
    if not isinstance(values.get("rule"), str):
        raise BadProtocol(f'{path} has no rule: add a line such as rule = "metres:25"')
    for name in ("database", "queries", "stride"):
        value = values.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadProtocol(f"{path}: {name} is not a whole number above 0: correct it")
    for name in ("name", "split", "keys"):
        if not isinstance(values.get(name, ""), str):
            raise BadProtocol(f"{path}: {name} is not a text: put it in quotes")
    if values.get("split", "test") not in ("train", "val", "test"):
        raise BadProtocol(f"{path}: split is none of train, val and test: correct it")
    keys = values.get("keys")
    return replace(
        _from_rule(values["rule"]),
        name=plain(str(values.get("name", path.stem)), 100),
        database=values.get("database"),
        queries=values.get("queries"),
        split=values.get("split"),
        stride=values.get("stride", 1),
        keys=None if keys is None else path.parent / keys,
    )


def _require_known(values: dict[str, Any], names: Iterable[str], path: Path) -> None:
    if unknown := sorted(set(values) - set(names)):
        raise BadProtocol(f"{path} has {plain(', '.join(unknown), 200)}: known are {', '.join(names)}")
