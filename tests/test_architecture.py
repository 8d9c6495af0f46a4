"""Rules of the architecture, checked on the syntax tree."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("storage", "models", "serving", "pipelines", "placeray")  # each may import those before it
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
ONLY_IN = {
    "ray": (
        *("pipelines/ray_session/", "pipelines/indexing/", "pipelines/serve.py"),
        *("pipelines/training/job.py", "pipelines/training/launcher.py", "pipelines/training/worker.py"),
        "pipelines/training/checkpoints.py",
        *("serving/app.py", "serving/replicas.py", "serving/stages/remote.py"),
    ),
    "lancedb": ("storage/table/",),
    "obstore": ("storage/objects/",),
    "faiss": ("storage/search/",),
    # The decoder, and the renderer of the demo city.
    "PIL": ("models/images/", "pipelines/demo/"),
    "safetensors": ("models/checkpoints/", "models/training/checkpoint.py", "models/aggregation/file.py"),
    "fastapi": (
        *("serving/http/routes.py", "serving/http/track_routes.py", "serving/http/prior_parameters.py"),
        *("serving/http/roles.py", "serving/http/error_handlers.py"),
    ),
    "uvicorn": ("serving/http/protocol.py",),
}


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return the imports and calls of a file, wherever in it."""
    kinds = (ast.Import, ast.ImportFrom, ast.Call)
    return tuple(node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Return the dotted names of the modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return frozenset(names)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def edges_of(path: Path) -> set[str]:
    """Return the modules that a file imports; `from a import b` names b where that is a module, else a."""
    names = imports(path) & MODULES.keys() - {module_of(path)}
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


@functools.cache
def edges() -> dict[str, set[str]]:
    """Return `edges_of` each module; not while the tests are collected, which each process does."""
    return {name: edges_of(path) for name, path in MODULES.items()}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the paths that lead back to where they began."""
    paths, done = [], set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            paths.append([*trail[trail.index(name) :], name])
        elif name not in done:
            for other in sorted(edges.get(name, ())):
                visit(other, [*trail, name])
            done.add(name)

    for name in sorted(edges):
        visit(name, [])
    return paths


def room_of(module: str) -> str:
    """Return the sub-package a module lies in; a module outside of sub-packages is returned as it is."""
    parts = module.split(".")
    return ".".join(parts[:2])


def test_imports_run_downwards_and_never_in_a_circle() -> None:
    assert len(MODULES) > 100
    for name, others in edges().items():
        package = name.split(".")[0]
        above = PACKAGES[PACKAGES.index(package) + 1 :]
        assert not [other for other in others if other.split(".")[0] in above], name
    assert circles(edges()) == []
    rooms: dict[str, set[str]] = {}
    for name, others in edges().items():
        rooms.setdefault(room_of(name), set()).update(
            room_of(other) for other in others if "." in other and room_of(other) != room_of(name)
        )
    assert circles(rooms) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_in_one_place(library: str) -> None:
    places = ONLY_IN[library]
    users = [
        name
        for path in FILES
        for name in [str(path.relative_to(ROOT))]
        if library in {module.split(".")[0] for module in imports(path)}
    ]
    assert users
    assert [name for name in users if not name.startswith(places)] == []


def test_storage_knows_neither_torch_nor_ray_nor_http() -> None:
    for path in FILES:
        if path.is_relative_to(ROOT / "storage"):
            known = {module.split(".")[0] for module in imports(path)}
            assert not known & {"torch", "ray", "PIL", "fastapi"}, path


def test_nothing_is_deserialised_unsafely() -> None:
    for path in FILES:
        for node in nodes(path):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {keyword.arg: keyword.value for keyword in node.keywords}
            assert called.split(".")[0] not in {"pickle", "eval", "exec", "marshal"}, path
            if called == "torch.load":
                assert str(path.relative_to(ROOT)) in (
                    "models/checkpoints/importing.py",
                    "models/checkpoints/lite0_package.py",
                )
                assert ast.unparse(options["weights_only"]) == "True"
            if called == "np.load":
                assert "allow_pickle" not in options, path


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pipelines.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'lancedb', 'pyarrow', 'PIL', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_a_reranker_loads_no_network() -> None:
    """Networks and their libraries cost memory that counting does not need."""
    names = ("models.networks", "models.weights", "timm", "torchvision")
    code = (
        "import sys, serving.stages.rerank\n"
        f"loaded = [name for name in sys.modules if name.startswith({names})]\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["pipelines.indexing.decode", "serving.replicas"])
def test_decode_workers_searchers_and_a_split_ingress_need_no_torch(module: str) -> None:
    done = run(f"import sys, {module}; sys.exit('torch loaded' if 'torch' in sys.modules else 0)")
    assert done.returncode == 0, done.stderr
