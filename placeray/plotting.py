"""Pictures of answers for notebooks; needs matplotlib (`pip install 'placeray[plot]'`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.images.decoder import decode_image
from models.images.photo import Photo, load_pixels
from models.images.photo_file import read_indexed
from pipelines.evaluation.plots import PlottingUnavailable
from storage.text import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from serving.answer import Match
    from serving.engine import QueryEngine

__all__ = ["PlottingUnavailable", "plot_matches"]


def plot_matches(engine: QueryEngine, photo: Photo, match: Match, *, max_lines: int = 60) -> Figure:
    """Draw a photo beside a stored image, with lines between their mutual nearest neighbours.

    Where places are ranked by votes, matches that agree are drawn in colour and the others in grey.

    Args:
        engine: The engine that answered; its store names the stored image's file.
        photo: The photo that was asked about: bytes, a path, a PIL image, or (H, W, 3) uint8.
        match: One of the answer's matches.
        max_lines: Draw only the most similar pairs.

    Returns:
        The figure; a notebook shows it, `figure.savefig("pair.png")` writes it.

    Raises:
        PlottingUnavailable: matplotlib is not installed.
        ImageRejected: the photo, or the stored image's file, cannot be read; reason `changed` where another
            file than the indexed one is there.
        KeyError: the store holds no such image.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.patches import ConnectionPatch
    except ImportError as error:
        raise PlottingUnavailable("plot_matches needs matplotlib: pip install 'placeray[plot]'") from error
    here = load_pixels(photo, max_pixels=engine.max_pixels)
    record = engine.stored_record(match.record)
    there = decode_image(read_indexed(record.uri, record.sha256), max_pixels=engine.max_pixels).pixels
    lines = engine.matched_lines(here, record)
    strongest = np.argsort(-lines.similarity, kind="stable")[:max_lines]
    strongest = strongest[np.argsort(lines.agree[strongest], kind="stable")]  # those that agree on top

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    _show(left, here, "photo")
    _show(right, there, f"{match.rank}. {record.image_id}")
    for i in strongest:
        figure.add_artist(
            ConnectionPatch(
                xyA=tuple(lines.points[i] * (here.shape[1], here.shape[0])),
                xyB=tuple(lines.stored_points[i] * (there.shape[1], there.shape[0])),
                coordsA="data",
                coordsB="data",
                axesA=left,
                axesB=right,
                color="#00c2ff" if lines.agree[i] else "#9aa0a6",
                linewidth=0.7,
                alpha=0.6,
            )
        )
    figure.suptitle(f"{len(lines.similarity)} mutual nearest neighbours, {len(strongest)} drawn", fontsize=10)
    pyplot.close(figure)  # a notebook shows the returned figure, once
    return figure


def _show(axes: Any, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels)
    axes.set_title(plain(title, 200), fontsize=9, parse_math=False)
    axes.set_axis_off()
