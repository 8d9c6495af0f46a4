"""What `make bench-all` measures: commands, their result files and the code that the figures depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PARTS", "Part", "part_named", "parts_touched"]

INPUTS = ("photos", "corridor", "city")
# Options that say which table of the results is measured.
_TABLE = ("--rows", "--shape", "--width")
_MODEL = (
    "models/card.py",
    "models/catalogue.py",
    "models/checkpoints",
    "models/extractor.py",
    "models/images",
    "models/networks",
    "models/runtime",
    "models/weights.py",
)
_ENCODED = ("models/feature_encoder.py", "storage/card.py", "storage/features")
_MATCHING = ("models/matching", "models/runtime")
_LEARNED = ("models/aggregation",)
_CITY = ("pipelines/demo",)
_STORED = ("storage/card.py", "storage/commit", "storage/features", "storage/store.py", "storage/table")
_INDEXING = ("pipelines/defaults.py", "pipelines/indexing", "pipelines/ray_session")
_TRAINING = ("models/training", "pipelines/training")
_ANSWERING = (
    "serving/counting.py",
    "serving/engine.py",
    "serving/query.py",
    "serving/reranking.py",
    "serving/stages",
    "storage/search",
)
_SERVING = (
    "serving/app.py",
    "serving/http",
    "serving/replicas.py",
    "serving/service.py",
    "serving/settings.py",
    "serving/transport.py",
)


@dataclass(frozen=True)
class Part:
    """One command of a benchmark, measured as a whole.

    Attributes:
        name: as `make bench-all` and the documentation name it.
        module: what `python -m` runs.
        file: its results, in benchmarks/results/.
        sources: files and folders of the product that the figures depend on. The benchmark's own files are
            added by themselves.
        arguments: how the published figures are measured. Other arguments do not count as this part.
        inputs: further arguments, with `{photos}`, `{corridor}` or `{city}` for folders of the user, or for
            folders below one, as in `{photos}/ie_tower`.
        key: where the part is in its file; empty: all of it.
        accelerator: whether it needs a GPU.
    """

    name: str
    module: str
    file: str
    sources: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    accelerator: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the names of the folders that the command takes."""
        return tuple(name for name in INPUTS if any(f"{{{name}}}" in text for text in self.inputs))

    @property
    def flags(self) -> set[str]:
        """Return the names of the options that take the user's folders."""
        return {text for text in self.inputs if text.startswith("--")}

    def command(self, folders: dict[str, str]) -> list[str]:
        """Return the arguments after `python`, with the user's folders."""
        return ["-m", self.module, *self.arguments, *(text.format_map(folders) for text in self.inputs)]

    def is_run_by(self, arguments: list[str]) -> bool:
        """Return whether these arguments of the module are the ones that the part is measured with."""
        expected = [*self.arguments, *self.inputs]
        return len(expected) == len(arguments) and all(
            wanted == given or (wanted.startswith("{") and not given.startswith("-"))
            for wanted, given in zip(expected, arguments, strict=True)
        )


def _part(name: str, module: str, file: str, *sources: tuple[str, ...] | str, **more: object) -> Part:
    paths = tuple(path for group in sources for path in ((group,) if isinstance(group, str) else group))
    return Part(name, f"benchmarks.{module}", file, tuple(sorted(set(paths))), **more)  # type: ignore[arg-type]


def _pipeline(what: str) -> Part:
    sources = (_INDEXING, _STORED, _ENCODED)
    more = {"arguments": (what,), "key": (what,)}
    return _part(f"pipeline {what}", "bench_pipeline", "pipeline.json", *sources, **more)


def _features(what: str, *inputs: str) -> Part:
    sources = (_MODEL, _ENCODED, _MATCHING, "serving/counting.py")
    more = {"arguments": (what,), "inputs": inputs, "key": (what,)}
    return _part(f"features {what}", "bench_features", "features.json", *sources, **more)


_SEARCHED = ("storage/search", "storage/table/lance_table.py", "tests/support/object_servers.py")


def _search(rows: int) -> Part:
    more = {"arguments": ("--rows", str(rows)), "key": ("gem-1024", str(rows))}
    return _part(f"search {rows}", "bench_search", "search.json", _SEARCHED, **more)


# Measured at every size; the other methods, which are slower, larger or less exact, at one, and in groups: a
# graph of millions of rows takes half an hour or more to build, so each is a part of its own.
_OWN_AND_LANCE = ("placeray's own (ivf)", "LanceDB IVF_RQ, 2 bits", "LanceDB in a bucket")
_OTHERS = {
    "exact": ("exact float32", "exact float16", "int8 + refine"),
    "lists": ("IVF float32", "IVF int8 + refine", "IVF PQ 4-bit + refine", "IVF RaBitQ + refine"),
    "on disk": ("LanceDB IVF_RQ", "LanceDB IVF_PQ"),
    "graph": ("HNSW float32",),
    "graph of int8": ("HNSW int8 + refine",),
    "graph on disk": ("LanceDB IVF_HNSW_SQ",),
}


def _search_city(rows: int, width: int, shape: str, group: str = "") -> Part:
    methods = _OTHERS[group] if group else _OWN_AND_LANCE
    table = ("--rows", str(rows), "--shape", shape, "--width", str(width))
    more = {
        "arguments": (*table, "--limit-s", "3600", "--methods", *methods),
        "key": (f"{shape}-{width}", str(rows), *(methods[:1] if group else ())),
    }
    name = " ".join(["search", shape, str(rows), str(width), *([group] if group else [])])
    return _part(name, "bench_search", "search.json", _SEARCHED, **more)


def _living_service(name: str, rows: int, seconds: int) -> Part:
    sources = (_MODEL, _ENCODED, _STORED, _ANSWERING, _SERVING, _LEARNED, _CITY, _INDEXING,
               "serving/gallery.py", "serving/metrics.py")  # fmt: skip
    more = {
        "arguments": ("--rows", str(rows), "--seconds", str(seconds)),
        "key": ("service", f"auto {rows:,}, {seconds} s"),
    }
    return _part(name, "bench_living_service", "living.json", *sources, **more)


def _codes(rows: int) -> Part:
    more = {"arguments": ("--rows", str(rows)), "key": (str(rows),)}
    return _part(f"codes {rows}", "bench_codes", "codes.json", "storage/search", **more)


def _finetune(what: str, *inputs: str) -> Part:
    sources = (_MODEL, _TRAINING, _LEARNED, _CITY, _ANSWERING, _MATCHING, "pipelines/evaluation",
               "serving/matching_options.py")  # fmt: skip
    more = {"arguments": (what,), "inputs": inputs, "key": (what,)}
    return _part(f"finetune {what}", "prove_finetune", "finetune.json", *sources, **more)


def _accelerator(what: str) -> Part:
    sources = (_MODEL, _ENCODED, _MATCHING, _TRAINING)
    more = {"arguments": (what,), "key": (what,), "accelerator": True}
    return _part(f"accelerator {what}", "bench_accelerator", "accelerator.json", *sources, **more)


_OF_PLACES = (_MODEL, _ENCODED, _STORED, _MATCHING, _LEARNED, _CITY, _ANSWERING, "serving/places",
              "models/names.py", "pipelines/relearning.py", "storage/position.py")  # fmt: skip


def _places(name: str, **more: object) -> Part:
    return _part(name, "bench_places", "places.json", *_OF_PLACES, "pipelines/own_photos", **more)


def _drives(name: str, **more: object) -> Part:
    sources = (*_OF_PLACES, "serving/answer.py", "serving/tracks", "pipelines/tracks")
    return _part(name, "bench_drives", "drives.json", *sources, **more)


def _known(name: str, **more: object) -> Part:
    sources = (*_OF_PLACES, "pipelines/calibration", "pipelines/evaluation", "pipelines/own_photos")
    return _part(name, "bench_known", "known.json", *sources, **more)


def _rerank(name: str, **more: object) -> Part:
    sources = (*_OF_PLACES, "pipelines/calibration", "pipelines/evaluation", "serving/answer.py",
               "serving/matching_options.py", "storage/calibration_file.py")  # fmt: skip
    return _part(name, "bench_rerank", "rerank.json", *sources, **more)


# In this order, the short ones first.
PARTS: tuple[Part, ...] = (
    _part("reading", "bench_reading", "reading.json", _STORED, "models/weights.py", "storage/layout.py",
          "storage/position.py", "storage/records.py"),
    _part("bucket", "bench_bucket", "bucket.json", _STORED, "models/weights.py", "storage/layout.py",
          "storage/objects", "storage/position.py", "storage/records.py"),
    _pipeline("commit"),
    _part("listing", "bench_listing", "listing.json", _INDEXING, "pipelines/sources"),
    _part("extract", "bench_extract", "extract.json", _MODEL, "storage/card.py"),
    _part("answer", "bench_answer", "answer.json", _MODEL, _ENCODED, _STORED, _MATCHING, _LEARNED,
          _ANSWERING, "serving/matching_options.py"),
    _part("waiting", "bench_waiting", "waiting.json", _MODEL, _ENCODED, _STORED, _MATCHING, _LEARNED,
          _ANSWERING),
    _part("matching", "bench_matching", "matching.json", _MODEL, _MATCHING,
          inputs=("{corridor}", "{city}")),
    _features("counts"),
    _part("train", "bench_train", "train.json", _MODEL, _TRAINING),
    _part("train side path", "bench_train", "train.json", _MODEL, _TRAINING,
          arguments=("--models", "side"), key=("results", "side")),
    _search(100_000),
    _part("living", "bench_living", "living.json", _STORED, "storage/search",
          arguments=("--rows", "1000000"), key=("measurements", "ivf 1,000,000")),
    _part("living 600 s", "bench_living", "living.json", _STORED, "storage/search",
          arguments=("--rows", "1000000", "--seconds", "600"),
          key=("measurements", "ivf 1,000,000, 600 s")),
    _living_service("living service 100000", 100_000, 60),
    _living_service("living service", 1_000_000, 600),
    _part("filters", "bench_filters", "filters.json", _STORED, "storage/search",
          arguments=("--rows", "1000000", "--methods", "ivf"), key=("measurements", "1,000,000")),
    _pipeline("feed"),
    _pipeline("memory"),
    _features("recall", "{corridor}", "{city}"),
    _part("index", "bench_index", "index.json", _MODEL, _ENCODED, _STORED, _INDEXING, _CITY,
          arguments=("--precisions", "fp32", "bf16"), key=("results",)),
    _part("index learning", "bench_index", "index.json", _MODEL, _ENCODED, _STORED, _INDEXING, _CITY,
          arguments=("--learning", "--counts", "4000"), key=("learning",)),
    _part("serve", "bench_serve", "serve.json", _MODEL, _ENCODED, _STORED, _MATCHING, _ANSWERING, _SERVING),
    _places("places", key=("city-0-10",)),
    _places("places corridor", inputs=("--dataset", "{corridor}"), key=("corridor",)),
    _part("accuracy", "bench_accuracy", "accuracy.json", _MODEL, _ENCODED, _MATCHING, _LEARNED, _CITY,
          inputs=("--photos", "{photos}"), key=("224",)),
    _part("sizes", "bench_sizes", "accuracy.json", _MODEL, _ENCODED, _MATCHING, _LEARNED, _CITY,
          inputs=("--photos", "{photos}"), key=("sizes",)),
    _part("layers", "bench_layers", "accuracy.json", _MODEL, _MATCHING, _LEARNED, _CITY, "storage/card.py",
          inputs=("--photos", "{photos}"), key=("layers",)),
    _drives("drives", key=("hard:0:night",)),
    _drives("drives corridor", inputs=("--dataset", "{corridor}"), key=("corridor",)),
    _part("priors", "bench_priors", "priors.json", _MODEL, _ENCODED, _STORED, _MATCHING, _LEARNED, _CITY,
          _ANSWERING, "serving/answer.py", "serving/places", "serving/priors", "serving/tracks",
          "models/names.py", "pipelines/tracks", "pipelines/relearning.py", "storage/position.py"),
    _known("known", key=("levels",)),
    _known("known corridor", inputs=("--dataset", "{corridor}", "--elsewhere", "{photos}/ie_tower"),
           key=("corridor",)),
    _rerank("rerank", key=("cities",)),
    _rerank("rerank photos", inputs=("--photos", "{photos}"), key=("photos",)),
    _finetune("vit"),
    _part("side path", "prove_side_path", "side_path.json", _MODEL, _TRAINING, _CITY),
    _part("values", "prove_values", "values.json", _MODEL, _ENCODED, _STORED, _MATCHING, _LEARNED, _CITY,
          _ANSWERING, _INDEXING, "serving/matching_options.py", "pipelines/evaluation", "pipelines/sources"),
    _codes(2_650_000),
    _codes(5_250_000),
    _codes(10_000_000),
    _finetune("corridor", "--photos", "{corridor}"),
    _finetune("demo"),
    _finetune("forgetting", "--photos", "{corridor}"),  # of the weights that demo makes
    _finetune("hard"),
    _search(1_000_000),
    _search_city(1_000_000, 512, "learned"),
    _search_city(2_650_000, 512, "learned"),
    _search_city(5_250_000, 512, "learned"),
    _search_city(2_650_000, 1024, "learned"),
    _search_city(5_250_000, 1024, "learned"),
    _search_city(2_650_000, 512, "uniform"),
    _search_city(5_250_000, 512, "uniform"),
    *(_search_city(2_650_000, 512, "learned", group) for group in _OTHERS),
    _part("vector index", "bench_vector_index", "vector_index.json", _STORED, "storage/search",
          "storage/care", "pipelines/vector_index", arguments=("--rows", "1000000"), key=("1000000",)),
    _features("dense", "{corridor}", "{city}"),
    _accelerator("extract"),
    _accelerator("matching"),
    _accelerator("train"),
)  # fmt: skip


def part_named(name: str) -> Part:
    """Return one part; KeyError lists the names there are."""
    for part in PARTS:
        if part.name == name:
            return part
    raise KeyError(f"no benchmark {name!r}; there are {', '.join(part.name for part in PARTS)}")


def _value(option: str, arguments: Sequence[str]) -> str | None:
    return arguments[arguments.index(option) + 1] if option in arguments[:-1] else None


def parts_touched(module: str, arguments: list[str]) -> list[Part]:
    """Return the parts whose figures this command may change."""
    of_module = [part for part in PARTS if part.module == module]
    of_table = [
        part
        for part in of_module
        if all(_value(name, part.arguments) == _value(name, arguments) for name in _TABLE)
    ]
    of_module = of_table or of_module
    return [
        part
        for part in of_module
        if part.arguments[:1] in ((), tuple(arguments[:1])) and part.flags <= set(arguments)
    ] or of_module
