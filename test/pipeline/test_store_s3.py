"""Publishing to a bucket, and the command that lists, downloads, uploads and deletes what is there."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from src import stores
from src.checksums import SUMS
from src.errors import UserError
from src.publish import publish
from src.s3 import entries
from src.s3.bucket import Bucket
from src.stores import s3 as store

CREATED = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def shop(bucket) -> store.Options:
    """An empty store under a prefix of the bucket."""
    return store.Options(bucket, "shop/")


@pytest.fixture
def s3_command(run_command, capsys):
    """Runs the command; returns exit code, what it prints and its error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code, error = run_command(store.main, *arguments)
        return code, capsys.readouterr().out, error

    return run


def keys(bucket: Bucket) -> list[str]:
    return [found.key for found in bucket.objects()]


# ── Publishing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_publish_goes_to_the_bucket_that_the_environment_names_and_sets_the_entry(
    bundled, bucket, run_command, monkeypatch, capsys
):
    monkeypatch.setenv("PUBLISH_S3", "s3://team/shop")
    assert run_command(publish.main) == (0, "")
    (entry,) = [entries.read(bucket, "shop/")["0.0.1"]]
    where = entries.files(entry)
    assert f"0.0.1: published at s3://team/{where}" in capsys.readouterr().out
    assert re.fullmatch(r"shop/models/0\.0\.1/[0-9a-f]{64}/", where)
    assert (entry["task_type"], entry["accuracy"], entry["created"]) == ("image", 0.9, CREATED)
    assert bucket.read(entry["model_path"])[0] == b"the weights"
    assert bucket.read(where + SUMS)[0] == (bundled / SUMS).read_bytes()

    before = [(found.key, found.etag) for found in bucket.objects()]
    assert run_command(publish.main) == (0, "")
    assert [(found.key, found.etag) for found in bucket.objects()] == before


@pytest.mark.parametrize("url", ["team/shop", "https://team/shop", "s3://"])
def test_an_address_that_is_none_is_said_with_where_it_stands(bundled, run_command, monkeypatch, url):
    monkeypatch.setenv("PUBLISH_S3", url)
    code, message = run_command(publish.main)
    assert (code, message) == (1, f"error: PUBLISH_S3: found {url!r}, expected s3://bucket/key")


def test_the_version_appears_after_its_files_and_before_its_entry(bundled, shop, monkeypatch):
    seen: list[tuple[str, list[str], int]] = []
    write, upload = Bucket.write, Bucket.upload

    def note(key: str) -> None:
        seen.append((key, store.versions(shop), len(entries.read(shop.bucket, shop.prefix))))

    def noted_write(self, key, *arguments, **options):
        note(key)
        return write(self, key, *arguments, **options)

    def noted_upload(self, path, key, *arguments):
        note(key)
        upload(self, path, key, *arguments)

    monkeypatch.setattr(Bucket, "write", noted_write)
    monkeypatch.setattr(Bucket, "upload", noted_upload)
    store.put(bundled, "1.0.0", shop)
    *files, sums, record, entry = seen
    assert len(files) == 11
    assert all(now[1:] == ([], 0) for now in [*files, sums, record])
    assert (record[0], entry[0]) == ("shop/versions/1.0.0.json", "shop/inference.json")
    assert entry[1:] == (["1.0.0"], 0)


def test_of_two_models_under_one_version_at_once_one_wins_and_the_other_is_told(
    published, bundled, retrain, shop, tmp_path
):
    bundled.rename(tmp_path / "first")
    other = retrain("other weights").rename(tmp_path / "second")
    ready = threading.Barrier(2)
    outcomes: dict[str, str] = {}

    class Waits(Bucket):
        """Both have uploaded before either writes the version."""

        def write(self, key, *arguments, **options):
            if key.endswith("1.0.0.json"):
                ready.wait(30)
            return super().write(key, *arguments, **options)

    def put(bundle: Path) -> None:
        try:
            store.put(bundle, "1.0.0", store.Options(Waits("team"), "shop/"))
            outcomes[bundle.name] = "published"
        except UserError as error:
            outcomes[bundle.name] = str(error)

    threads = [threading.Thread(target=put, args=(bundle,)) for bundle in (tmp_path / "first", other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [name for name, outcome in outcomes.items() if outcome == "published"]
    (told,) = [outcome for outcome in outcomes.values() if outcome != "published"]
    assert told == "s3://team/shop/versions/1.0.0.json: is another model already; expected a new version"
    stores.get(store, "1.0.0", tmp_path / "fetched", shop)
    weights = (tmp_path / winner / "model.keras").read_bytes()
    assert (tmp_path / "fetched/model.keras").read_bytes() == weights
    assert shop.bucket.read(entries.read(shop.bucket, "shop/")["1.0.0"]["model_path"])[0] == weights


DIES = """
import os, signal, sys
from pathlib import Path
from src.s3 import entries
from src.s3.bucket import Bucket
from src.stores import s3
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
write = Bucket.write
if sys.argv[2] == "entry":
    entries.update = die
else:
    Bucket.write = lambda self, key, *a, **k: die() if "versions/" in key else write(self, key, *a, **k)
s3.put(Path(sys.argv[1]), "1.0.0", s3.Options(Bucket("team"), "shop/"))
"""


@pytest.mark.parametrize(("before", "expected"), [("version", []), ("entry", ["1.0.0"])])
def test_a_publish_that_is_killed_leaves_no_half_version_and_the_next_one_completes_it(
    bundled, shop, root, tmp_path, before, expected
):
    killed = subprocess.run(
        [sys.executable, "-c", DIES, str(bundled), before], env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert killed.returncode == -signal.SIGKILL
    assert store.versions(shop) == expected
    assert entries.read(shop.bucket, "shop/") == {}
    store.put(bundled, "1.0.0", shop)
    assert list(entries.read(shop.bucket, "shop/")) == ["1.0.0"]
    stores.get(store, "1.0.0", tmp_path / "fetched", shop)


def test_what_the_store_refuses_is_one_sentence(s3, bundled, bucket, run_command, monkeypatch):
    sentences = {
        "reader": "cannot upload: these credentials may not (403 AccessDenied)",
        "stranger": "cannot list: the store does not accept these credentials (SignatureDoesNotMatch)",
    }
    for name, sentence in sentences.items():
        for key, value in s3.environment(name).items():
            monkeypatch.setenv(key, value)
        code, message = run_command(publish.main, "--store", "s3:s3://team/shop")
        assert code == 1
        assert sentence in message
        assert "secret" not in message
        assert "\n" not in message
    for key, value in s3.environment("writer").items():
        monkeypatch.setenv(key, value)
    code, message = run_command(publish.main, "--store", "s3:s3://nowhere/shop")
    assert (code, "there is no bucket 'nowhere'" in message) == (1, True)
    assert keys(bucket) == []


def test_a_record_that_is_none_is_an_error_that_names_it(bundled, shop):
    for content in (b"{", b"[]", b'{"format": 2}', b'{"format": 1, "files": {}, "entry": []}'):
        shop.bucket.write("shop/versions/1.0.0.json", content, anyway=True)
        with pytest.raises(UserError, match=r"versions/1\.0\.0\.json: expected the record of a version"):
            store.put(bundled, "1.0.0", shop)


# ── The command ────────────────────────────────────────────────────────────────────────────────────────────


def test_files_and_folders_go_there_and_come_back(bucket, s3_command, workspace):
    (workspace / "photos/a").mkdir(parents=True)
    (workspace / "photos/a/1.txt").write_text("one")
    (workspace / "photos/2.txt").write_text("two")
    assert s3_command("put", "photos", "s3://team/data/photos") == (0, "", "")
    assert s3_command("put", "photos/2.txt", "s3://team/data/") == (0, "", "")
    code, out, _ = s3_command("ls", "s3://team/data/")
    assert code == 0
    assert out.split("\n")[:3] == [
        f"{3:>15}  data/{name}" for name in ("2.txt", "photos/2.txt", "photos/a/1.txt")
    ]
    assert "9  bytes in 3 files" in out

    assert s3_command("get", "s3://team/data/photos/", "back")[0] == 0
    assert (workspace / "back/a/1.txt").read_text() == "one"
    assert s3_command("get", "s3://team/data/2.txt")[0] == 0
    assert s3_command("get", "s3://team/data/2.txt", "back/a")[0] == 0
    assert (workspace / "2.txt").read_text() == (workspace / "back/a/2.txt").read_text() == "two"
    assert s3_command("rm", "s3://team/data/2.txt")[0] == 0
    assert keys(bucket) == ["data/photos/2.txt", "data/photos/a/1.txt"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ls", "s3://team/none"], "s3://team/none: there are no files"),
        (["get", "s3://team/none.txt"], "s3://team/none.txt: not found"),
        (["rm", "s3://team/none.txt"], "s3://team/none.txt: not found"),
        (["put", "none.txt", "s3://team/x"], "none.txt: not found; expected a file or a folder"),
        (["ls", "team"], "found 'team', expected s3://bucket/key"),
        (["entry", "get", "s3://team", "x"], "s3://team/inference.json: there is no entry 'x'"),
        (["entry", "rm", "s3://team", "x"], "s3://team/inference.json: there is no entry 'x'"),
    ],
)
def test_what_is_not_there_is_status_1_and_a_sentence(bucket, workspace, s3_command, arguments, sentence):
    assert s3_command(*arguments) == (1, "", f"error: {sentence}")


@pytest.mark.parametrize("arguments", [[], ["copy"], ["entry"], ["ls"], ["entry", "set", "s3://team", "x"]])
def test_wrong_usage_is_status_2(s3_command, arguments):
    assert s3_command(*arguments)[0] == 2


def test_help_shows_examples(s3_command):
    code, out, _ = s3_command("--help")
    assert code == 0
    assert "python -m src.stores.s3 entry ls s3://team" in out
    assert "unless a version has them" in s3_command("entry", "rm", "--help")[1]


def test_a_file_that_an_entry_names_is_neither_deleted_nor_replaced(bundled, shop, s3_command, workspace):
    store.put(bundled, "1.0.0", shop)
    entries.update(shop.bucket, "old", {"model_path": "shop/odd/model.h5"}, "shop/")
    shop.bucket.write("shop/odd/model.h5", b"old")
    where = entries.files(entries.read(shop.bucket, "shop/")["1.0.0"])
    (workspace / "x").write_text("x")
    before = keys(shop.bucket)
    for key, reason in {
        f"{where}model.keras": r"the entry '1\.0\.0' of s3://team/shop/inference\.json would lose it",
        f"{where}SHA256SUMS": r"the entry '1\.0\.0' of .* would lose it",
        "shop/odd/model.h5": "the entry 'old' of .* would lose it",
        "shop/inference.json": "each of the 2 entries of .* would lose it",
        "shop/versions/1.0.0.json": r"the version 1\.0\.0 would lose it",
    }.items():
        for arguments in (["rm", f"s3://team/{key}"], ["put", "x", f"s3://team/{key}"]):
            code, _, message = s3_command(*arguments)
            assert code == 1
            assert re.search(reason, message), message
    assert keys(shop.bucket) == before
    assert s3_command("rm", "--force", "s3://team/shop/odd/model.h5")[0] == 0
    assert "shop/odd/model.h5" not in keys(shop.bucket)


def test_entries_are_listed_shown_set_and_removed_with_their_files(bundled, bucket, s3_command, workspace):
    assert s3_command("entry", "set", "s3://team/shop", "job-1", str(bundled))[0] == 0
    assert s3_command("entry", "set", "s3://team/shop/inference.json", "job-2", str(bundled))[0] == 0
    code, out, _ = s3_command("entry", "ls", "s3://team/shop/")
    assert (code, out.splitlines()[-1]) == (0, "2 entries")
    assert out.splitlines()[0].split()[:3] == ["job-1", "image", "0.9000"]
    entry = json.loads(s3_command("entry", "get", "s3://team/shop", "job-1")[1])
    assert entry == entries.read(bucket, "shop/")["job-1"]

    code, out, _ = s3_command("entry", "rm", "s3://team/shop", "job-1")
    assert (code, out.count("deleted: shop/models/job-1/")) == (0, 12)
    assert not list(bucket.objects("shop/models/job-1/"))
    assert len(list(bucket.objects("shop/models/job-2/"))) == 12
    assert s3_command("entry", "rm", "s3://team/shop", "job-2", "--keep") == (0, "", "")
    assert len(list(bucket.objects("shop/models/job-2/"))) == 12
    assert entries.read(bucket, "shop/") == {}


def test_an_entry_of_a_version_goes_without_the_files_that_the_version_has(
    bundled, shop, s3_command, tmp_path
):
    store.put(bundled, "1.0.0", shop)
    code, out, _ = s3_command("entry", "rm", "s3://team/shop", "1.0.0")
    assert (code, out.count("stays: "), out.count("deleted: ")) == (0, 12, 0)
    stores.get(store, "1.0.0", tmp_path / "fetched", shop)


def test_an_entry_that_is_set_by_hand_must_name_files_that_are_there(bucket, s3_command, workspace):
    Path("entry.json").write_text(
        json.dumps({"task_type": "image", "plot_path": None, "model_path": "m.keras"})
    )
    code, _, message = s3_command("entry", "set", "s3://team", "job-1", "entry.json")
    assert (code, message) == (
        1,
        "error: entry.json: model_path: found 'm.keras', expected the key of a file in team",
    )
    bucket.write("m.keras", b"weights")
    assert s3_command("entry", "set", "s3://team", "job-1", "entry.json")[0] == 0
    assert entries.read(bucket)["job-1"]["model_path"] == "m.keras"
    Path("entry.json").write_text("[]")
    assert "expected an entry, a dictionary, found list" in s3_command(
        "entry", "set", "s3://team", "job-1", "entry.json"
    )[2]  # fmt: skip
