"""Jobs as they are run: whole, by several workers, ended, disturbed."""

import json
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from job_bench import finish, masses, names, put, start, status, wait  # type: ignore[import-not-found]

from src import checksums
from src.jobs.stages import Stopped, stoppable
from src.s3 import entries
from src.s3.bucket import Bucket
from src.s3.download import download_all

FILES = {
    "model.keras", "model.onnx", "inference.json", "history.json", "metrics.json", "diagnosis.json",
    "predictions.parquet", "report/index.html", "report/curves.png", "report/predictions.png",
}  # fmt: skip
EXAMPLES: dict[str, dict[str, Any]] = {
    "image": {
        "dataset": "data/photos/",
        "params": {
            "data": {"validation": 0.25, "test": 0.25},
            "encode": {"size": [16, 16], "channels": 3},
            "model": {"filters": [8]},
            "fit": {"epochs": 2, "batch_size": 8},
        },
    },
    "text": {
        "dataset": "s3://team/data/snippets.parquet",
        "params": {
            "data": {"sample": 300},
            "model": {"units": 4, "embedding": {"dimension": 8, "vectors": None}},
            "fit": {"epochs": 1},
        },
    },
}
LONG = masses(100_000)
EPOCHS = 300
URL = "s3://team/jobs/a-1.json"


@pytest.fixture
def table(bucket, root) -> Bucket:
    """A bucket with a table to train on."""
    bucket.upload(root / "datasets/breast-cancer/breast-cancer.csv", "data/breast-cancer.csv")
    return bucket


def trains(bucket: Bucket) -> bool:
    return bool(status(bucket, "a-1").get("epoch", 0) >= 2)


@pytest.mark.slow
@pytest.mark.parametrize("task", EXAMPLES)
def test_a_job_is_trained_published_and_cleaned_up_after(bucket, root, workspace, write_photos, task):
    for path in write_photos(workspace / "photos", 12).rglob("*.*"):
        bucket.upload(path, f"data/photos/{path.parent.name}/{path.name}")
    bucket.upload(root / "datasets/reviews/snippets.parquet", "data/snippets.parquet")
    job = put(bucket, "a-1", task=task, **EXAMPLES[task])
    code, said = finish(start(workspace, URL))
    assert code == 0, said
    found = status(bucket, "a-1")
    epochs = EXAMPLES[task]["params"]["fit"]["epochs"]
    assert (found["state"], found["job"], found["epoch"], found["epochs"]) == ("done", job, epochs, epochs)
    assert set(found["metrics"]) >= {"loss", "val_loss", "val_accuracy"}
    entry = entries.read(bucket)["a-1"]
    assert entry == found["entry"]
    assert entry["task_type"] == task
    download_all(bucket, entries.files(entry), Path("back"))
    checksums.check(Path("back"))
    assert set(checksums.checksums(Path("back"))) >= FILES
    about = json.loads(Path("back/inference.json").read_text())
    assert about["data"]["path"] == f"data/{Path(EXAMPLES[task]['dataset']).name}"
    with urllib.request.urlopen(f"file://{Path('back/report/index.html').resolve()}") as page:
        assert b"<title>a-1" in page.read()
    assert names(bucket) == ["a-1.json", "a-1.log", "a-1.status.json"]
    assert "src/models/model.keras: epoch" in bucket.read("jobs/a-1.log")[0].decode()
    assert list(Path("build/jobs").iterdir()) == []
    assert finish(start(workspace, URL)) == (0, f"{URL}: done\n")  # it is not run again


@pytest.mark.slow
def test_two_workers_at_once_run_each_of_three_jobs_once(table, workspace):
    ids = [f"a-{number}" for number in range(3)]
    for id in ids:
        put(table, id, **masses(1))
    folders = [workspace / "first", workspace / "second"]
    for folder in folders:
        folder.mkdir()
    workers = [start(folder, "--watch", "s3://team/jobs/", "--until-empty") for folder in folders]
    ended = [finish(worker) for worker in workers]
    said = "".join(text for _, text in ended)
    assert [code for code, _ in ended] == [0, 0], said
    assert [said.count(f"jobs/{id}.json: attempt 1 by") for id in ids] == [1] * 3
    assert said.count(": attempt ") == 3
    assert {status(table, id)["state"] for id in ids} == {"done"}
    assert len({status(table, id)["worker"] for id in ids}) == 2
    assert sorted(entries.read(table)) == ids
    assert [name for name in names(table) if "lease" in name or "checkpoint" in name] == []


@pytest.mark.slow
def test_a_worker_that_gets_sigterm_leaves_the_job_with_its_checkpoint_to_the_next(table, workspace):
    put(table, "a-1", **LONG)
    process = start(workspace, URL)
    wait(lambda: trains(table), process)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 0, said
    assert "ended by SIGTERM after epoch" in said
    found = status(table, "a-1")
    assert found["state"] == "queued"
    assert found["epoch"] >= 2
    assert names(table) == ["a-1.checkpoint.npz", "a-1.json", "a-1.log", "a-1.status.json"]
    assert list((workspace / "build/jobs").iterdir()) == []

    process = start(workspace, URL)  # at once: the lease was given back
    wait(lambda: status(table, "a-1")["state"] == "running" and trains(table), process)
    table.delete("jobs/a-1.json")  # which ends it
    code, said = finish(process)
    assert "build/checkpoint.npz: goes on after epoch" in said
    assert code == 1
    assert said.endswith(f"error: {URL}: failed: {URL}: was deleted while it ran; nothing is published\n")
    assert names(table) == ["a-1.log", "a-1.status.json"]


@pytest.mark.slow
def test_a_job_file_that_is_changed_while_it_runs_ends_it_and_the_new_one_runs(table, workspace):
    first = put(table, "a-1", **LONG)
    process = start(workspace, "--watch", "s3://team/jobs/", "--until-empty", "--lease", "3")
    wait(lambda: trains(table), process)
    second = put(table, "a-1", **{**LONG, "recipe": "none"})
    seen = []

    def over() -> bool:
        seen.append(status(table, "a-1"))
        return process.poll() is not None

    wait(over)
    code, said = finish(process)
    assert code == 0, said
    assert status(table, "a-1")["job"] == second
    assert "recipe: found 'none'" in status(table, "a-1")["reason"]
    reasons = {each["job"]: each["reason"] for each in seen if each["state"] == "failed"}
    assert reasons.get(first, f"{URL}: was changed while it ran; nothing is published").startswith(URL)
    assert table.read("inference.json") is None


@pytest.mark.slow
def test_a_worker_whose_lease_is_lost_stops_and_writes_nothing_more(table, workspace):
    put(table, "a-1", **LONG)
    process = start(workspace, URL, "--lease", "3")
    wait(lambda: trains(table), process)
    taken = b'{"worker": "another", "attempt": 2, "seconds": 60}'
    table.write("jobs/a-1.lease.json", taken, anyway=True)
    code, said = finish(process)
    assert code == 1
    assert "another worker has taken over" in said
    before = {found.key: found.etag for found in table.objects("jobs/")}
    assert table.read("jobs/a-1.lease.json")[0] == taken
    assert status(table, "a-1")["state"] == "running"
    time.sleep(3)
    assert {found.key: found.etag for found in table.objects("jobs/")} == before
    assert list((workspace / "build/jobs").iterdir()) == []


@pytest.mark.slow
def test_a_job_goes_on_though_the_server_is_killed_for_longer_than_its_lease(own_s3, root, workspace):
    bucket = Bucket("team")
    bucket.upload(root / "datasets/breast-cancer/breast-cancer.csv", "data/breast-cancer.csv")
    put(bucket, "a-1", **masses(EPOCHS))
    process = start(workspace, "--watch", "s3://team/jobs/", "--until-empty", "--lease", "3")
    wait(lambda: trains(bucket), process)
    own_s3.kill()
    time.sleep(8)
    own_s3.start()
    code, said = finish(process)
    assert code == 0, said
    found = status(bucket, "a-1")
    assert (found["state"], found["attempt"], found["epoch"]) == ("done", 1, EPOCHS)
    assert list(entries.read(bucket)) == ["a-1"]


def test_the_first_signal_stops_and_the_second_one_ends():
    def ask() -> Any:
        return signal.getsignal(signal.SIGTERM)

    before = ask()
    with pytest.raises(Stopped), stoppable():  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            assert ask() == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert ask() == before
