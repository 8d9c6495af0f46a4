from pathlib import Path

import pytest

import pipelines.serve
from pipelines.cli import main


@pytest.mark.parametrize(("text", "left"), [("", 0), ("started\n", 1)])
def test_serve_leaves_no_empty_log_file(
    text: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def serve(settings, **_):
        assert list(tmp_path.iterdir()) == [Path(settings.log_file)]
        Path(settings.log_file).write_text(text)

    monkeypatch.setattr(pipelines.serve, "serve_store", serve)
    assert main(["serve", "--store", "city"]) == 0
    assert len(list(tmp_path.iterdir())) == left
