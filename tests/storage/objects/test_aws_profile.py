"""Keys of a profile in the files of the AWS command line, where the environment has none."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from storage.objects.aws_profile import profile_credentials
from storage.objects.errors import StorageForbidden
from storage.objects.location import objects_of, open_location
from storage.store import Store
from tests.support.object_servers import KEY_ID, SECRET
from tests.support.store_samples import contents, make_store

KEYS = f"aws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"


def write(folder: Path, credentials: str, config: str = "") -> dict[str, str]:
    (folder / "credentials").write_text(credentials)
    (folder / "config").write_text(config)
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_CONFIG_FILE": str(folder / "config"),
    }


def key_of(environment: dict[str, str]) -> str | None:
    give = profile_credentials(environment)
    return None if give is None else str(give()["access_key_id"])


def test_the_profile_in_force_and_the_environment_before_it(tmp_path: Path) -> None:
    lines = "[default]\naws_access_key_id=a\naws_secret_access_key=x%y\naws_session_token=t\n"
    files = write(tmp_path, lines, "[profile other]\naws_access_key_id=b\naws_secret_access_key=z\n")
    assert key_of(files) == "a"
    assert key_of({**files, "AWS_PROFILE": "other"}) == "b"
    assert key_of({**files, "AWS_ACCESS_KEY_ID": "c"}) is None
    give = profile_credentials(files)
    assert give is not None
    assert (give()["secret_access_key"], give()["token"]) == ("x%y", "t")
    (tmp_path / "credentials").write_text(lines.replace("=a", "=renewed"))
    assert give()["access_key_id"] == "renewed"


def test_profiles_without_keys_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    files = write(tmp_path, "no ini file", "[profile sso]\nsso_session = mine\n")
    assert key_of(files) is None
    assert key_of({name: str(tmp_path / "none") for name in files}) is None
    for name in ("sso", "absent"):
        with pytest.raises(StorageForbidden, match="export-credentials"):
            profile_credentials({**files, "AWS_PROFILE": name})


@pytest.mark.cluster
def test_a_store_is_written_and_read_with_a_profile_alone(
    seaweed_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in write(tmp_path, f"[city]\n{KEYS}[others]\n{KEYS.strip()}x").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_PROFILE", "city")
    uri = f"s3://placeray/{uuid.uuid4().hex}?endpoint={seaweed_url}&cache_dir={tmp_path / 'cache'}"
    make_store(uri, ["a", "b"])
    assert contents(Store.open(uri)).keys() == {"a", "b"}
    for each in objects_of(open_location(uri)).list():
        data = objects_of(open_location(uri)).get(each.name, 1 << 26).data
        assert SECRET.encode() not in data
        assert KEY_ID.encode() not in data
    monkeypatch.setenv("AWS_PROFILE", "others")
    with pytest.raises(StorageForbidden):
        Store.open(uri.replace("endpoint=", "timeout_s=4&endpoint="))
