"""Builds the network that a reference describes, which runs code: of a hub, a module or a file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import logging
import sys
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoints.hub import pretrained
from models.checkpoints.safetensors_file import read_safetensors
from models.checkpoints.tensors import require_finite, weights_digest
from models.custom.errors import BadModelFile, ModelUnfit
from models.custom.reference import Reference
from models.errors import WeightsRejected, WeightsUnavailable
from models.names import DEFAULT_MODEL

__all__ = ["build_module", "fingerprint"]

_LOG = logging.getLogger("placeray.models")
_COPYLEFT = ("GPL", "NC", "NON-COMMERCIAL", "NONCOMMERCIAL")


def build_module(reference: Reference) -> nn.Module:
    """Build the network with its weights, on the CPU, in float32 and evaluation mode.

    Raises:
        BadModelFile: what the file names does not exist, or raises an error.
        WeightsUnavailable: there are no weights.
        WeightsRejected: the weights do not fit.
        ModelUnfit: the entry returned no torch module.
    """
    definition = reference.definition
    licence = definition.licence
    if any(word in licence.upper() for word in _COPYLEFT):
        _LOG.warning("%s: its licence is %s, mind what it asks of those who use it", definition.name, licence)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # layers that stay untrained are the same in every process
        module = {"hub": _from_hub, "timm": _from_timm, "file": _from_file, "python": _from_python}[
            definition.loader
        ](reference)
    if not isinstance(module, nn.Module):
        raise ModelUnfit(
            "model_not_a_module",
            f"{reference.source}: {definition.loader}:{definition.target} gives a {type(module).__name__}, "
            "not a torch.nn.Module: name a function that returns one",
        )
    if definition.weights is not None:
        _load_weights(module, definition.weights, left_out=_classifier(module))
    for weights in module.parameters():
        weights.requires_grad_(False)  # TorchScript has no requires_grad_ for a whole module
    return module.float().eval()


def fingerprint(reference: Reference, module: nn.Module) -> str:
    """Return the digest of what decides a model's output beside its preprocessing.

    Weights, loader and target, commit, source code, arguments, and how outputs are read.
    """
    definition = reference.definition
    said = {
        "model": f"{definition.loader}:{definition.target if definition.loader != 'file' else ''}",
        "commit": definition.commit,
        "arguments": definition.arguments,
        "batch": definition.batch,
        "output": repr(definition.output),
        "local": repr(definition.local),
        "sources": reference.sources,
    }
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode())
    digest.update(weights_digest(module.state_dict()).encode())
    return digest.hexdigest()


def _from_hub(reference: Reference) -> Any:
    definition = reference.definition
    repository, _, entry = definition.target.partition(":")
    _LOG.warning("%s runs code of github.com/%s at commit %s", definition.name, repository, definition.commit)
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.hub.load(  # type: ignore[no-untyped-call]
                f"{repository}:{definition.commit}",
                entry,
                **definition.arguments,
                source="github",
                trust_repo=True,
                skip_validation=True,
                verbose=False,
            )
    except Exception as error:  # code of others, and clients of the network
        raise BadModelFile(
            f"{reference.source}: {definition.target} at {definition.commit} could not be loaded "
            f"({type(error).__name__}: {error}): check network, commit and entry, or fill torch's hub cache"
        ) from error


def _from_timm(reference: Reference) -> Any:
    import timm

    definition = reference.definition
    if not timm.is_model(definition.target.partition(".")[0]):
        raise BadModelFile(f"timm has no model {definition.target}: see timm.list_models(), or upgrade timm")
    options = dict(definition.arguments)
    try:
        if definition.weights is not None:
            return _create(definition.target, pretrained=False, **options)
        return pretrained(definition.target, _create, **options)
    except Exception as error:  # hub clients raise exceptions of many libraries
        raise WeightsUnavailable(
            f"the weights of timm:{definition.target} are not available ({type(error).__name__}: the hub "
            "needs the network or a filled cache): give a file with --weights FILE.safetensors or weights = "
            f'"FILE.safetensors" in a model file, or use the offline default model {DEFAULT_MODEL}'
        ) from error


def _create(name: str, **options: Any) -> Any:
    """Create timm's network without a classifier, for inputs of any size where it can."""
    import timm

    try:
        return timm.create_model(name, num_classes=0, dynamic_img_size=True, **options)
    except TypeError:  # not a vision transformer
        return timm.create_model(name, num_classes=0, **options)


def _from_file(reference: Reference) -> Any:
    path = reference.definition.target
    _LOG.warning("%s runs the program in %s", reference.definition.name, path)
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise BadModelFile(
            f"{path} is not a TorchScript file ({str(error).splitlines()[0][:200]}): save the network with "
            "torch.jit.save, or describe it by python:MODULE:FUNCTION"
        ) from error


def _from_python(reference: Reference) -> Any:
    definition = reference.definition
    module_name, _, function = definition.target.partition(":")
    _LOG.warning("%s runs code of the Python module %s", definition.name, module_name)
    try:
        module = _import(module_name, reference.sources)
        return getattr(module, function)(**definition.arguments)
    except Exception as error:  # code of others
        raise BadModelFile(
            f"{reference.source}: {definition.target} could not be run ({type(error).__name__}: {error}): "
            "correct the module or its arguments"
        ) from error


def _import(name: str, sources: dict[str, str]) -> types.ModuleType:
    """Import a module from its source, under its own name; of another version it is imported again."""
    if not sources:
        return importlib.import_module(name)
    finder = _Finder(sources)
    for loaded in [key for key in sys.modules if key in sources]:
        if getattr(sys.modules[loaded], "__placeray_source__", None) != sources[loaded]:
            del sys.modules[loaded]
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(name)
    finally:
        # Kept at the end, for modules that import others of theirs later.
        sys.meta_path.remove(finder)
        sys.meta_path.append(finder)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds modules in a mapping of sources."""

    def __init__(self, sources: dict[str, str]) -> None:
        self._sources = sources

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._sources:
            return None
        package = any(other.startswith(f"{name}.") for other in self._sources)
        return importlib.util.spec_from_loader(name, self, is_package=package)

    def get_source(self, fullname: str) -> str:
        return self._sources[fullname]

    def exec_module(self, module: types.ModuleType) -> None:
        module.__placeray_source__ = self._sources[module.__name__]  # type: ignore[attr-defined]
        super().exec_module(module)


def _classifier(module: nn.Module) -> tuple[str, ...]:
    """Return the names of timm's classifier, which its published files hold and a backbone leaves out."""
    named = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _load_weights(module: nn.Module, path: str, *, left_out: tuple[str, ...]) -> None:
    """Load a file that has every tensor of the network, and no other than those of modules `left_out`."""
    if not Path(path).is_file():
        raise WeightsUnavailable(
            f"the weights {path} are not a file: give a safetensors file with --weights or in the model file"
        )
    tensors = read_safetensors(path)
    require_finite(tensors)
    own = module.state_dict().keys()
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if name in own or name.rpartition(".")[0] not in left_out
    }
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise WeightsRejected(
            "wrong_shapes",
            f"{path} does not fit the network ({first[:300]}): give the weights of this network",
        ) from error
