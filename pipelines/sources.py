"""What to index: folders, CSV and Parquet listings, data sets in the field's standard layout.

Every source becomes one Arrow table of `LISTING_SCHEMA`. A row that cannot be used stays in the table with
its reason in `rejected`, so that accepted and rejected rows always add up to the input.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from storage.errors import PlacerayError

__all__ = ["LISTING_SCHEMA", "Dataset", "SourceError", "list_source", "open_dataset", "parse_standard_name"]

LISTING_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("lat", pa.float64()),
        ("lon", pa.float64()),
        ("utm_e", pa.float64()),
        ("utm_n", pa.float64()),
        ("utm_zone", pa.string()),
        ("heading_deg", pa.float64()),
        ("captured_at", pa.timestamp("us", tz="UTC")),
        ("rejected", pa.string()),
        ("message", pa.string()),
    ]
)

# Listed so that the decoder judges them by content; what is no picture by its name is passed over.
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"),
        *("heic", "heif", "avif", "jp2", "eps", "svg", "fits", "ppm"),
    )
)
COLUMN_NAMES = {
    "uri": ("uri", "path", "file", "filename"),
    "image_id": ("image_id", "id"),
    "lat": ("lat", "latitude"),
    "lon": ("lon", "lng", "longitude"),
    "utm_e": ("utm_e", "utm_east", "easting"),
    "utm_n": ("utm_n", "utm_north", "northing"),
    "utm_zone": ("utm_zone", "zone"),
    "heading_deg": ("heading_deg", "heading"),
    "captured_at": ("captured_at", "time", "timestamp", "datetime"),
}
NUMBER_RANGES = {
    "lat": (-90.0, 90.0),
    "lon": (-180.0, 180.0),
    "utm_e": (-1e7, 1e7),
    "utm_n": (-1e7, 2e7),
    "heading_deg": (-360.0, 360.0),
}
MAX_COLUMNS = 1_000
MAX_LISTING_BYTES = 4 << 30
SPLITS = ("test", "val", "train")


class SourceError(PlacerayError):
    """The source as a whole cannot be used; the message says what to do next."""

    reason = "source_error"


@dataclass(frozen=True)
class Dataset:
    """A data set in the field's standard layout.

    Attributes:
        name: For reports.
        database: Folder of the images that form the map.
        queries: Folder of the photos to locate.
    """

    name: str
    database: Path
    queries: Path


def parse_standard_name(file_name: str) -> dict[str, Any]:
    """Read pose and time off a file name of the field's standard form.

    That form is `@E@N@zone@letter@lat@lon@pano_id@tile@heading@pitch@roll@height@timestamp@note@.jpg`.
    Only E and N are required. Fields that cannot be read are left out; a name of another form gives an empty
    dictionary. The file name alone is split, so an @ in a folder does no harm.
    """
    parts = file_name.split("@")
    if len(parts) < 4 or parts[0] != "":
        return {}
    fields = [*parts[1:], *[""] * 14]
    try:
        pose: dict[str, Any] = {
            "utm_e": _number("utm_e", fields[0]),
            "utm_n": _number("utm_n", fields[1]),
        }
    except ValueError:
        return {}
    if None in pose.values():
        return {}
    if zone := _zone(fields[2] + fields[3]):
        pose["utm_zone"] = zone
    for name, text in (("lat", fields[4]), ("lon", fields[5]), ("heading_deg", fields[8])):
        try:
            if (value := _number(name, text)) is not None:
                pose[name] = value
        except ValueError:
            continue
    if ("lat" in pose) != ("lon" in pose):
        pose.pop("lat", None), pose.pop("lon", None)
    try:
        if (time := _time(fields[12])) is not None:
            pose["captured_at"] = time
    except ValueError:
        pass
    return pose


def open_dataset(path: str | Path, *, split: str = "test") -> Dataset:
    """Find database/ and queries/ of a data set.

    `path` may hold them itself, or hold `images/<split>/` or `<split>/` that do.

    Raises:
        SourceError: nothing of that form is there.
    """
    top = Path(path).expanduser().resolve()
    for folder in (top, top / "images" / split, top / split):
        if (folder / "database").is_dir() and (folder / "queries").is_dir():
            return Dataset(_dataset_name(folder), folder / "database", folder / "queries")
    raise SourceError(
        f"{path} is no data set in the standard layout: expected folders database/ and queries/ in it, "
        f"or in images/{split}/ or {split}/ below it"
    )


def list_source(source: str | Path, *, root: str | Path | None = None, id_prefix: str = "") -> pa.Table:
    """List the images of a folder, of a CSV or Parquet listing, or of a standard layout's database.

    Image ids are paths relative to the folder (or the listing's own `image_id` column), after `id_prefix`;
    they do not change when the folder moves.

    Args:
        source: The folder or the listing.
        root: Folder that a listing's URIs are relative to and must stay inside; the listing's folder if None.
        id_prefix: Put before every image id, to keep several sources apart in one store.

    Returns:
        One row an image, of `LISTING_SCHEMA`, sorted by file name or in the listing's order.

    Raises:
        SourceError: nothing there, no image in it, or a listing that cannot be read.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise SourceError(f"{source} does not exist: give a folder, a .csv or a .parquet file")
    if path.is_dir():
        if root is not None:
            raise SourceError("--root belongs to a CSV or Parquet listing; a folder is its own root")
        rows = _list_folder(map_folder(path), id_prefix)
    elif path.suffix.lower() in {".csv", ".parquet", ".pq"}:
        folder = Path(root) if root is not None else path.parent
        if not folder.is_dir():
            raise SourceError(f"--root {folder} is no folder")
        table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
        rows = _list_table(table, folder.resolve(), id_prefix)
    else:
        raise SourceError(f"{source} is neither a folder nor a .csv or .parquet listing")
    # In chunks: a dictionary a row would take a gigabyte for a million photos.
    chunks = iter(lambda: list(islice(rows, 10_000)), [])
    batches = [pa.RecordBatch.from_pylist(chunk, schema=LISTING_SCHEMA) for chunk in chunks]
    listing = pa.Table.from_batches(batches, schema=LISTING_SCHEMA)
    if listing.num_rows == 0:
        raise SourceError(f"{source} holds no images: nothing to index")
    return listing


def map_folder(path: Path) -> Path:
    """Return the folder whose images form the map: database/ where `path` holds a standard data set."""
    for folder in (path, path / "images" / "test", path / "test"):
        if (folder / "database").is_dir() and (folder / "queries").is_dir():
            return (folder / "database").resolve()
    return path.resolve()


def _dataset_name(folder: Path) -> str:
    names = [part for part in folder.parts if part not in {"images", *SPLITS}]
    return names[-1] if names else folder.name


def _list_folder(root: Path, id_prefix: str) -> Iterator[dict[str, Any]]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            row = {
                "image_id": id_prefix + _clean(path.relative_to(root).as_posix()),
                **parse_standard_name(name),
            }
            yield row | _contained(path, root)


def _contained(path: Path, root: Path) -> dict[str, Any]:
    """Resolve a path; one that leaves the root (.., absolute, symbolic link) is rejected unopened."""
    try:
        resolved = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        return {"uri": _clean(str(path)), "rejected": "unreadable", "message": _clean(str(error))}
    if not resolved.is_relative_to(root):
        return {"uri": _clean(str(path)), "rejected": "outside_root", "message": f"not below {root}"}
    if _clean(str(resolved)) != str(resolved):
        return {
            "uri": _clean(str(path)),
            "rejected": "bad_name",
            "message": "the file name is not UTF-8: rename it",
        }
    return {"uri": str(resolved)}


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _read_csv(path: Path) -> pa.Table:
    try:
        with pa.csv.open_csv(path) as reader:
            header = reader.schema.names
        columns = _columns(header, path)
        convert = pa.csv.ConvertOptions(
            include_columns=list(columns.values()),
            column_types=dict.fromkeys(columns.values(), pa.string()),
            strings_can_be_null=True,
        )
        table = pa.csv.read_csv(path, convert_options=convert)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} cannot be read as CSV ({_clean(str(error))}): mend or convert it"
        ) from error
    return table.rename_columns(list(columns))


def _read_parquet(path: Path) -> pa.Table:
    try:
        with pa.parquet.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow.names, path)
            wanted = set(columns.values())
            size = sum(
                column.total_uncompressed_size
                for group in (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
                for column in (group.column(i) for i in range(group.num_columns))
                if column.path_in_schema.split(".")[0] in wanted
            )
            if size > MAX_LISTING_BYTES:
                raise SourceError(f"{path}: the listing takes {size} bytes unpacked: split it")
            table = file.read(columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} cannot be read as Parquet ({_clean(str(error))})") from error
    table = table.select(list(columns.values())).rename_columns(list(columns))
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            raise SourceError(f"{path}: column {name} has type {kind}: give text, numbers or times")
    return table


def _columns(header: list[str], path: Path) -> dict[str, str]:
    """Map our column names to the listing's, first alias first."""
    if len(header) > MAX_COLUMNS:
        raise SourceError(f"{path} has {len(header)} columns: keep those of {', '.join(COLUMN_NAMES)}")
    if len(set(header)) < len(header):
        raise SourceError(f"{path} has two columns of one name: rename one")
    by_name = {name.strip().lower(): name for name in reversed(header)}
    found = {
        ours: by_name[alias]
        for ours, aliases in COLUMN_NAMES.items()
        for alias in reversed(aliases)
        if alias in by_name
    }
    if "uri" not in found:
        raise SourceError(f"{path} has no column uri (or path); found: {', '.join(header[:20])}")
    return found


def _list_table(table: pa.Table, root: Path, id_prefix: str) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for number, values in enumerate(row for batch in table.to_batches() for row in batch.to_pylist()):
        row = _listed_row(values, root)
        image_id = id_prefix + (row.get("image_id") or f"row {number + 1}")
        if "rejected" not in row and image_id in seen:
            row |= {"rejected": "duplicate_id", "message": f"row {number + 1} repeats image_id {image_id}"}
        seen.add(image_id)
        yield row | {"image_id": image_id}


def _listed_row(values: dict[str, Any], root: Path) -> dict[str, Any]:
    uri = str(values.get("uri") or "").strip()
    given_id = values.get("image_id")
    row: dict[str, Any] = {
        "uri": _clean(uri),
        "image_id": str(given_id) if given_id not in (None, "") else None,
    }
    if not uri:
        return row | {"rejected": "bad_value", "message": "uri is empty"}
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", uri):
        return row | {"rejected": "unsupported_uri", "message": "only paths of local files are read"}
    row |= _contained(root / uri, root)
    if row["image_id"] is None and "rejected" not in row:
        row["image_id"] = Path(row["uri"]).relative_to(root).as_posix()
    elif row["image_id"] is None:
        row["image_id"] = _clean(uri)
    try:
        for name in NUMBER_RANGES:
            if (value := _number(name, values.get(name))) is not None:
                row[name] = value
        if (zone := values.get("utm_zone")) not in (None, ""):
            row["utm_zone"] = _zone(str(zone))
            if row["utm_zone"] is None:
                raise ValueError(f"utm_zone {zone!r} is none of 1 to 60 with an optional band letter")
        if (time := _time(values.get("captured_at"))) is not None:
            row["captured_at"] = time
        for a, b in (("lat", "lon"), ("utm_e", "utm_n")):
            if (a in row) != (b in row):
                raise ValueError(f"{a} and {b} come together")
    except ValueError as error:
        row.setdefault("rejected", "bad_value")
        row.setdefault("message", _clean(str(error)))
    if "utm_e" not in row and "lat" not in row:
        pose = parse_standard_name(Path(uri).name)
        row = pose | row
    return row


def _number(name: str, value: Any) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} {value!r} is no number") from None
    low, high = NUMBER_RANGES[name]
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{name} {value!r} is outside {low:g} to {high:g}")
    return number % 360.0 if name == "heading_deg" else number


def _zone(text: str) -> str | None:
    match = re.fullmatch(r"\s*0?([1-9]|[1-5][0-9]|60)\s*([C-HJ-NP-Xc-hj-np-x]?)\s*", text)
    return match[1] + match[2].upper() if match else None


def _time(value: Any) -> datetime | None:
    """Read ISO 8601, seconds since 1970, or YYYYMM[DD[HHMMSS]]; a time without zone counts as UTC."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    time: datetime | None = None
    if isinstance(value, datetime):
        time = value
    elif isinstance(value, int | float) or re.fullmatch(r"\d{9,10}(\.\d*)?", value.strip()):
        try:
            time = datetime.fromtimestamp(float(value), UTC)
        except (OverflowError, OSError, ValueError):
            raise ValueError(f"captured_at {value!r} is no time") from None
    elif digits := re.fullmatch(r"(\d{4})(\d{2})(\d{2})?_?(\d{6})?", value.strip()):
        text = digits[1] + digits[2] + (digits[3] or "01") + (digits[4] or "000000")
        time = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    else:
        try:
            time = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"captured_at {value!r} is no time: give ISO 8601") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
