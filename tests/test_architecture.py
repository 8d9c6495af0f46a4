"""The house rules that can be read off the syntax tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("storage", "models", "serving", "pipelines")  # each may import those before it
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
ONLY_IN = {
    "ray": {
        *("pipelines/ray_session.py", "pipelines/index.py", "pipelines/serve.py"),
        *("pipelines/finetune.py", "pipelines/training_run.py", "pipelines/training_worker.py"),
        *("serving/app.py", "serving/replicas.py", "serving/remote_stages.py"),
    },
    "lancedb": {"storage/vectors.py"},
    "faiss": {"storage/search.py", "storage/approximate.py"},
    # The decoder, and the renderer of the demo city.
    "PIL": {"models/image.py", "models/exif.py"}
    | {f"pipelines/{path.name}" for path in (ROOT / "pipelines").glob("*city*.py")},
    "safetensors": {"models/weights.py", "models/checkpoint.py"},
    "fastapi": {"serving/routes.py"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_files_are_found() -> None:
    assert len(FILES) > 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards_only(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    assert not imports(path) & above
    name = str(path.relative_to(ROOT))
    for library, places in ONLY_IN.items():
        assert library not in imports(path) or name in places, f"{library} belongs in {places}"
    if package == "storage":
        assert not imports(path) & {"torch", "ray", "PIL", "fastapi"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_unsafe_deserialising(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        assert called.split(".")[0] not in {"pickle", "eval", "exec", "marshal"}
        if called == "torch.load":
            assert str(path.relative_to(ROOT)) in ("models/weights.py", "models/pretrained.py")
            assert ast.unparse(options["weights_only"]) == "True"
        if called == "np.load":
            assert "allow_pickle" not in options


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pipelines.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'lancedb', 'pyarrow', 'PIL', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_decode_workers_need_no_torch() -> None:
    code = "import sys, pipelines.stages; sys.exit('torch loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_searchers_and_a_split_ingress_need_no_torch() -> None:
    code = "import sys, serving.replicas; sys.exit('torch loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
