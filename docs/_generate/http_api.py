"""Write reference/http.md: the routes of the service, read off its OpenAPI description."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mkdocs_gen_files

from serving.http.routes import build_routes
from serving.settings import ServeSettings

INTRODUCTION = Path("docs/_generate/http_introduction.md")


def description() -> dict[str, Any]:
    """Return the OpenAPI description of a service with default settings; no store and no model is opened."""
    service: Any = SimpleNamespace(settings=ServeSettings(store="city"), gallery=None)
    described: dict[str, Any] = build_routes(service, closed=True).openapi()
    return described


def type_of(schema: dict[str, Any]) -> str:
    """Return a schema as a short type."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(type_of(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if schema.get("type") == "object" and "additionalProperties" in schema:
        return f"object of {type_of(schema['additionalProperties'])}"
    return {"null": "null"}.get(schema.get("type", ""), schema.get("type", "any"))


def bounds(schema: dict[str, Any]) -> str:
    """Return what a parameter may be."""
    parts = []
    if "minimum" in schema or "maximum" in schema:
        parts.append(f"{schema.get('minimum', '')} to {schema.get('maximum', '')}")
    if "maxLength" in schema:
        parts.append(f"{schema.get('minLength', 0)} to {schema['maxLength']} characters")
    return f"{type_of(schema)}{', ' if parts else ''}{'; '.join(parts)}"


def operation(path: str, method: str, said: dict[str, Any]) -> str:
    """Return the section of one route."""
    text = f"### {method.upper()} {path}\n\n{said['summary']}.\n\n"
    if said.get("security") == []:
        text += "Open without a token.\n\n"
    for requirement in said.get("security", ()):
        text += f"Where tokens are required: role `{requirement['bearer'][0]}` or `admin`.\n\n"
    if parameters := said.get("parameters"):
        text += "| query parameter | type | default | meaning |\n|---|---|---|---|\n"
        for one in parameters:
            default = json.dumps(one["schema"]["default"]) if "default" in one["schema"] else "required"
            text += (
                f"| `{one['name']}` | {bounds(one['schema'])} | {default} | {one.get('description', '')} |\n"
            )
        text += "\n"
    if body := said.get("requestBody"):
        kinds = ", ".join(f"`{kind}`" for kind in body["content"])
        text += f"Request body: {body['description']} Content types: {kinds}.\n\n"
    text += "| status | body | meaning |\n|---|---|---|\n"
    for status, answer in sorted(said["responses"].items()):
        content = answer.get("content", {})
        shapes = [
            type_of(one["schema"]) if "$ref" in one.get("schema", {}) else f"`{kind}`"
            for kind, one in content.items()
        ]
        text += f"| {status} | {', '.join(shapes)} | {answer.get('description', '')} |\n"
    return text + "\n"


def shape(name: str, schema: dict[str, Any]) -> str:
    """Return the section of one JSON object."""
    text = f"### {name}\n\n{schema.get('description', '')}\n\n| field | type | meaning |\n|---|---|---|\n"
    for field, one in schema.get("properties", {}).items():
        text += f"| `{field}` | {type_of(one)} | {one.get('description', '')} |\n"
    return text + "\n"


def page() -> str:
    """Return the whole page."""
    described = description()
    text = INTRODUCTION.read_text() + "\n## Routes\n\n"
    for path, item in described["paths"].items():
        for method, said in item.items():
            text += operation(path, method, said)
    text += "## JSON objects\n\n"
    for name, schema in described["components"]["schemas"].items():
        text += shape(name, schema)
    return text


with mkdocs_gen_files.open("reference/http.md", "w") as file:
    file.write(page())
