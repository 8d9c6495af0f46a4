"""Write reference/python.md: the public classes and functions, whose docstrings mkdocstrings reads."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import MISSING, fields
from pathlib import Path

import mkdocs_gen_files

import placeray
from pipelines.training.settings import TrainingSettings

PACKAGES = ("storage", "models", "serving", "pipelines", "placeray")
PUBLIC = Path("placeray/__init__.py")
INTRODUCTION = """# Python API

Import these names from `placeray`, unless the entry says otherwise. By example:
[Use it from Python](../guides/python.md).

"""
SECTIONS = {
    "Querying": ("QueryEngine", "QueryResult", "Match", "plot_matches", "PlaceClient"),
    "What is already known": (
        *("Near", "Inside", "inside_geojson", "Heading", "Taken", "Tagged", "AllOf", "SoftPrior"),
    ),
    "Whole jobs": ("index", "IndexReport", "evaluate", "compare", "finetune", "TrainingSettings"),
    "Stores": ("Store", "Candidate", "Position"),
    "Models and images": ("load_extractor", "Extractor", "decode_image", "mutual_nn_count"),
    "Errors": ("PlacerayError",),
}
WITH_BASES = ("Store",)  # whose methods are in part those of a base class of placeray's


def definitions() -> dict[str, list[str]]:
    """Return the modules that define and export each name."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted(Path(package).rglob("*.py")):
            module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
            tree = ast.parse(path.read_text())
            names = exported(tree)
            for node in tree.body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in names:
                    found[node.name].append(module)
    return found


def exported(tree: ast.Module) -> set[str]:
    """Return what a module's `__all__` lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def settings_table() -> str:
    """Return one line for each field of `TrainingSettings`, whose meaning is in its metadata."""
    text = "| setting | meaning |\n|---|---|\n"
    for field in fields(TrainingSettings):
        default = field.default if field.default not in (MISSING, None) else ""
        described = field.metadata["help"]
        if default != "" and "default:" not in described:
            described += f"; default: {default}"
        text += f"| `{field.name}` | {described} |\n"
    return text + "\n"


def module_of(name: str, modules: list[str], public: set[str]) -> str:
    """Return the module that defines a name; of several, the one that `placeray` has it from."""
    if len(modules) > 1 and name in public:
        return str(getattr(placeray, name).__module__)
    if len(modules) != 1:
        raise SystemExit(f"reference/python.md names {name}, defined in {modules or 'no module'}")
    return modules[0]


def page() -> str:
    """Return the whole page."""
    where = definitions()
    text = INTRODUCTION
    public = exported(ast.parse(PUBLIC.read_text())) - {"__version__"}
    others = public - {name for names in SECTIONS.values() for name in names}
    sections = SECTIONS | ({"More": tuple(sorted(others))} if others else {})
    for title, names in sections.items():
        text += f"## {title}\n\n"
        for name in names:
            module = module_of(name, where[name], public)
            text += f"::: {module}.{name}\n    options:\n      heading_level: 3\n"
            text += "      inherited_members: true\n\n" if name in WITH_BASES else "\n"
            if name == TrainingSettings.__name__:
                text += settings_table()
            if name not in public:
                text += f"Import it from `{module}`.\n\n"
    return text


with mkdocs_gen_files.open("reference/python.md", "w") as file:
    file.write(page())
