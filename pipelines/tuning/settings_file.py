"""Settings of a service as YAML, with the keys of `args:` in a Serve config file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.settings import InvalidSettings, ServeSettings
from storage.durable import replace_file
from storage.text import plain

__all__ = ["read_settings_file", "settings_text", "write_settings_file"]

_MAX_BYTES = 1 << 20


def settings_text(values: Mapping[str, Any], comments: Sequence[str] = ()) -> str:
    """Return settings as YAML, comments first; None is left out."""
    lines = [f"# {plain(comment, 300)}" for comment in comments]
    lines += [f"{name}: {json.dumps(value)}" for name, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def write_settings_file(path: Path, values: Mapping[str, Any], comments: Sequence[str]) -> None:
    """Write settings, whole or not at all.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the file cannot be written.
    """
    replace_file(path, settings_text(values, comments).encode())


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """Read settings from YAML: a mapping of settings, or a Serve config file with one application.

    Raises:
        InvalidSettings: the file cannot be read, or has something else than settings.
    """
    import yaml

    try:
        file = Path(path).expanduser()
        if file.stat().st_size > _MAX_BYTES:
            raise InvalidSettings(f"{path} is too large for settings: give a file that placeray tune wrote")
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be read ({error.strerror}): check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSettings(f"{path} is not YAML ({plain(str(error), 200)}): correct it") from error
    if isinstance(values, dict) and isinstance(values.get("applications"), list):
        applications = values["applications"]
        if len(applications) != 1 or not isinstance(applications[0], dict):
            raise InvalidSettings(f"{path} has not one application: give the settings of one service")
        values = applications[0].get("args", {})
    if not isinstance(values, dict):
        raise InvalidSettings(f"{path} is not a mapping of settings: write one `name: value` per line")
    unknown = sorted(str(name) for name in values if name not in ServeSettings.model_fields)
    if unknown:
        raise InvalidSettings(
            f"{path} has unknown settings ({plain(', '.join(unknown), 200)}): see placeray serve --help"
        )
    return dict(values)
