"""The folder of a private Ray."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.ray_session import NoRayFolder
from pipelines.ray_session.folder import MAX_BASE_BYTES, base_folders, end_processes_in, private_folder


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:
        yield Path(folder)


def test_folder_is_closed_to_others_and_gone_afterwards(base: Path) -> None:
    with private_folder(base) as folder, private_folder(base) as other:
        assert folder.parent == other.parent == base
        assert folder != other
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "r" / "session").mkdir(parents=True)
        (folder / "r" / "session" / "log").write_text("x")
    assert list(base.iterdir()) == []


def test_folder_is_removed_after_an_error(base: Path) -> None:
    with pytest.raises(KeyboardInterrupt), private_folder(base):
        raise KeyboardInterrupt
    assert list(base.iterdir()) == []


def test_folder_of_a_killed_command_is_removed_by_the_next_and_one_in_use_is_not(base: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from pipelines.ray_session.folder import private_folder\n"
        "with private_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'r').mkdir(); (folder / 'r' / 'log').write_text('x'); os._exit(1)\n"
    )
    (base / "placeray.not-ours").mkdir()
    (base / "keep").mkdir()
    (base / "placeray.linked00").symlink_to(base / "keep")
    with private_folder(base) as in_use:
        subprocess.run([sys.executable, "-c", code, str(base)], check=False)
        (abandoned,) = (path for path in base.glob("placeray.*/r") if path.parent != in_use)
        with private_folder(base):
            assert not abandoned.exists()
            assert in_use.exists()
    assert {path.name for path in base.iterdir()} == {"placeray.not-ours", "placeray.linked00", "keep"}


def test_sockets_lie_where_ray_is_told_to_unless_the_path_is_too_long(base: Path) -> None:
    short, deep = str(base), str(base / ("d" * MAX_BASE_BYTES))
    os.mkdir(deep)
    assert base_folders({"RAY_TMPDIR": short, "TMPDIR": deep}) == (base, base)
    assert base_folders({"TMPDIR": short}) == (base, base)
    assert base_folders({"RAY_TMPDIR": deep}) == (Path("/tmp"), Path(deep))
    assert base_folders({"RAY_TMPDIR": short + "/n"}) == (base / "n", base / "n")
    assert base_folders({}) == (Path("/tmp"), Path("/tmp"))


def test_no_folder_is_refused_by_name(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "file").touch()
    with pytest.raises(NoRayFolder, match="file"):
        base_folders({"RAY_TMPDIR": str(base / "file")})
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NoRayFolder, match="RAY_TMPDIR"):
        base_folders({})


def test_longest_base_leaves_room_for_rays_sockets() -> None:
    name = "/placeray.12345678/r/session_2026-11-28_07-04-41_123456_4194304/sockets/plasma_store"
    assert MAX_BASE_BYTES + len(name) <= 107


def test_processes_that_use_the_folder_are_ended(base: Path) -> None:
    code = "import sys, time; f = open(sys.argv[1], 'w'); print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(base / "log")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end_processes_in(base, patience_s=0.1)
        assert process.wait(10) == -9
    end_processes_in(base, patience_s=0.1)
