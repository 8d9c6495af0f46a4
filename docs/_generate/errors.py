"""Write reference/errors.md: exit codes, error classes and reasons, read from the source, not imported."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import mkdocs_gen_files

TEXT = Path("docs/_generate/errors_text.md").read_text()
PACKAGES = ("storage", "models", "serving", "pipelines", "placeray")
FIELDS = ("reason", "exit_code", "http_status", "http_reason")


@dataclass
class ErrorClass:
    """What the source says about one class of errors."""

    module: str
    about: str
    bases: list[str]
    own: dict[str, object] = field(default_factory=dict)
    reasons: set[str] = field(default_factory=set)


def constant(node: ast.expr) -> object:
    """Return the value of a literal; None for anything else."""
    return node.value if isinstance(node, ast.Constant) else None


def sources() -> dict[str, ast.Module]:
    """Return the syntax tree of each module."""
    return {
        ".".join(path.with_suffix("").parts): ast.parse(path.read_text())
        for package in PACKAGES
        for path in sorted(Path(package).rglob("*.py"))
    }


def classes(trees: dict[str, ast.Module]) -> dict[str, ErrorClass]:
    """Return every class that descends from PlacerayError, by name."""
    found: dict[str, ErrorClass] = {}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                made = ErrorClass(
                    module,
                    (ast.get_docstring(node) or "").split("\n\n")[0],
                    [ast.unparse(base) for base in node.bases],
                )
                for line in node.body:
                    target = line.target if isinstance(line, ast.AnnAssign) else None
                    if isinstance(line, ast.Assign) and len(line.targets) == 1:
                        target = line.targets[0]
                    value = getattr(line, "value", None)
                    if isinstance(target, ast.Name) and target.id in FIELDS and value is not None:
                        made.own[target.id] = constant(value)
                found[node.name] = made
    return {name: one for name, one in found.items() if descends(name, "PlacerayError", found)}


def descends(name: str, ancestor: str, known: dict[str, ErrorClass]) -> bool:
    """Return whether a class is another or inherits from it."""
    if name == ancestor:
        return True
    return name in known and any(descends(base, ancestor, known) for base in known[name].bases)


def inherited(name: str, wanted: str, known: dict[str, ErrorClass]) -> object:
    """Return a class attribute, the class's own or its nearest base's."""
    if name not in known:
        return None
    if wanted in known[name].own:
        return known[name].own[wanted]
    return next(
        (value for base in known[name].bases if (value := inherited(base, wanted, known)) is not None), None
    )


def collect_reasons(trees: dict[str, ast.Module], known: dict[str, ErrorClass]) -> dict[int, set[str]]:
    """Add to each class the reasons it is raised with; return those of the service alone, by status."""
    refusals: dict[int, set[str]] = defaultdict(set)
    for tree in trees.values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = ast.unparse(node.func).rsplit(".", 1)[-1]
            first = constant(node.args[0])
            if called in known and descends(called, "RejectedError", known) and isinstance(first, str):
                known[called].reasons.add(first)
            elif isinstance(first, int) and 400 <= first < 600 and len(node.args) > 2:
                reason = constant(node.args[1])
                if isinstance(reason, str) and re.fullmatch("[a-z_]+", reason):
                    refusals[first].add(reason)
    return refusals


def page() -> str:
    """Return the whole page."""
    trees = sources()
    known = classes(trees)
    refusals = collect_reasons(trees, known)
    lines = []
    for name, one in sorted(known.items(), key=lambda item: (item[1].module, item[0])):
        if name in ("PlacerayError", "RejectedError", "StoreError"):
            continue
        reasons = (
            ", ".join(f"`{reason}`" for reason in sorted(one.reasons))
            or f"`{inherited(name, 'reason', known)}`"
        )
        status = inherited(name, "http_status", known)
        public = inherited(name, "http_reason", known)
        shown = "" if status is None else f"{status}" + (f" `{public}`" if public else "")
        lines.append(
            f"| `{name}` | {reasons} | {inherited(name, 'exit_code', known)} | {shown} | {one.about} |"
        )
    answers = [
        f"| {status} | {', '.join(f'`{reason}`' for reason in sorted(reasons))} |"
        for status, reasons in sorted(refusals.items())
    ]
    return TEXT.replace("{classes}", "\n".join(lines)).replace("{refusals}", "\n".join(answers))


with mkdocs_gen_files.open("reference/errors.md", "w") as file:
    file.write(page())
