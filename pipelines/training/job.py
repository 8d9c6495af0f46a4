"""Fine-tunes the adapters of a model on a data set with Ray Train, and measures the gain in recall."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from torch import nn

from models.checkpoints.weights_file import save_weights
from models.names import SELAVPRPP_MODELS
from models.networks.selavprpp import SelaVPRpp
from models.photo_limits import pixels_of
from models.training.checkpoint import read_trained
from models.training.trainable import trainable_parameters
from pipelines.defaults import MAX_FAILURES, MAX_REJECTED, TRAINING_SPLIT, VALIDATION_SPLIT
from pipelines.ray_session import check_ray, on_cluster, ray_session
from pipelines.training.checkpoints import STATE, disk_full
from pipelines.training.data import DataFolders, TrainingSet
from pipelines.training.errors import BadSettings
from pipelines.training.launcher import Scale, run_workers, scale_for
from pipelines.training.log import read_rows
from pipelines.training.plan import check_data
from pipelines.training.preflight import begin_run, check_photos, list_rejected, require_space
from pipelines.training.report import write_training_report
from pipelines.training.settings import TrainingSettings
from pipelines.training.ways import Way, best_way, gain_over_best, measure_ways, recalls_of
from pipelines.training.worker import starts_unchanged, trainable_model
from storage.card import Card, Preprocessing
from storage.commit.lease import Lease
from storage.durable import flush, replace_file

__all__ = ["finetune"]


@on_cluster
def finetune(
    dataset: str | Path,
    out: str | Path,
    *,
    settings: TrainingSettings | None = None,
    split: str = TRAINING_SPLIT,
    val: str | Path | None = None,
    val_split: str = VALIDATION_SPLIT,
    workers: tuple[int, int] = (1, 1),
    gpus_per_worker: float | None = None,
    run: str | Path | None = None,
    storage: str | None = None,
    max_rejected: float = MAX_REJECTED,
    max_failures: int = MAX_FAILURES,
    choose_floor: bool = True,
    follow_links: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train, choose the best epoch, write its weights, and report recall before and after.

    The same call again resumes an interrupted run, whether an error, a signal or a power cut ended it.

    Args:
        dataset: Data set in the standard layout to train on.
        out: The safetensors file to write; must not exist.
        settings: The recipe.
        split: Which split to train on.
        val: Data set to validate with; by default the same.
        val_split: Which split of it.
        workers: Minimum and maximum number of workers; where they differ, training continues with fewer
            after a worker is lost.
        gpus_per_worker: Share of a GPU for each; by default 1 where the cluster has GPUs, else 0.
        run: Folder for the log, the report and the checkpoints; by default beside `out`, named after it.
        storage: Where checkpoints go instead, such as s3://bucket/path; every worker must reach it.
        max_rejected: Maximum share of unreadable photos.
        max_failures: How often workers may fail before training gives up.
        choose_floor: Choose the similarity from which mutual neighbours count on the validation split, for a
            model that has one.
        follow_links: Whether symbolic links may lead out of the folders of the data sets.
        quiet: Show no progress.

    Returns:
        The report, as report.json in the run folder holds it, with `out` and `run`.

    Raises:
        BadSettings, SourceError, MiningRejected, DataRejected, WeightsRejected, WeightsUnavailable,
        UnknownModel, BadImageSize: before any work, on invalid input.
        InvalidRayAddress, CannotJoinRay, RayWithoutAuthentication, NoRayFolder: see `ray_session`.
        StoreLocked: another process trains in the same run folder.
        TrainingDiverged, OutOfSpace, TrainingFailed: while training; checkpoints and log stay.
    """
    check_ray()
    settings = _with_absolute_path(settings or TrainingSettings())
    out = _new_file(out)
    _require_workers(workers, settings)
    folder = Path(run).expanduser().resolve() if run else out.with_suffix(".run")
    data = DataFolders(
        _absolute(dataset), split, _absolute(val or dataset), val_split, follow_links=follow_links
    )
    model, start = trainable_model(settings)
    settings = settings.with_rate_for(model)
    if isinstance(model, SelaVPRpp) and workers != (1, 1):
        raise BadSettings(
            f"{settings.model} trains in one worker, since its loss compares all photos of a step: leave "
            "--workers out"
        )
    training, validation = data.open()
    check_data(training, validation, settings)
    begin_run(folder, settings, data, start)
    require_space(folder, model, start.preprocessing, validation)
    import ray.data  # before the session, which then quietens its log

    with Lease(folder), ray_session() as ray:
        rejected = check_photos(ray, training, validation, quiet, pixels_of(settings.max_megapixels))
        list_rejected(folder / "rejected.csv", rejected, training, validation, max_rejected)
        data = dataclasses.replace(data, without=tuple(sorted(uri for uri, _, _ in rejected)))
        training, validation = data.open()
        plan = check_data(training, validation, settings)
        config = {
            "settings": settings,
            "data": data,
            "digest": training.digest + validation.digest,
            "choose_floor": choose_floor,
        }
        scale = scale_for(ray, workers, gpus_per_worker)
        checkpoint, result = run_workers(ray, config, scale, folder, storage, max_failures, quiet)
        trained = folder / "trained.safetensors"
        _read_weights(checkpoint, model)
        model.min_similarity = result["floor"]
        _write_weights(trained, model, start.preprocessing)
        selected = frozenset(validation.queries.uris[row] for row in plan.truth.queries)
        ways = {
            name: measure_ways(data, source, settings, selected, name=name, quiet=quiet)
            for name, source in (("before", _loadable(folder, settings)), ("after", str(trained)))
        }
        before, after = (best_way(of_model, ways["before"]) for of_model in ways.values())
        if kept_untrained := after.order[:2] < before.order[:2] and starts_unchanged(model, settings):
            # The adapters that training began with: they change nothing.
            model, _ = trainable_model(settings)
            _write_weights(trained, model, start.preprocessing)
            ways["after"] = measure_ways(data, str(trained), settings, selected, name="after", quiet=quiet)
            after = best_way(ways["after"], ways["before"])
        card = _write_weights(trained, model, start.preprocessing, after)
        folders = {name: value for name, value in vars(data).items() if name != "without"}
        facts = result | _facts(scale, card, model, training, validation, len(rejected))
        facts |= {f"{name}_ways": recalls_of(of_model) for name, of_model in ways.items()}
        facts |= {"aggregation": after.aggregation, "score": after.score, "kept_untrained": kept_untrained}
        facts |= {"aggregation_before": before.aggregation, "score_before": before.score}
        facts |= {"gain_over_best_before": gain_over_best(after, ways["before"])}
        rows = read_rows(folder / "log.csv")
        report = write_training_report(
            folder,
            before=before.evaluation,
            after=after.evaluation,
            rows=rows,
            settings=settings.to_dict() | folders,
            facts=facts,
        )
        _publish(trained, out)
    return report | {"out": str(out), "run": str(folder)}


def _loadable(folder: Path, settings: TrainingSettings) -> str:
    """Return what loads the model that training started from: untrained SelaVPR++ has no name to load."""
    if settings.model not in SELAVPRPP_MODELS:
        return settings.model
    path = folder / "start.safetensors"
    model, card = trainable_model(settings)
    _write_weights(path, model, card.preprocessing)
    return str(path)


def _require_workers(workers: tuple[int, int], settings: TrainingSettings) -> None:
    min_workers, max_workers = workers
    if not 1 <= min_workers <= max_workers <= settings.batch:
        raise BadSettings(
            f"{min_workers} to {max_workers} workers cannot share {settings.batch} queries per step: give 1 "
            f"to {settings.batch} workers, or a larger --batch"
        )


def _with_absolute_path(settings: TrainingSettings) -> TrainingSettings:
    """Make the path of a weights file absolute: workers have other working folders."""
    path = Path(settings.model).expanduser()
    return dataclasses.replace(settings, model=str(path.resolve())) if path.is_file() else settings


def _absolute(path: str | Path) -> str:
    return str(Path(path).expanduser().resolve())


def _new_file(out: str | Path) -> Path:
    path = Path(out).expanduser().resolve()
    if path.suffix != ".safetensors":
        raise BadSettings(f"{out} does not end with .safetensors: give a name that does")
    if path.exists():
        raise BadSettings(f"{out} exists and is not overwritten: give another name or remove it")
    if not path.parent.is_dir():
        raise BadSettings(f"there is no folder {path.parent}: create it first")
    return path


def _publish(trained: Path, out: Path) -> None:
    """Move the weights to their final path, whole; a link, unlike a rename, replaces no other file."""
    try:
        os.link(trained, out)
    except OSError as error:
        if isinstance(error, FileExistsError) or out.exists():
            raise BadSettings(
                f"{out} was created meanwhile and is not overwritten: the weights are in {trained}"
            ) from None
        replace_file(out, trained.read_bytes())  # another file system, or one without links
    flush(out.parent)
    trained.unlink()


def _read_weights(checkpoint: Any, model: Any) -> None:
    with checkpoint.as_directory() as folder:
        read_trained(Path(folder, STATE), model)


def _write_weights(path: Path, model: Any, preprocessing: Preprocessing, way: Way | None = None) -> Card:
    """Write the weights, whose card names the way in which validation found most."""
    with disk_full("the weights file"):
        return save_weights(
            path,
            model,
            preprocessing=preprocessing,
            aggregation=way.aggregation if way else None,
            score=way.score if way else None,
        )


def _facts(
    scale: Scale,
    card: Card,
    model: nn.Module,
    training: TrainingSet,
    validation: TrainingSet,
    rejected: int,
) -> dict[str, Any]:
    return {
        "trained_parameters": sum(tensor.numel() for tensor in trainable_parameters(model).values()),
        "weights_sha256": card.weights_sha256,
        "cpus_per_worker": scale.cpus,
        "gpus_per_worker": scale.gpus,
        "training_queries": len(training.queries),
        "training_database": len(training.database),
        "validation_queries": len(validation.queries),
        "validation_database": len(validation.database),
        "photos_left_out": rejected,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
