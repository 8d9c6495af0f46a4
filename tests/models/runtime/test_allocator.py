"""glibc retains freed memory, unless the environment sets its thresholds."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

# Page faults of ten blocks of forty megabytes, one after the other, each used once. Above 32 MiB glibc does
# not raise its thresholds by itself.
USE = """
import ctypes, resource, sys
from models.runtime.allocator import keep_freed_memory
retained = keep_freed_memory() if sys.argv[1] == "retained" else False
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    block = libc.malloc(40_000_000)
    ctypes.memset(block, 1, 40_000_000)
    libc.free(block)
print(int(retained), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, int("torch" in sys.modules))
"""
glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no thresholds")


def used(way: str, **settings: str) -> tuple[bool, int]:
    """Return whether memory is retained, and the page faults."""
    quiet = {
        name: value for name, value in os.environ.items() if "MALLOC" not in name and "GLIBC" not in name
    }
    command = [sys.executable, "-c", USE, way]
    out = subprocess.run(command, cwd=ROOT, env=quiet | settings, check=True, stdout=subprocess.PIPE).stdout
    retained, faults, torch_loaded = map(int, out.split())
    assert not torch_loaded
    return bool(retained), faults


@glibc_only
def test_keep_freed_memory_reduces_page_faults() -> None:
    (_, plain), (retained, faults) = used("plain"), used("retained")
    assert retained
    assert faults < 0.2 * plain


@glibc_only
@pytest.mark.parametrize(
    "setting",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
)
def test_keep_freed_memory_respects_thresholds_of_the_environment(setting: dict[str, str]) -> None:
    retained, faults = used("retained", **setting)
    assert not retained
    assert faults > 0.8 * used("plain", **setting)[1] > 100
