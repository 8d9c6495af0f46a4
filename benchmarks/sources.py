"""The files that a benchmark's figures depend on, and their digest."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from benchmarks.catalogue import Part

__all__ = ["ROOT", "digest", "imported_files", "own_files", "source_files"]

ROOT = Path(__file__).parents[1]
# How results are kept, which does not change what is measured.
BOOKKEEPING = ("catalogue.py", "kept.py", "machine.py", "provenance.py", "results.py", "sources.py")


def source_files(part: Part) -> list[Path]:
    """Return the files that a part depends on, sorted; FileNotFoundError for one that is gone."""
    files = set(own_files(part))
    for source in part.sources:
        path = ROOT / source
        if not path.exists():
            raise FileNotFoundError(f"{part.name} depends on {source}, which does not exist")
        files |= {path} if path.is_file() else {p for p in path.rglob("*") if p.is_file() and _counts(p)}
    return sorted(files)


def own_files(part: Part) -> set[Path]:
    """Return the files of benchmarks/ that a part runs, its script and what it imports."""
    script = ROOT.joinpath(*part.module.split(".")).with_suffix(".py")
    found, waiting = {script}, [script]
    while waiting:
        new = {p for p in imported_files(waiting.pop()) if p.parent == ROOT / "benchmarks"} - found
        waiting += new
        found |= new
    return {path for path in found if path.name not in BOOKKEEPING and path.name != "__init__.py"}


@cache
def imported_files(path: Path) -> frozenset[Path]:
    """Return the files of this checkout that a file imports, at its top or in a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = (ROOT.joinpath(*name.split(".")) for name in names)
    files = (p for path in paths for p in (path.with_suffix(".py"), path / "__init__.py"))
    return frozenset(p for p in files if p.is_file())


def digest(part: Part) -> str:
    """Return the SHA-256 of what a part depends on: paths and contents, of Python files the code alone.

    Comments, docstrings and the arrangement of lines do not count: new words do not make a figure old.
    """
    total = hashlib.sha256()
    for path in source_files(part):
        total.update(f"{path.relative_to(ROOT)}\0{_file_digest(path)}\n".encode())
    return total.hexdigest()


@cache
def _file_digest(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".py":
        data = "\n".join(_code(ast.parse(data))).encode()
    return hashlib.sha256(data).hexdigest()


def _code(node: ast.AST) -> Iterator[str]:
    """Yield a syntax tree as lines that are the same in each version of Python that parses it."""
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        values = value if isinstance(value, list) else [value]
        if name == "body" and isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ):
            values = [v for v in values if not _is_text(v)]
        for one in values:
            if isinstance(one, ast.AST):
                yield f"{name}:"
                yield from _code(one)
            elif one is not None:
                yield f"{name}={one!r}"
    yield "."


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is a string alone, as a docstring is."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _counts(path: Path) -> bool:
    return "__pycache__" not in path.parts and path.suffix not in (".md", ".pyc")
