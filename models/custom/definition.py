"""Model files: what a TOML file says about a network. Imports no torch, and runs no code.

docs/guides/own-model.md describes the file.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.custom.errors import BadModelFile
from storage.card import Preprocessing

__all__ = ["LOADERS", "InputRule", "LocalRule", "ModelDefinition", "OutputRule", "parse_definition"]

LOADERS = ("hub", "timm", "file", "python")
_MAX_BYTES = 1 << 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,80}", re.ASCII)
_TARGETS = {
    "hub": (re.compile(r"[\w.-]+/[\w.-]+:\w+", re.ASCII), "hub:OWNER/REPO:ENTRY"),
    "timm": (re.compile(r"[\w.+-]+", re.ASCII), "timm:NAME"),
    "file": (re.compile(r"[^\0]+"), "file:PATH"),
    "python": (re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"), "python:MODULE:FUNCTION"),
}
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_RESIZES = ("pil_bilinear", "tensor_bilinear", "tensor_antialiased")
_MAX_SIDE, _MAX_DIM = 4096, 1 << 16


@dataclass(frozen=True)
class InputRule:
    """What the network takes.

    Attributes:
        preprocessing: Size and statistics of its input.
        multiple_of: Both sides are multiples of it; 0: only the size of `preprocessing` is taken.
    """

    preprocessing: Preprocessing
    multiple_of: int


@dataclass(frozen=True)
class OutputRule:
    """How the descriptor is read.

    Attributes:
        descriptor: Index or key in the network's output; None: the output itself.
        dim: Width that the file promises; None: whatever it is.
        normalise: Whether it is divided by its norm; otherwise it must have unit norm.
    """

    descriptor: int | str | None = None
    dim: int | None = None
    normalise: bool = False


@dataclass(frozen=True)
class LocalRule:
    """Where local features come from.

    Attributes:
        output: Index or key of a map (B, C, H, W) in the network's output; None: a layer gives them.
        module: Dotted path of the vision transformer inside the network, for `layer`; empty: itself.
        layer: Values of `models.networks.local_layer.LocalLayer`, for a layer.
        min_similarity: Mutual neighbours below are not counted; None: all are.
    """

    output: int | str | None = None
    module: str = ""
    layer: dict[str, Any] = field(default_factory=dict)
    min_similarity: float | None = None


@dataclass(frozen=True)
class ModelDefinition:
    """A model as its file describes it.

    Attributes:
        name: For the card.
        loader: One of `LOADERS`.
        target: What follows the loader's colon.
        commit: Of a hub repository.
        arguments: Keyword arguments of the entry or function.
        weights: Path of a safetensors file that is loaded into the network; None: it brings its own.
        licence: As the file says; empty: it says nothing.
        batch: 1 where photos must be run one by one; 0: in any number.
        input: What it takes; None: as timm says, for `timm`.
        output: How the descriptor is read.
        local: Where local features come from; None: there are none, or those of a `timm` network.
    """

    name: str
    loader: str
    target: str
    commit: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    licence: str = ""
    batch: int = 0
    input: InputRule | None = None
    output: OutputRule = OutputRule()
    local: LocalRule | None = None


def parse_definition(text: str, source: str) -> ModelDefinition:
    """Read a model file.

    Args:
        text: Its contents.
        source: Its path, for messages and for the paths in it, which are relative to its folder.

    Raises:
        BadModelFile: it is not TOML, or does not describe a model.
    """
    if len(text) > _MAX_BYTES:
        raise BadModelFile(f"{source} is larger than a model file: give the TOML file itself")
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadModelFile(f"{source} is not TOML ({error}): correct it") from error
    reader = _Reader(source)
    try:
        return reader.definition(values)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadModelFile):
            raise
        raise BadModelFile(f"{source}: {error}: see the page of own models in the documentation") from error


class _Reader:
    """Reads the tables of one file."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._folder = Path(source).parent

    def definition(self, values: dict[str, Any]) -> ModelDefinition:
        self._known(
            values,
            "the file",
            *("name", "model", "commit", "arguments", "weights", "licence", "batch", "input", "output"),
            "local",
        )
        loader, target = self._target(values)
        name = values.get("name", Path(self._source).stem)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise self._bad(f"name {name!r} is not of letters, digits and . _ + -", "choose another name")
        batch = values.get("batch", 0)
        if batch not in (0, 1):
            raise self._bad(f"batch is {batch!r}", "give 1, or leave it out")
        weights = values.get("weights")
        licence = values.get("licence", "")
        if not isinstance(licence, str) or not isinstance(weights, str | None):
            raise self._bad("licence and weights are texts", "quote them")
        return ModelDefinition(
            name=name,
            loader=loader,
            target=target,
            commit=self._commit(loader, values.get("commit")),
            arguments=dict(values.get("arguments", {})),
            weights=None if weights is None else str((self._folder / weights).resolve()),
            licence=licence[:200],
            batch=batch,
            input=self._input(loader, values.get("input")),
            output=self._output(loader, values.get("output", {})),
            local=self._local(values.get("local")),
        )

    def _target(self, values: dict[str, Any]) -> tuple[str, str]:
        loader, _, target = str(values.get("model", "")).partition(":")
        forms = ", ".join(form for _, form in _TARGETS.values())
        if loader not in _TARGETS or not _TARGETS[loader][0].fullmatch(target):
            raise self._bad(f"model {values.get('model')!r} is not of a form that is known", f"give {forms}")
        if loader == "file":
            target = str((self._folder / target).resolve())
        return loader, target

    def _commit(self, loader: str, commit: object) -> str | None:
        if loader != "hub":
            return None
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise self._bad(
                "code from a hub runs at a pinned commit alone",
                'add commit = "..." with its 40 hexadecimal digits',
            )
        return commit

    def _input(self, loader: str, values: dict[str, Any] | None) -> InputRule | None:
        if values is None:
            if loader == "timm":
                return None
            raise self._bad("[input] is missing", "add it with the size")
        self._known(values, "[input]", "size", "multiple_of", "resize", "mean", "std")
        size = values.get("size")
        sides = [size, size] if isinstance(size, int) else size
        if not isinstance(sides, list) or len(sides) != 2 or not all(self._side(side) for side in sides):
            raise self._bad(f"input size {size!r} is not [HEIGHT, WIDTH] in pixels", "give two whole numbers")
        multiple = values.get("multiple_of", 0)
        if type(multiple) is not int or multiple < 0 or (multiple and any(side % multiple for side in sides)):
            raise self._bad(f"the size is not a multiple of {multiple!r}", "correct size or multiple_of")
        resize = values.get("resize", "pil_bilinear")
        if resize not in _RESIZES:
            raise self._bad(f"resize {resize!r} is unknown", f"give one of {', '.join(_RESIZES)}")
        mean = self._three(values.get("mean", list(_IMAGENET[0])), -1e3)
        std = self._three(values.get("std", list(_IMAGENET[1])), 1e-6)
        return InputRule(Preprocessing(resize, sides[0], sides[1], mean, std), multiple)

    @staticmethod
    def _side(side: object) -> bool:
        return type(side) is int and 0 < side <= _MAX_SIDE

    def _three(self, values: object, lowest: float) -> tuple[float, float, float]:
        if not isinstance(values, list) or len(values) != 3:
            raise self._bad("mean and std are three numbers each", "give one for each of R, G, B")
        first, second, third = (float(value) for value in values)
        if not all(lowest <= value <= 1e3 for value in (first, second, third)):
            raise self._bad(f"{values} is out of range", "give values for pixels scaled to 0..1")
        return first, second, third

    def _output(self, loader: str, values: dict[str, Any]) -> OutputRule:
        self._known(values, "[output]", "descriptor", "dim", "normalise")
        dim = values.get("dim")
        if dim is not None and (type(dim) is not int or not 0 < dim <= _MAX_DIM):
            raise self._bad(f"dim is {dim!r}", "give the width of the descriptor")
        normalise = values.get("normalise", loader == "timm")
        if not isinstance(normalise, bool):
            raise self._bad(f"normalise is {normalise!r}", "give true or false")
        return OutputRule(self._selector(values.get("descriptor")), dim, normalise)

    def _selector(self, value: object) -> int | str | None:
        if value is None or isinstance(value, str) or type(value) is int:
            return value
        raise self._bad(f"{value!r} selects no output", "give an index or a key")

    def _local(self, values: dict[str, Any] | None) -> LocalRule | None:
        if values is None:
            return None
        self._known(
            values, "[local]", "output", "module", "layer", "part", "attended_share", "min_similarity"
        )
        floor = values.get("min_similarity")
        if floor is not None and not -1 <= float(floor) <= 1:
            raise self._bad(f"min_similarity is {floor!r}", "give a cosine similarity")
        layer: dict[str, Any] = {
            name: value for name, value in values.items() if name in ("layer", "part", "attended_share")
        }
        if ("output" in values) == bool(layer):
            raise self._bad("[local] takes an output or a layer", "give one of them")
        if layer:
            self._check_layer(layer, floor)
            if floor is not None:
                layer["min_similarity"] = float(floor)
        return LocalRule(
            self._selector(values.get("output")),
            str(values.get("module", "")),
            layer,
            None if floor is None else float(floor),
        )

    def _check_layer(self, layer: dict[str, Any], floor: object) -> None:
        share = layer.get("attended_share", 0.5)
        if type(layer.get("layer", 0)) is not int or not 0 < float(share) <= 1:
            raise self._bad(f"[local] {layer} is not a layer", "give layer = -2, and a share above 0")
        if layer.get("part", "value") not in ("value", "key", "query"):
            raise self._bad(f"part {layer['part']!r} is unknown", "give value, key or query")
        if floor is not None and float(str(floor)) <= 0:
            raise self._bad("min_similarity of a layer is above 0", "leave it out for 0.65")

    def _known(self, values: object, where: str, *names: str) -> None:
        if not isinstance(values, dict):
            raise self._bad(f"{where} is not a table", "write it as one")
        if unknown := sorted(set(values) - set(names)):
            raise self._bad(f"{where} has the unknown entry {unknown[0]!r}", f"it knows {', '.join(names)}")

    def _bad(self, problem: str, advice: str) -> BadModelFile:
        return BadModelFile(f"{self._source}: {problem}: {advice}")
