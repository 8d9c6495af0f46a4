"""Loads the model that a reference names: its network with a card, after a self-test."""

from __future__ import annotations

import dataclasses

from models.card import make_card
from models.custom.definition import ModelDefinition
from models.custom.loading import build_module, fingerprint
from models.custom.network import OwnNetwork
from models.custom.reference import CUSTOM, TIMM, read_reference
from models.custom.self_test import self_test
from models.custom.timm_network import TimmOutputs, default_local, input_rule
from models.errors import BadImageSize
from storage.card import Card

__all__ = ["load_own"]

# Fingerprints of what passed in this process; a worker is told so by the reference.
_PASSED: set[str] = set()


def load_own(model: str) -> tuple[OwnNetwork, Card]:
    """Load a model of others, on the CPU in float32; the first time it must pass its self-test.

    Args:
        model: A reference, see `models.custom.reference`.

    Raises:
        BadModelFile, ModelUnfit, WeightsUnavailable, WeightsRejected: it cannot be used.
    """
    reference = read_reference(model)
    definition = reference.definition
    module = build_module(reference)
    digest = fingerprint(reference, module)
    if definition.loader == "timm":
        outputs = TimmOutputs(module)
        definition = _for_timm(definition, outputs)
        module = outputs
    assert definition.input is not None
    prefix = TIMM if reference.source.startswith(TIMM) else CUSTOM
    network = OwnNetwork(
        prefix + definition.name,
        module,
        taken=definition.input,
        output=definition.output,
        local=definition.local,
        singly=definition.batch == 1,
        source=reference.source,
    ).eval()
    if digest not in {*_PASSED, reference.tested}:
        self_test(
            network,
            source=reference.source,
            promised_dim=definition.output.dim,
            unit=not definition.output.normalise,
            multiple=definition.input.multiple_of,
        )
    _PASSED.add(digest)
    try:
        card = make_card(network, weights_sha256=digest)
    except ValueError as error:
        raise BadImageSize(f"{reference.source}: {error}") from error
    return network, card


def _for_timm(definition: ModelDefinition, outputs: TimmOutputs) -> ModelDefinition:
    local = definition.local
    if local is None:
        local = default_local(outputs)
    elif local.layer:
        local = dataclasses.replace(local, module=".".join(["network", local.module]).strip("."))
    return dataclasses.replace(
        definition,
        input=definition.input or input_rule(outputs.network),
        output=dataclasses.replace(definition.output, descriptor=0),
        local=local,
    )
