"""Options of the buckets with the photos: secrets are refused before anything is loaded, and not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.cli import main


@pytest.mark.parametrize(
    "arguments",
    [
        ["s3://bucket/photos", "--source-option", "secret_access_key=hunter2"],
        ["s3://bucket/photos", "--source-option", "aws_session_token=hunter2"],
        ["s3://bucket/photos?aws_secret_access_key=hunter2"],
        ["city.csv", "--source-option", "azure_storage_account_key=hunter2"],
        ["city.csv", "--source-option", "endpoint=https://me:hunter2@storage.example.com"],
        ["s3://bucket/photos", "--source-option", "colour=hunter2"],
        ["s3://bucket/photos", "--source-option", "hunter2"],
    ],
)
def test_what_is_not_an_option_ends_with_exit_code_2(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", *arguments, "--store", str(tmp_path / "store")]) == 2
    printed = capsys.readouterr()
    assert "hunter2" not in printed.out + printed.err
    assert not (tmp_path / "store").exists()
