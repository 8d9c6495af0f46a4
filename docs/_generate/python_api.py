"""Write reference/python.md: the public classes and functions, whose docstrings mkdocstrings reads."""

from __future__ import annotations

import mkdocs_gen_files

SECTIONS = {
    "Querying": ("serving.engine.QueryEngine", "serving.client.PlaceClient", "storage.records.Match"),
    "Whole jobs": (
        "pipelines.indexing.job.index",
        "pipelines.indexing.job.IndexReport",
        "pipelines.evaluation.job.evaluate",
        "pipelines.training.job.finetune",
        "pipelines.training.settings.TrainingSettings",
    ),
    "Stores": ("storage.store.Store", "storage.records.Candidate"),
    "Models and images": (
        "models.weights.load_extractor",
        "models.extractor.Extractor",
        "models.images.decoder.decode_image",
        "models.matching.mutual.mutual_nn_count",
    ),
    "Errors": ("storage.errors.PlacerayError",),
}

with mkdocs_gen_files.open("reference/python.md", "w") as file:
    file.write("# Python API\n\n")
    for title, names in SECTIONS.items():
        file.write(f"## {title}\n\n")
        for name in names:
            file.write(f"::: {name}\n    options:\n      heading_level: 3\n\n")
