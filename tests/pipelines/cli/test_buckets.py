"""Verbs on stores in buckets: options, secrets, exit codes, copies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cli import main
from storage.calibration_file import CALIBRATION_FILE, OWN_PHOTOS_FILE
from storage.objects.location import objects_of, open_location
from storage.store import Store
from tests.support.fault_proxy import FaultProxy
from tests.support.object_servers import KEY_ID, SECRET
from tests.support.store_samples import contents, make_relearned_store, make_store

IDS = [f"id{i:02d}" for i in range(12)]


@pytest.fixture
def store(bucket_uri: str) -> Store:
    return make_store(bucket_uri, IDS)


def place(store: Store) -> list[str]:
    """Return --store and --storage-option for a store."""
    address, _, query = store.uri.partition("?")
    return ["--store", address, "--storage-option", query]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    code = main([*arguments, "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert SECRET not in shown.out + shown.err
    assert KEY_ID not in shown.out + shown.err
    return dict(json.loads(shown.out))


def test_verbs_that_look_after_a_store(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "info", *place(store))["rows"] == len(IDS)
    assert run(capsys, "verify", *place(store))["ok"] is True
    assert run(capsys, "delete", *place(store), "id03", "none")["deleted"] == 1
    assert run(capsys, "compact", *place(store), "--dry-run")["shards_to_rewrite"] == 0
    assert run(capsys, "compact", *place(store))["version"] == Store.open(store.uri).version
    assert run(capsys, "verify", *place(store), "--repair")["ok"] is True
    assert run(capsys, "build-index", *place(store))["indexed"] is False  # so few rows need none
    assert Store.open(store.uri).count == len(IDS) - 1


@pytest.mark.parametrize(
    "given", ["secret_access_key=hunter2", "AWS_ACCESS_KEY_ID=hunter2", "account_key=hunter2"]
)
@pytest.mark.parametrize("where", ["s3://bucket/x", "gs://bucket/x", "az://bucket/x", "/a/folder"])
def test_a_secret_as_a_flag_ends_with_2_and_names_the_variable(
    given: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "--store", where, "--storage-option", given]) == 2
    shown = capsys.readouterr()
    assert "hunter2" not in shown.out + shown.err
    assert any(word in shown.err for word in ("AWS_", "AZURE_STORAGE_", "GOOGLE_APPLICATION_CREDENTIALS"))
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "finetune /none --out /none.safetensors --storage s3://me:hunter2@bucket/x",
        "finetune /none --out /none.safetensors --storage s3://bucket/x?secret_key=hunter2",
        "index s3://me:hunter2@bucket/x --store /none",
        "index s3://bucket/x?secret_access_key=hunter2 --store /none",
        "index /none --store /none --rejected s3://me:hunter2@bucket/x",
        "index /none --store s3://me:hunter2@bucket/x",
        "copy /none s3://me:hunter2@bucket/x",
        "serve --store s3://me:hunter2@bucket/x",
    ],
)
def test_a_secret_in_any_address_ends_with_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    shown = capsys.readouterr()
    assert "hunter2" not in shown.out + shown.err
    assert "AWS_SECRET_ACCESS_KEY" in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--store", "s3://bucket/x", "--storage-option", "hunter2"],
        ["--store", "s3://bucket/x", "--storage-option", "colour=red"],
        ["--store", "/a/folder", "--storage-option", "region=eu-west-1"],
        ["--store", "s3://bucket/x?secret=hunter2"],
        ["--store", "s3://me:hunter2@bucket/x"],
    ],
)
def test_options_that_cannot_be_used_end_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", *arguments]) == 2
    shown = capsys.readouterr()
    assert "hunter2" not in shown.out + shown.err
    assert shown.err.count("\n") == 1


def test_a_bucket_that_does_not_answer_ends_with_9(
    store: Store, faulty: FaultProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    address = store.uri.partition("?")[0]
    flags = [
        "--store",
        address,
        "--storage-option",
        f"endpoint={faulty.url}",
        "--storage-option",
        "timeout_s=1",
    ]
    for kind, text in (("503", "slow down"), ("403", "access was refused"), ("500", "does not answer")):
        faulty.clear()
        faulty.fail(kind)  # type: ignore[arg-type]
        assert main(["info", *flags]) == 9
        shown = capsys.readouterr().err
        assert text in shown
        assert shown.count("\n") == 1
    faulty.clear()
    faulty.fail("503", every=3)
    assert main(["verify", *flags]) == 0


def test_copies_to_a_bucket_and_back_keep_everything(
    bucket_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = make_relearned_store(tmp_path / "original", IDS)
    before = contents(original)
    with original.lease():
        original.write_measured(CALIBRATION_FILE, {"a": 1})
        original.write_measured(OWN_PHOTOS_FILE, {"b": 2})
    copied = run(capsys, "copy", original.uri, bucket_uri, "--quiet")
    assert (copied["version"], copied["rows"], copied["verified"]) == (original.version, len(IDS), True)
    again = run(capsys, "copy", original.uri, bucket_uri, "--quiet")
    assert again["files_copied"] < copied["files_copied"]  # type: ignore[operator]
    back = run(capsys, "copy", bucket_uri, str(tmp_path / "back"), "--quiet")
    assert back["verified"] is True
    for uri in (bucket_uri, str(tmp_path / "back")):
        store = Store.open(uri)
        assert (store.version, store.card, contents(store)) == (original.version, original.card, before)
        assert [store.measured(name) for name in (CALIBRATION_FILE, OWN_PHOTOS_FILE)] == [{"a": 1}, {"b": 2}]
        stamp = store.measured_stamp(OWN_PHOTOS_FILE)
        with store.lease():
            store.delete(["id00"])
            store.write_measured(OWN_PHOTOS_FILE, {"b": 3})
        assert store.measured(OWN_PHOTOS_FILE) == {"b": 3}
        assert store.measured_stamp(OWN_PHOTOS_FILE) != stamp
        assert store.version == original.version + 1
        assert store.verify().ok
    names = {
        path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back").rglob("*.parquet")
    }
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "original" / name).read_bytes()
    assert main(["copy", original.uri, bucket_uri, "--quiet"]) == 2
    assert "holds a store already" in capsys.readouterr().err


def test_an_interrupted_copy_is_no_store_and_goes_on(
    bucket_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = make_store(tmp_path / "original", IDS, batch=2)
    run(capsys, "copy", original.uri, bucket_uri, "--quiet")
    objects = objects_of(open_location(bucket_uri))
    shards = [each.name for each in objects.list("features")]
    objects.delete(["COMMITTED", shards[0]])
    damaged = bytearray(objects.get(shards[1], 1 << 30).data)
    damaged[10] ^= 1
    objects.put(shards[1], bytes(damaged))
    assert main(["info", "--store", bucket_uri]) != 0
    capsys.readouterr()
    copied = run(capsys, "copy", original.uri, bucket_uri, "--quiet")
    assert copied["verified"] is True
    assert copied["files_copied"] < copied["files"] - 3  # type: ignore[operator]
    assert contents(Store.open(bucket_uri)) == contents(original)
