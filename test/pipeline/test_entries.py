"""The shared inference.json: no entry is lost, and none is seen before its files are there."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from src.errors import UserError
from src.s3 import entries
from src.s3.bucket import Bucket

CREATED = "2026-01-02T03:04:05+00:00"
IMAGE: dict[str, Any] = {
    "format": 1,
    "task_type": "image",
    "objective": "classification",
    "classes": ["daisy", "rosé"],
    "accuracy": 0.9,
    "architecture": {"name": "cnn"},
    "model_path": "model.keras",
    "plot_path": "report/curves.png",
    "correct_prediction": "report/correct_predictions.png",
    "incorrect_prediction": "report/incorrect_predictions.png",
}


def write_results(folder: Path, mark: str, inference: dict[str, Any] = IMAGE, **metrics: Any) -> Path:
    """Writes what the stages leave, as far as an entry is concerned; `mark` makes its contents unique."""
    contents = {
        "inference.json": json.dumps(inference),
        "metrics.json": json.dumps(metrics or {"accuracy": 0.9, "examples": 10}),
        "history.json": f'["{mark}"]',
        "model.keras": f"the weights of {mark}",
        "model.onnx": f"the weights of {mark}, for ONNX",
        "report/curves.png": f"curves of {mark}",
        "report/correct_predictions.png": "right",
        "report/incorrect_predictions.png": "wrong",
        ".gitignore": "/model.keras",
    }
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def results(tmp_path) -> Path:
    return write_results(tmp_path / "results", "one")


def check_whole(bucket: Bucket, entry: entries.Entry) -> None:
    """Fails unless every file that an entry names is there as its SHA256SUMS, named by its own hash, says."""
    where = entries.files(entry)
    found = bucket.read(where + "SHA256SUMS")
    assert found, where
    assert sha256(found[0]).hexdigest() == Path(where).name
    sums = {name: digest for digest, name in (line.split("  ") for line in found[0].decode().splitlines())}
    paths = [value for key, value in entry.items() if value and key.endswith(("_path", "_prediction"))]
    assert len(paths) >= 2
    assert {path.removeprefix(where) for path in paths} <= sums.keys()
    for name, digest in sums.items():
        there = bucket.read(where + name)
        assert there, where + name
        assert sha256(there[0]).hexdigest() == digest


# ── What an entry says ─────────────────────────────────────────────────────────────────────────────────────


def test_an_image_job_has_exactly_what_applications_read(bucket, results):
    entry = entries.publish(bucket, "job-1", results, CREATED)
    where = entries.files(entry)
    assert where.startswith("models/job-1/")
    assert entry == {
        "task_type": "image",
        "plot_path": f"{where}report/curves.png",
        "correct_prediction": f"{where}report/correct_predictions.png",
        "incorrect_prediction": f"{where}report/incorrect_predictions.png",
        "model_path": f"{where}model.keras",
        "classes": ["daisy", "rosé"],
        "accuracy": 0.9,
        "created": CREATED,
    }
    assert json.loads(bucket.read("inference.json")[0]) == {"job-1": entry}
    check_whole(bucket, entry)
    names = {found.key.removeprefix(where) for found in bucket.objects(where)}
    assert names == {
        *("inference.json", "metrics.json", "history.json", "model.keras", "model.onnx", "SHA256SUMS"),
        *("report/curves.png", "report/correct_predictions.png", "report/incorrect_predictions.png"),
    }


def test_a_regression_has_its_main_metric_under_its_own_name_and_no_accuracy(bucket, tmp_path):
    inference = {**IMAGE, "objective": "regression", "classes": None}
    folder = write_results(tmp_path / "r", "r", inference, mean_absolute_error=2.5, r2=0.4)
    entry = entries.publish(bucket, "r", folder, CREATED)
    assert (entry["accuracy"], entry["classes"], entry["mean_absolute_error"]) == (None, None, 2.5)
    assert "r2" not in entry


def test_a_picture_that_was_not_made_is_null_and_a_model_that_was_not_made_is_an_error(bucket, results):
    shutil.rmtree(results / "report")
    assert entries.publish(bucket, "job-1", results, CREATED)["plot_path"] is None
    (results / "model.keras").unlink()
    with pytest.raises(UserError, match=r"model.keras: not found; .*inference.json names it as model_path"):
        entries.publish(bucket, "job-2", results, CREATED)
    assert list(entries.read(bucket)) == ["job-1"]
    assert not list(bucket.objects("models/job-2/"))


def test_all_may_be_under_a_prefix(bucket, results):
    entry = entries.publish(bucket, "job-1", results, CREATED, prefix="shop/")
    assert entry["model_path"].startswith("shop/models/job-1/")
    assert entries.read(bucket, "shop/") == {"job-1": entry}
    assert entries.read(bucket) == {}


# ── Once, twice, again ─────────────────────────────────────────────────────────────────────────────────────


def test_the_same_files_again_change_nothing(bucket, results):
    entry = entries.publish(bucket, "job-1", results, CREATED)
    before = [(found.key, found.etag) for found in bucket.objects()]
    written = {found.key: bucket.client.head_object(Bucket=bucket.name, Key=found.key)["LastModified"]
               for found in bucket.objects()}  # fmt: skip
    time.sleep(1.1)  # the store's clock is in whole seconds
    assert entries.publish(bucket, "job-1", results, "2030-01-02T03:04:05+00:00") == entry
    assert [(found.key, found.etag) for found in bucket.objects()] == before
    for key, when in written.items():
        assert bucket.client.head_object(Bucket=bucket.name, Key=key)["LastModified"] == when


def test_a_replaced_entry_leaves_its_old_files_to_who_still_reads_them(bucket, results):
    old = entries.publish(bucket, "job-1", results, CREATED)
    (results / "model.keras").write_text("better weights")
    new = entries.publish(bucket, "job-1", results, CREATED)
    assert entries.files(old) != entries.files(new)
    assert entries.read(bucket) == {"job-1": new}
    check_whole(bucket, old)
    check_whole(bucket, new)


def test_a_publisher_that_may_no_longer_does_not_set_the_entry(bucket, results):
    def lost() -> None:
        raise UserError("the lease is lost")

    with pytest.raises(UserError, match="the lease is lost"):
        entries.publish(bucket, "job-1", results, CREATED, check=lost)
    assert entries.read(bucket) == {}


def test_an_entry_can_be_set_and_removed_and_the_others_stay(bucket):
    for id in ("a", "b", "c"):
        entries.update(bucket, id, {"task_type": id})
    assert entries.remove(bucket, "b") == {"task_type": "b"}
    assert entries.read(bucket) == {"a": {"task_type": "a"}, "c": {"task_type": "c"}}
    with pytest.raises(UserError, match=r"s3://team/inference.json: there is no entry 'b'"):
        entries.remove(bucket, "b")


@pytest.mark.parametrize("id", ["", "../x", "a/b", ".hidden", "a b", "a\n"])
def test_an_id_that_is_no_name_is_refused(bucket, results, id):
    with pytest.raises(UserError, match=r"id: found .*, expected letters, digits"):
        entries.publish(bucket, id, results, CREATED)


# ── What is wrong with inference.json ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"a": 1}', b'{"a": {"accuracy": NaN}}', b"\xff\xfe\xff", b"<html>"],
)
def test_what_is_no_dictionary_of_entries_is_an_error_and_left_as_it_is(bucket, results, content):
    bucket.write("inference.json", content)
    for action in (
        lambda: entries.publish(bucket, "job-1", results, CREATED),
        lambda: entries.remove(bucket, "job-1"),
        lambda: entries.read(bucket),
    ):
        with pytest.raises(UserError, match=r"s3://team/inference.json: expected a dictionary of entries"):
            action()
    assert bucket.read("inference.json")[0] == content


def test_what_others_put_into_their_entries_stays_as_it_is(bucket, results):
    theirs = {"old": {"accuracy": 0.1 + 0.2, "classes": ["Müll", "\ud800", "猫"], "more": {"big": 2**70}}}
    bucket.write("inference.json", json.dumps(theirs).encode())
    entries.publish(bucket, "job-1", results, CREATED)
    assert entries.read(bucket)["old"] == theirs["old"]
    assert list(entries.read(bucket)) == ["old", "job-1"]


# ── Who may not ────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_store_refuses_is_one_sentence(s3, bucket, results, monkeypatch):
    expected = {
        "reader": r"s3://team/models/job-1/\S+: cannot upload: these credentials may not \(403",
        "stranger": r"cannot list: the store does not accept these credentials \(SignatureDoesNotMatch\)",
    }
    for name, sentence in expected.items():
        for key, value in s3.environment(name).items():
            monkeypatch.setenv(key, value)
        with pytest.raises(UserError, match=sentence) as error:
            entries.publish(Bucket(bucket.name), "job-1", results, CREATED)
        assert "secret" not in str(error.value)
        assert "\n" not in str(error.value)
    for key, value in s3.environment("writer").items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
        entries.publish(Bucket("nowhere"), "job-1", results, CREATED)
    assert not list(bucket.objects())


# ── Many at once, and one that is killed ───────────────────────────────────────────────────────────────────

DIES = """
import os, signal, sys
from pathlib import Path
from src.s3 import entries
from src.s3.bucket import Bucket
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
entries.publish(Bucket("team"), "job-1", Path(sys.argv[1]), "now", check=die)
"""


def test_a_publisher_that_is_killed_before_its_entry_leaves_none_and_the_next_one_sends_no_file_again(
    bucket, results, root, monkeypatch
):
    killed = subprocess.run(
        [sys.executable, "-c", DIES, str(results)], env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert killed.returncode == -signal.SIGKILL
    assert entries.read(bucket) == {}
    assert len(list(bucket.objects("models/job-1/"))) == 9

    monkeypatch.setattr(Bucket, "upload", lambda *_: pytest.fail("was sent again"))
    check_whole(bucket, entries.publish(bucket, "job-1", results, CREATED))


def publish_many(number: int, count: int, folder: Path) -> None:
    """One of the publishers, a process of its own."""
    bucket = Bucket("team")
    for turn in range(count):
        results = write_results(folder / f"{number}-{turn}", f"{number}-{turn}")
        entries.publish(bucket, f"job-{number}-{turn}", results, CREATED)


def race(bucket: Bucket, folder: Path, publishers: int, count: int) -> float:
    """Lets publishers race while a reader polls; fails if an entry is lost or seen half; returns seconds."""
    over = threading.Event()
    seen: set[str] = set()
    wrong: list[BaseException] = []

    def poll() -> None:
        try:
            while not over.is_set():
                known = entries.read(bucket)
                assert seen <= known.keys(), "an entry that was there is gone"
                for id in known.keys() - seen:
                    check_whole(bucket, known[id])
                    seen.add(id)
        except BaseException as error:
            wrong.append(error)

    reader = threading.Thread(target=poll)
    reader.start()
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=publish_many, args=(number, count, folder)) for number in range(publishers)
    ]
    started = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.monotonic() - started
    over.set()
    reader.join()
    assert not wrong, wrong
    assert [process.exitcode for process in processes] == [0] * publishers
    known = entries.read(bucket)
    assert len(known) == publishers * count
    for id in known.keys() - seen:
        check_whole(bucket, known[id])
    return seconds


def test_of_a_few_publishers_at_once_none_loses_an_entry(bucket, tmp_path):
    race(bucket, tmp_path, 3, 4)


@pytest.mark.slow
def test_of_16_publishers_of_25_entries_each_none_loses_one_and_none_is_seen_half(bucket, tmp_path):
    print(f"400 entries of 16 publishers in {race(bucket, tmp_path, 16, 25):.0f} s")
