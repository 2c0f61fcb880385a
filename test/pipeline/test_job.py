"""A job that cannot be run says why, once; a store that refuses is said at once. Nothing is left behind."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_bench import MASSES, names, put, start, status  # type: ignore[import-not-found]

from src.jobs.worker import Worker
from src.s3.bucket import Bucket
from src.train import job

URL = "s3://team/jobs/a-1.json"


@pytest.fixture
def run_job(workspace, run_command) -> Callable[..., tuple[int, str]]:
    """Runs the command in an empty folder; a lease lasts a second."""
    return lambda *arguments: run_command(job.main, *arguments, "--lease", "1")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "task: missing; this key is required"),
        ({**MASSES, "datset": ""}, "datset: unknown key; did you mean 'dataset'?"),
        ({**MASSES, "params": {"architecture": "cnm"}}, "params: architecture: .* there is no 'cnm'"),
        ({**MASSES, "params": {"fit": {"epochs": "9"}}}, "params: fit.epochs: found '9', expected "),
        ({**MASSES, "dataset": "data/none.csv"}, "s3://team/data/none.csv: not found"),
        ({**MASSES, "dataset": "s3://nowhere/x.csv"}, "s3://nowhere/x.csv"),
        ({**MASSES, "dataset": "nothing/"}, "s3://team/nothing/: there are no files"),
        ({**MASSES, "sha256": "0" * 64}, "breast-cancer.csv: came with the SHA-256 .*, expected 000"),
    ],
)
def test_a_job_that_cannot_be_run_fails_with_the_reason(bucket, root, run_job, fields, said):
    bucket.upload(root / "datasets/breast-cancer/breast-cancer.csv", "data/breast-cancer.csv")
    etag = put(bucket, "a-1", **fields)
    code, error = run_job(URL)
    found = status(bucket, "a-1")
    assert code == 1
    assert error == f"error: {URL}: failed: {found['reason']}"
    assert re.search(said, found["reason"])
    assert (found["state"], found["job"], found["attempt"]) == ("failed", etag, 1)
    assert names(bucket) == ["a-1.json", "a-1.status.json"]
    assert list(Path("build/jobs").iterdir()) == []
    assert run_job(URL) == (code, error)  # it is not run again
    assert status(bucket, "a-1") == found


def test_what_is_no_json_fails_with_the_reason(bucket, run_job):
    bucket.write("jobs/a-1.json", b"epochs: 3")
    assert run_job(URL)[0] == 1
    assert f"{URL}: expected JSON, found something else" in status(bucket, "a-1")["reason"]


@pytest.mark.parametrize("name", ["jobs/...json", "jobs/a b.json", "jobs/.json"])
def test_a_name_that_is_no_id_fails_and_touches_nothing(bucket, run_job, name):
    Path("build").mkdir()
    Path("build/kept").touch()
    bucket.write(name, b'{"id": "..", "task": "image", "dataset": "x"}')
    assert run_job("--watch", "s3://team/jobs/", "--until-empty") == (0, "")
    assert '"failed"' in bucket.read(name.removesuffix(".json") + ".status.json")[0].decode()
    assert Path("build/kept").exists()


def test_a_job_that_is_not_there_is_said(bucket, run_job):
    assert run_job(URL) == (1, f"error: {URL}: not found")


def test_jobs_wait_as_queued_and_one_that_is_put_anew_runs_again(bucket, run_job):
    first = put(bucket, "a", **MASSES)
    put(bucket, "b", **MASSES)
    assert Worker(bucket, 1, 20).waiting("jobs/") == ["jobs/a.json", "jobs/b.json"]
    assert status(bucket, "a")["state"] == status(bucket, "b")["state"] == "queued"
    assert run_job("--watch", "s3://team/jobs/", "--until-empty") == (0, "")
    assert status(bucket, "a")["state"] == status(bucket, "b")["state"] == "failed"
    before = status(bucket, "b")
    second = put(bucket, "a", **{**MASSES, "recipe": "none"})
    assert Worker(bucket, 1, 20).waiting("jobs/") == ["jobs/a.json"]
    assert (status(bucket, "a")["state"], status(bucket, "a")["job"]) == ("queued", second)
    assert run_job("--watch", "s3://team/jobs/", "--until-empty") == (0, "")
    assert status(bucket, "a")["job"] == second != first
    assert "recipe: found 'none'" in status(bucket, "a")["reason"]
    assert status(bucket, "b") == before
    bucket.delete("jobs/a.status.json")  # what runs one again as it is
    assert Worker(bucket, 1, 20).waiting("jobs/") == ["jobs/a.json"]


def test_a_job_with_which_too_many_workers_died_fails(bucket, run_job):
    put(bucket, "a-1", **MASSES)
    bucket.write("jobs/a-1.lease.json", b'{"worker": "w", "attempt": 3, "seconds": 0}')
    assert run_job("--watch", "s3://team/jobs/", "--until-empty", "--attempts", "3") == (0, "")
    found = status(bucket, "a-1")
    assert (found["attempt"], found["reason"]) == (4, "3 workers have taken it up and died")


def test_what_a_worker_left_that_died_as_it_ended_is_cleared(bucket, run_job):
    put(bucket, "a-1", **MASSES)
    assert run_job(URL)[0] == 1
    before = names(bucket)
    bucket.write("jobs/a-1.lease.json", b'{"worker": "w", "attempt": 1, "seconds": -1}')
    bucket.write("jobs/a-1.checkpoint.npz", b"")
    assert run_job("--watch", "s3://team/jobs/", "--until-empty") == (0, "")
    assert names(bucket) == before


def test_a_job_that_another_worker_has_is_left_to_it(bucket, run_job):
    put(bucket, "a-1", **MASSES)
    lease = b'{"worker": "w", "attempt": 1, "seconds": 60}'
    bucket.write("jobs/a-1.lease.json", lease)
    assert run_job(URL) == (1, f"error: {URL}: another worker runs it")
    assert bucket.read("jobs/a-1.lease.json")[0] == lease
    assert status(bucket, "a-1") == {}


@pytest.mark.parametrize("arguments", [(URL,), ("--watch", "s3://team/jobs/")])
@pytest.mark.parametrize(
    ("identity", "said"),
    [("stranger", "does not accept these credentials"), ("reader", "these credentials may not")],
)
def test_a_store_that_refuses_is_said_at_once(bucket, s3, run_job, monkeypatch, arguments, identity, said):
    put(bucket, "a-1", **MASSES)
    for name, value in s3.environment(identity).items():
        monkeypatch.setenv(name, value)
    code, error = run_job(*arguments)
    assert code == 1
    assert said in error
    assert f"{identity}-secret" not in error
    assert names(Bucket("team")) == ["a-1.json"] if identity == "reader" else True


def test_a_bucket_that_is_not_there_is_said(bucket, run_job):
    for arguments in (("s3://nowhere/jobs/a.json",), ("--watch", "s3://nowhere/jobs/")):
        code, error = run_job(*arguments)
        assert code == 1
        assert "there is no bucket 'nowhere'" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["s3://team/jobs/"], "expected an address that ends with .json"),
        (["--watch", "s3://team/jobs"], "expected an address that ends with /"),
        (["s3://team/a.json", "--lease", "0"], "expected seconds from 1 up"),
    ],
)
def test_wrong_usage_is_said(run_job, run_command, workspace, arguments: list[str], said, capsys):
    assert run_command(job.main, *arguments) == (2, "")
    assert said in capsys.readouterr().err


def test_a_worker_that_waits_ends_when_it_is_told_to(bucket, workspace):
    process: Any = start(workspace, "--watch", "s3://team/jobs/")
    assert "watches s3://team/jobs/" in process.stdout.readline()
    process.terminate()
    said = process.communicate()[0]
    assert process.returncode == 0
    assert said == "ended as asked; the job, if there was one, is left to other workers\n"
