"""timm's hub on a machine without a network: asked once, then only the cache counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from tests.support.paths import ROOT

NAME = "test_vit.r160_in1k"  # timm's own network for tests, of 0.4 million weights
LOOK_UPS = 2  # of one attempt; the client of the hub alone makes fifteen
# As on a machine without a network, no name is found; each look-up is told.
PROGRAM = """
import socket, sys

def nowhere(*_, **__):
    print("asked", flush=True)
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

socket.getaddrinfo = nowhere
import safetensors.torch
from models.checkpoints.hub import pretrained
safetensors.torch.save_file(pretrained(sys.argv[1]).state_dict(), sys.argv[2])
"""


def load(home: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Load in a process of its own: the hub's client reads its settings when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-c", PROGRAM, NAME, str(out)]
    return subprocess.run(
        command, env=kept | {"HF_HOME": str(home)}, capture_output=True, text=True, cwd=ROOT
    )


@pytest.mark.long
def test_without_a_cache_the_hub_is_asked_once(tmp_path: Path) -> None:
    done = load(tmp_path, tmp_path / "out.safetensors")
    assert done.returncode != 0
    assert "LocalEntryNotFoundError" in done.stderr
    assert done.stdout.count("asked") <= LOOK_UPS


@pytest.mark.long
def test_what_the_cache_holds_is_loaded_then(tmp_path: Path) -> None:
    torch.manual_seed(3)
    kept = timm.create_model(NAME.partition(".")[0]).state_dict()
    folder = tmp_path / "hub" / f"models--timm--{NAME}"
    snapshot = folder / "snapshots" / ("0" * 40)
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot.mkdir(parents=True)
    safetensors.torch.save_file(kept, snapshot / "model.safetensors")
    out = tmp_path / "out.safetensors"
    done = load(tmp_path, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("asked") <= LOOK_UPS
    loaded = safetensors.torch.load_file(out)
    assert loaded.keys() == kept.keys()
    assert all(torch.equal(loaded[name], kept[name]) for name in kept)
