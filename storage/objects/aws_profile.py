"""Credentials of a profile in the files of the AWS command line, which obstore's own chain leaves out.

Lance and the AWS tools look there after the environment; without this a store could be opened by half.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storage.objects.errors import StorageForbidden

__all__ = ["profile_credentials"]

_READ_AGAIN = timedelta(minutes=5)  # somebody may have renewed them
_KEYS = ("aws_access_key_id", "aws_secret_access_key")


def profile_credentials(environment: Mapping[str, str] = os.environ) -> Callable[[], Any] | None:
    """Return what gives obstore the keys of the profile that is in force; None where there is none.

    The environment comes first, as in every AWS tool: with AWS_ACCESS_KEY_ID no profile is looked at.

    Args:
        environment: With AWS_PROFILE, or the profile `default` counts; AWS_SHARED_CREDENTIALS_FILE and
            AWS_CONFIG_FILE name other files than those in `~/.aws`.

    Raises:
        StorageForbidden: AWS_PROFILE names a profile that has no keys.
    """
    if environment.get("AWS_ACCESS_KEY_ID"):
        return None
    named = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    if _keys(named or "default", environment) is None:
        if named:
            raise StorageForbidden(
                f"the profile {named[:60]!r} that AWS_PROFILE names has no access key in the files of AWS: "
                'correct the name, or, for a profile with a role or a sign-on, run eval "$(aws configure '
                'export-credentials --format env)" first'
            )
        return None

    def give() -> dict[str, Any]:
        values = _keys(named or "default", environment) or {}
        return {
            "access_key_id": values.get(_KEYS[0], ""),
            "secret_access_key": values.get(_KEYS[1], ""),
            "token": values.get("aws_session_token"),
            "expires_at": datetime.now(UTC) + _READ_AGAIN,
        }

    return give


def _keys(profile: str, environment: Mapping[str, str]) -> Mapping[str, str] | None:
    files = (
        (environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials", profile),
        (
            environment.get("AWS_CONFIG_FILE") or "~/.aws/config",
            profile if profile == "default" else f"profile {profile}",
        ),
    )
    for name, section in files:
        file = configparser.RawConfigParser(default_section="")
        try:
            file.read_string(Path(name).expanduser().read_text())
        except (OSError, RuntimeError, UnicodeDecodeError, configparser.Error):
            continue
        if file.has_section(section) and all(file.get(section, key, fallback="") for key in _KEYS):
            return dict(file.items(section))
    return None
