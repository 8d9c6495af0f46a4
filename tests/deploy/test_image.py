"""The container image, built for real on a Debian of debootstrap, and the demo run in it.

No registry of images is needed, only Debian's and Python's packages. PLACERAY_IMAGE_ROOT names a folder with
30 GB free; default: pytest's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.image

PACKAGES = "ca-certificates,python3,python3-venv"
MIRROR = os.environ.get("PLACERAY_DEBIAN_MIRROR", "http://deb.debian.org/debian")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Runs a command in an image: its file system read-only but for /tmp, as the user of the image.
INSIDE = """
set -e
mount --bind "$1" "$2" && mount -o remount,bind,ro "$2"
mount -t tmpfs -o mode=1777,size=4g tmpfs "$2/tmp"
mount -t proc proc "$2/proc" && mount --rbind /dev "$2/dev" && mount --rbind /sys "$2/sys"
root=$2 && shift 2
exec chroot --userspec=10001:10001 "$root" /usr/bin/env --ignore-environment "$@"
"""


class Builder:
    """Buildah with storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = ["buildah", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self.command += ["--storage-driver", "vfs"]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def inspect(self, image: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))["OCIv1"]
        return found


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    if os.geteuid() != 0 or not shutil.which("buildah") or not shutil.which("debootstrap"):
        pytest.skip("needs root, buildah and debootstrap: apt-get install buildah debootstrap")
    given = os.environ.get("PLACERAY_IMAGE_ROOT")
    folder = Path(given, "placeray-image") if given else tmp_path_factory.mktemp("image")
    folder.mkdir(exist_ok=True)
    yield Builder(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def image(builder: Builder) -> str:
    """Build the image with PyPI's wheels of PyTorch, which bring CUDA."""
    debian = builder.folder / "debian"
    make = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(debian), MIRROR]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    container = builder("from", "scratch")
    builder("copy", "--quiet", container, str(debian), "/")
    builder("commit", "--quiet", "--rm", container, "localhost/debian")
    shutil.rmtree(debian)
    build = [str(ROOT / "deploy/image/build.sh"), "--base", "localhost/debian", "--wheel-index", ""]
    build += ["--tag", "localhost/placeray", "--isolation", "chroot", "--network", "host"]
    build += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro", "--env", f"PIP_CERT={CERTIFICATES}"]
    command = " ".join([*builder.command, "build"])
    room = {"PLACERAY_BUILDER": command, "PLACERAY_IMAGE_ROOT": str(builder.folder)}
    subprocess.run(build, check=True, env=os.environ | room)
    return "localhost/placeray"


def inside(builder: Builder, image: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the image, without the network of its configuration but with its environment."""
    made = builder.inspect(image)
    layers = json.loads((builder.folder / "storage/vfs-layers/layers.json").read_text())
    (layer,) = (one["id"] for one in layers if one["diff-digest"] == made["rootfs"]["diff_ids"][-1])
    view = builder.folder / "view"
    view.mkdir(exist_ok=True)
    words = ["unshare", "--mount", "--pid", "--fork", "bash", "-c", INSIDE, "inside"]
    words += [str(builder.folder / "storage/vfs/dir" / layer), str(view), *made["config"]["Env"], *command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_image_has_few_layers_and_no_root(builder: Builder, image: str) -> None:
    made = builder.inspect(image)
    layers, below = (one["rootfs"]["diff_ids"] for one in (made, builder.inspect("localhost/debian")))
    assert layers[: len(below)] == below
    assert 1 <= len(layers) - len(below) <= 3
    assert made["config"]["User"] == "10001:10001"
    assert made["config"]["Entrypoint"] == ["placeray"]


def test_demo_runs_on_a_read_only_root_with_the_weights_inside(builder: Builder, image: str) -> None:
    assert "10001" in inside(builder, image, "id").stdout
    assert inside(builder, image, "touch", "/opt/placeray/a").returncode != 0
    demo = "placeray demo --out /tmp/demo --database 48 --queries 8 --json --quiet"
    done = inside(builder, image, *demo.split())
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["index"]["accepted"], summary["index"]["rejected"]) == (48, 0)
    assert summary["evaluation"]["queries"] == 8


def test_jobs_of_ray_find_the_code(builder: Builder, image: str) -> None:
    for module in ("pipelines.index", "pipelines.finetune"):
        done = inside(builder, image, "python", "-m", module, "--help")
        assert done.returncode == 0, done.stderr
    found = "import serving.app, serving.http.front, ray.autoscaler.v2.monitor"
    assert inside(builder, image, "python", "-c", found).returncode == 0
