"""References to models of others: a TOML file, `timm:NAME`, or a text that carries all that is needed.

A reference that is carried holds the model file and the source code of its Python modules, so that Ray's
workers and the replicas of a service build the same network without reading the file. Imports no torch.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sysconfig
from dataclasses import dataclass, field, replace
from pathlib import Path

from models.custom.definition import ModelDefinition, parse_definition
from models.custom.errors import BadModelFile
from storage.card import Card

__all__ = [
    "CUSTOM",
    "TIMM",
    "Reference",
    "carried",
    "is_reference",
    "portable_model",
    "read_reference",
    "shown",
]

CUSTOM, TIMM = "custom:", "timm:"  # beginnings of names on cards
_CARRIED = "own-model:"
_MAX_SOURCES = 4 << 20


@dataclass(frozen=True)
class Reference:
    """A model to load.

    Attributes:
        source: The file's path, or the name, for messages.
        definition: What it says.
        sources: Source code by name of the module, of a `python:` model that is not an installed package.
        tested: Fingerprint of the model that passed its self-test; empty: it has not been tested.
    """

    source: str
    definition: ModelDefinition
    text: str
    sources: dict[str, str] = field(default_factory=dict)
    tested: str = ""


def is_reference(model: str) -> bool:
    """Return whether a value of --model is one of these, rather than a name or a weights file of placeray."""
    is_file = model.endswith(".toml") and not model.startswith(CUSTOM)  # as stores name such models
    return is_file or model.startswith((TIMM, _CARRIED))


def shown(model: str) -> str:
    """Return a value of --model as messages show it."""
    return str(json.loads(model.removeprefix(_CARRIED))["source"]) if model.startswith(_CARRIED) else model


def read_reference(model: str, *, weights: str | None = None) -> Reference:
    """Read what a value of --model refers to.

    Args:
        model: See `is_reference`.
        weights: A safetensors file that replaces the one of the model file.

    Raises:
        BadModelFile: the file cannot be read, or does not describe a model.
    """
    if model.startswith(_CARRIED):
        values = json.loads(model.removeprefix(_CARRIED))
        definition = parse_definition(values["text"], values["source"])
        weights, sources, tested = values["weights"], values["sources"], values["tested"]
        reference = Reference(values["source"], definition, values["text"], sources, tested)
    elif model.startswith(TIMM):
        text = f"model = {json.dumps(model)}\nname = {json.dumps(model.removeprefix(TIMM))}\n"
        reference = Reference(model, parse_definition(text, model), text)
    else:
        path = Path(model).resolve()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadModelFile(f"{model} cannot be read ({error}): give the path of a model file") from error
        definition = parse_definition(text, str(path))
        reference = Reference(str(path), definition, text, _sources(definition, path.parent))
    if weights is not None:
        path = Path(weights).resolve()
        reference = replace(reference, definition=replace(reference.definition, weights=str(path)))
    return reference


def carried(reference: Reference) -> str:
    """Return a value of --model that holds the reference; weights stay a path."""
    return _CARRIED + json.dumps(
        {
            "source": reference.source,
            "text": reference.text,
            "weights": reference.definition.weights,
            "sources": reference.sources,
            "tested": reference.tested,
        }
    )


def portable_model(model: str, card: Card) -> str:
    """Return a value of --model for workers, which need neither its file nor a second self-test.

    Args:
        model: A value of --model; anything but a reference is returned as it is.
        card: Of the model, as it was loaded here.
    """
    if not is_reference(model):
        return model
    return carried(replace(read_reference(model), tested=card.weights_sha256))


def _sources(definition: ModelDefinition, folder: Path) -> dict[str, str]:
    """Return the source code of a `python:` module, or of its whole package, unless it is installed."""
    if definition.loader != "python":
        return {}
    module = definition.target.partition(":")[0]
    top = module.partition(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(top, [str(folder)]) or importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise BadModelFile(
            f"{folder} has no Python module {top}, and none is installed: put it beside the model file"
        )
    origin = Path(spec.origin)
    installed = {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")}
    if any(origin.is_relative_to(path) for path in installed):
        return {}
    if spec.submodule_search_locations is None:
        files = {top: origin}
    else:
        root = origin.parent
        files = {_module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    sources = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    if sum(map(len, sources.values())) > _MAX_SOURCES:
        raise BadModelFile(f"{origin.parent} has over 4 MB of Python code: install it as a package instead")
    return sources


def _module_name(path: Path, root: Path) -> str:
    parts = [root.name, *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
