"""Write reference/settings.md: the settings of the service, read off their pydantic models."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import mkdocs_gen_files
from pydantic import BaseModel

from serving.settings import Scale, ServeSettings

INTRODUCTION = """# Service settings

The settings of the service, as `args` of a Serve config file (`deploy/serve.yaml`) takes them.
`placeray serve` has a flag for most of them with dashes for underscores (`--refresh-s`), see
[Command line](cli.md#serve). An unknown
setting or a value out of bounds is refused before anything starts.

"""


def type_name(kind: Any) -> str:
    """Return an annotation as text."""
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {type_name(get_args(kind)[0])}"
    if get_origin(kind) is not None:
        return " or ".join("none" if one is type(None) else type_name(one) for one in get_args(kind))
    return "[Scale](#scale)" if kind is Scale else f"{kind.__name__}"


def table(model: type[BaseModel]) -> str:
    """Return one line for each setting."""
    text = "| setting | type | default | bounds | meaning |\n|---|---|---|---|---|\n"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    for name, field in model.model_fields.items():
        limits = [
            f"{sign} {getattr(rule, word)}"
            for rule in field.metadata
            for word, sign in signs.items()
            if hasattr(rule, word)
        ]
        default = "required" if field.is_required() else field.get_default()
        if isinstance(default, BaseModel):
            default = "one replica"
        shown = {None: "none", "": "empty", (): "empty"}.get(default, default)
        text += (
            f"| `{name}` | {type_name(field.annotation)} | {shown} | {', '.join(limits)} | "
            f"{field.description} |\n"
        )
    return text


with mkdocs_gen_files.open("reference/settings.md", "w") as file:
    file.write(
        f"{INTRODUCTION}{table(ServeSettings)}\n## Scale\n\nReplicas of one deployment.\n\n{table(Scale)}"
    )
