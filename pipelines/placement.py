"""Where the workers of a stage may run: custom resources they take, and labels that a node must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ANYWHERE", "Placement", "parse_labels", "parse_resources"]


@dataclass(frozen=True)
class Placement:
    """What one worker needs beside CPU cores and GPUs.

    Attributes:
        resources: Custom resources of Ray that it takes, by name.
        labels: Labels that its node must have, by key.
    """

    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Return whether a node with these labels may run it."""
        return all(labels.get(key) == value for key, value in self.labels.items())


ANYWHERE = Placement()


def parse_resources(text: str) -> dict[str, float]:
    """Return resources given as `NAME=AMOUNT,NAME=AMOUNT`.

    Raises:
        ValueError: the text has another form, or an amount is not above 0.
    """
    resources = {name: float(amount) for name, amount in _pairs(text)}
    if any(name in ("CPU", "GPU", "memory") or not 0 < amount < 1e6 for name, amount in resources.items()):
        raise ValueError(f"{text!r} is not NAME=AMOUNT with a custom resource and an amount above 0")
    return resources


def parse_labels(text: str) -> dict[str, str]:
    """Return labels given as `KEY=VALUE,KEY=VALUE`.

    Raises:
        ValueError: the text has another form.
    """
    return dict(_pairs(text))


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(key.strip() and equals and value.strip() for key, equals, value in pairs):
        raise ValueError(f"{text!r} is not NAME=VALUE,NAME=VALUE")
    return [(key.strip(), value.strip()) for key, _, value in pairs]
