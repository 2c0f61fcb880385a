"""A job whose worker is killed, whenever that is, ends once and with the model of one that was left alone."""

import random
import re
import signal
import time
from threading import Timer

import pytest
from job_bench import finish, masses, names, put, start, status  # type: ignore[import-not-found]

from src.s3 import entries

KILLS, EPOCHS = 10, 20
FIT = {"steps_per_execution": 1, "checkpoint_every": {"minutes": 0.001}}
WATCH = ("--watch", "s3://team/jobs/", "--until-empty", "--lease", "2")


def begun(process) -> int:
    """Waits until a worker has taken a job; returns which attempt it is, 0 if it has ended without any."""
    for line in process.stdout:
        if found := re.search("attempt ([0-9]+) by", line):
            return int(found[1])
    return 0


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_ten_times_ends_once_with_the_same_model(bucket, root, workspace):
    table = root / "datasets/breast-cancer/breast-cancer.csv"
    bucket.upload(table, "data/breast-cancer.csv")
    put(bucket, "a-1", **masses(EPOCHS, **FIT))
    process = start(workspace, *WATCH)
    assert begun(process) == 1
    begin = time.monotonic()
    code, said = finish(process)
    whole = time.monotonic() - begin
    assert code == 0, said
    assert status(bucket, "a-1")["state"] == "done", said
    undisturbed = names(bucket, "models/")
    entry = entries.read(bucket)["a-1"]
    for found in list(bucket.objects()):
        if not found.key.startswith("data/"):
            bucket.delete(found.key)

    put(bucket, "a-1", **masses(EPOCHS, **FIT))
    draw = random.Random(6)
    kills = takeovers = ends = went_on = 0
    while kills < KILLS:
        process = start(workspace, *WATCH)
        attempt = begun(process)
        takeovers += attempt > 1
        timer = Timer(draw.uniform(0, 0.9 * whole), process.kill)
        timer.start()
        code, said = finish(process)
        timer.cancel()
        went_on += "goes on after epoch" in said
        kills += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL), said
        if code == 0:  # it came to its end: once more
            ends += 1
            assert status(bucket, "a-1")["state"] == "done"
            assert names(bucket, "models/") == undisturbed
            bucket.delete("jobs/a-1.status.json")
    process = start(workspace, *WATCH)
    takeovers += begun(process) > 1
    code, said = finish(process)
    assert code == 0, said
    print(
        f"{kills} kills within {whole:.0f} s of work, {takeovers} takeovers, {went_on} from a checkpoint, "
        f"{ends} ends between kills, 1 at last; entries: {len(entries.read(bucket))}"
    )
    assert status(bucket, "a-1")["state"] == "done"
    assert names(bucket) == ["a-1.json", "a-1.log", "a-1.status.json"]
    assert names(bucket, "models/") == undisturbed  # the same bytes: their digest is in their names
    assert {**entries.read(bucket)["a-1"], "created": ""} == {**entry, "created": ""}
    assert list(entries.read(bucket)) == ["a-1"]
    assert takeovers >= KILLS / 2
    assert went_on >= 2
    assert list((workspace / "build/jobs").iterdir()) == []
