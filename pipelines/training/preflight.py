"""Checks before a training run starts: its folder, free disk space, photos that cannot be read."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from models.images.limits import MAX_PIXELS
from models.training.trainable import trainable_parameters
from pipelines.progress import ProgressBar
from pipelines.training.data import DataFolders, TrainingSet
from pipelines.training.errors import BadSettings, DataRejected
from pipelines.training.log import read_rows
from pipelines.training.photos import rejected_photo
from pipelines.training.settings import TrainingSettings
from storage.card import Card, Preprocessing
from storage.durable import replace_file
from storage.errors import OutOfSpace
from storage.text import spreadsheet_safe

__all__ = ["begin_run", "check_photos", "list_rejected", "require_space"]

_PHOTOS_PER_TASK = 64


def begin_run(folder: Path, settings: TrainingSettings, data: DataFolders, start: Card) -> None:
    """Create the run folder, or check that an existing one belongs to the same run.

    Raises:
        BadSettings: the folder belongs to a run with other settings, data or model, or to no run.
        OutOfSpace: the disk is full.
    """
    where = dataclasses.asdict(data)
    if not data.follow_links:
        del where["follow_links"]  # as in runs begun before there was the flag
    where |= {"weights of the model": start.weights_sha256}
    run = json.loads(json.dumps({"settings": settings.to_dict(), "data": where}))
    path = folder / "settings.json"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadSettings(f"{folder} cannot be created ({error}): give another --run") from error
        replace_file(path, (json.dumps(run, indent=2) + "\n").encode())
        return
    read_rows(folder / "log.csv")
    try:
        before = json.loads(path.read_text())
        differing = settings.differences(before["settings"])
        differing += [name for name, value in run["data"].items() if before["data"].get(name) != value]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadSettings(f"{path} cannot be read ({error!r}): give another --run") from error
    if differing:
        raise BadSettings(
            f"the run in {folder} was started with another {', '.join(differing)}: give the same to resume "
            "it, or another --run to start a new one"
        )


def require_space(
    folder: Path, model: nn.Module, preprocessing: Preprocessing, validation: TrainingSet
) -> None:
    """Check that checkpoints and the features of validation will fit on their disks."""
    weights = sum(tensor.numel() * 4 for tensor in trainable_parameters(model).values())
    network: Any = model
    rows, columns = network.grid(preprocessing.height, preprocessing.width)
    features = len(validation.database) * rows * columns * network.feature_dim * 2
    # Weights, two moments of Adam; the best, the last and one being written.
    for what, path, needed in (
        ("checkpoints", folder, 9 * weights),
        ("validation", Path(tempfile.gettempdir()), features),
    ):
        if (free := shutil.disk_usage(path).free) < needed:
            raise OutOfSpace(
                f"{what} need {needed / 2**20:.0f} MiB in {path} and {free / 2**20:.0f} MiB are free: free "
                "some space, give another --run or set TMPDIR, or validate with fewer photos"
            )


def check_photos(
    ray: Any, training: TrainingSet, validation: TrainingSet, quiet: bool, max_pixels: int = MAX_PIXELS
) -> list[tuple[str, str, str]]:
    """Decode every photo once, on the whole cluster, and return path, reason, message of those that fail."""
    uris = [
        uri
        for part in (training, validation)
        for photos in (part.queries, part.database)
        for uri in photos.uris
    ]

    @ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
    def check(block: list[str]) -> list[tuple[str, str, str]]:
        return [rejected for uri in block if (rejected := rejected_photo(uri, max_pixels))]

    waiting = [check.remote(uris[i : i + _PHOTOS_PER_TASK]) for i in range(0, len(uris), _PHOTOS_PER_TASK)]
    rejected: list[tuple[str, str, str]] = []
    done, tasks = 0, len(waiting)
    with ProgressBar("check", quiet=quiet) as bar:
        while waiting:
            ready, waiting = ray.wait(waiting)
            rejected += [row for rows in ray.get(ready) for row in rows]
            done += len(ready)
            bar.update(len(uris) * done // tasks, len(rejected), len(uris))
    return sorted(set(rejected))


def list_rejected(
    path: Path,
    rejected: list[tuple[str, str, str]],
    training: TrainingSet,
    validation: TrainingSet,
    max_rejected: float,
) -> None:
    """Write the CSV of photos that are left out, with the reasons; refuse if there are too many.

    Raises:
        DataRejected: a larger share than `max_rejected` cannot be read.
        OutOfSpace: the disk is full.
    """
    rows = sorted({*rejected, *training.unusable, *validation.unusable})
    if not rows:
        path.unlink(missing_ok=True)  # of an earlier attempt
        return
    content = io.StringIO(newline="")
    csv.writer(content).writerows([("image", "reason", "message")])
    csv.writer(content).writerows([spreadsheet_safe(cell) for cell in row] for row in rows)
    replace_file(path, content.getvalue().encode())
    photos = sum(len(part.queries) + len(part.database) for part in (training, validation))
    share = len(rows) / (photos + len(training.unusable) + len(validation.unusable))
    if share > max_rejected:
        raise DataRejected(
            "too_many_rejected",
            f"{len(rows)} photos ({share:.0%}) cannot be read, listed in {path}: repair them, or allow more "
            "with --max-rejected",
        )
