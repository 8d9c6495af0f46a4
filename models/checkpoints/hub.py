"""Pretrained networks from timm's hub, without a minute of retries where the hub cannot be reached."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import timm

__all__ = ["pretrained"]

_ATTEMPT_S = 10.0


def pretrained(name: str, create: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Return a pretrained network by timm's name: from the hub or, where that cannot be reached, its cache.

    Args:
        name: timm's name, with or without a tag.
        create: What makes the network, with the arguments of `timm.create_model`, which is the default.
        **options: Further arguments of `create`.

    Raises:
        Exception: of timm or its hub client: neither hub nor cache has the weights.
    """
    with contextlib.nullcontext() if _hub_answers(name) else _cache_alone():
        return (create or timm.create_model)(name, pretrained=True, **options)


def _hub_answers(name: str) -> bool:
    """Return whether the hub can be reached, by one attempt; its client would try for a minute."""
    import huggingface_hub

    config = timm.get_pretrained_cfg(name)
    repository = getattr(config, "hf_hub_id", None)
    if not repository or huggingface_hub.constants.HF_HUB_OFFLINE:
        return True  # nothing to find out
    try:
        huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(repository, "config.json"), timeout=_ATTEMPT_S
        )
    except huggingface_hub.errors.HfHubHTTPError:
        return True  # it says why
    except Exception:  # of the HTTP library: no name, no route, refused, timed out
        return False
    return True


@contextlib.contextmanager
def _cache_alone() -> Iterator[None]:
    """Have the hub's client look into its cache alone, as its HF_HUB_OFFLINE=1 does from the start."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False
