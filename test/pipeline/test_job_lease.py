"""One worker has a lease; when it is silent another one takes over, and the first can do nothing more."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Timer
from typing import Any

import pytest

from src.jobs import lease as leases
from src.jobs.lease import CLOCK, LostError
from src.jobs.status import Status, queue, read
from src.s3.bucket import AwayError, Bucket

KEY = "jobs/a.lease.json"
SECONDS = 1.0
take: Any = leases.take


@pytest.fixture
def expire(bucket) -> Callable[[], None]:
    """Waits until the lease in the bucket has expired."""

    def wait() -> None:
        while bucket.read(KEY)[1].age < SECONDS + CLOCK:
            time.sleep(0.1)

    return wait


def test_of_sixteen_workers_one_gets_the_lease(bucket):
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda number: take(bucket, KEY, f"w{number}", 60), range(16)))
    (lease,) = [each for each in taken if each]
    said = json.loads(bucket.read(KEY)[0])
    assert (said["worker"], said["attempt"]) == (lease.worker, 1)


def test_of_sixteen_workers_one_takes_over_what_has_expired(bucket, expire):
    first = take(bucket, KEY, "first", SECONDS)
    expire()
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda number: take(bucket, KEY, f"w{number}", 60), range(16)))
    (lease,) = [each for each in taken if each]
    assert lease.attempt == 2
    with pytest.raises(LostError):
        first.renew()
    assert first.lost.is_set()
    assert json.loads(bucket.read(KEY)[0])["worker"] == lease.worker


def test_a_lease_that_is_kept_does_not_expire_and_one_given_back_is_free(bucket):
    lease = take(bucket, KEY, "first", SECONDS)
    lease.keep()
    end = time.monotonic() + 3 * (SECONDS + CLOCK)
    while time.monotonic() < end:
        assert take(bucket, KEY, "second", SECONDS) is None
        time.sleep(0.1)
    assert lease.beats >= 6
    lease.release()
    assert take(bucket, KEY, "second", SECONDS).attempt == 1


def test_how_long_a_lease_lasts_is_said_by_who_has_it(bucket, expire):
    take(bucket, KEY, "first", 60)
    time.sleep(SECONDS + CLOCK)
    assert take(bucket, KEY, "second", SECONDS) is None


def test_a_damaged_lease_expires_too(bucket, expire):
    bucket.write(KEY, b"{")
    assert take(bucket, KEY, "second", SECONDS) is None
    expire()
    assert take(bucket, KEY, "second", SECONDS).attempt == 2


def test_a_lease_that_is_gone_is_lost(bucket):
    lease = take(bucket, KEY, "first", SECONDS)
    bucket.delete(KEY)
    with pytest.raises(LostError):
        lease.renew()
    assert bucket.read(KEY) is None


def test_a_renewal_whose_answer_was_lost_is_no_loss(bucket, monkeypatch):
    lease = take(bucket, KEY, "first", SECONDS)
    write = Bucket.write

    def lose(*arguments, **keywords) -> str:
        write(*arguments, **keywords)
        raise AwayError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "write", lose)
        with pytest.raises(AwayError):
            lease.renew()
    lease.renew()
    lease.renew()
    assert not lease.lost.is_set()


def test_a_store_that_is_away_for_longer_than_the_lease_takes_it_from_nobody(own_s3, monkeypatch, capsys):
    monkeypatch.setattr("src.s3.bucket.ATTEMPTS", 1)
    bucket = Bucket("team")
    lease = take(bucket, KEY, "first", SECONDS)
    lease.keep()
    own_s3.kill()
    time.sleep(SECONDS + CLOCK + 1)
    assert not lease.lost.is_set()
    assert "the training goes on" in capsys.readouterr().out
    own_s3.start()
    beats = lease.beats
    while lease.beats == beats:
        time.sleep(0.1)
    assert not lease.lost.is_set()
    lease.release()
    assert bucket.read(KEY) is None


@pytest.mark.parametrize("state", ["running", "done", "failed", "queued"])
def test_a_worker_that_lost_its_lease_cannot_change_the_status(bucket, expire, state):
    first = take(bucket, KEY, "first", SECONDS)
    status = Status(bucket, "jobs/a.status.json", first, "etag", None)
    status.write(stage="fit")
    expire()
    second = take(bucket, KEY, "second", SECONDS)
    _, etag = read(bucket, "jobs/a.status.json")
    Status(bucket, "jobs/a.status.json", second, "etag", etag).write(stage="prepare")
    with pytest.raises(LostError):
        status.write(state, stage="score")
    said, _ = read(bucket, "jobs/a.status.json")
    assert (said["worker"], said["stage"], said["attempt"]) == ("second", "prepare", 2)


def test_the_holder_of_the_lease_writes_over_what_others_say(bucket):
    lease = take(bucket, KEY, "first", 60)
    queue(bucket, "jobs/a.status.json", "etag")
    Status(bucket, "jobs/a.status.json", lease, "etag", None).write(stage="fit")
    queue(bucket, "jobs/a.status.json", "etag")
    assert read(bucket, "jobs/a.status.json")[0]["state"] == "running"


def test_two_requests_that_the_store_takes_for_a_conflict_are_no_loss(bucket, monkeypatch):
    # AWS may answer 409 to one of two requests at once, though nothing was changed.
    lease = take(bucket, KEY, "first", 60)
    write, calls = Bucket.write, []

    def conflict(self, key, content, **keywords) -> str:
        calls.append(key)
        if len(calls) == 1:
            raise self.changed(key)
        return write(self, key, content, **keywords)

    monkeypatch.setattr(Bucket, "write", conflict)
    lease.renew()
    assert len(calls) == 2
    assert not lease.lost.is_set()
    assert leases.TRIES > 1


def test_a_lease_that_is_renewed_and_released_at_once_ends_released(bucket):
    lease = take(bucket, KEY, "first", SECONDS)
    timer = Timer(0, lease.renew)
    timer.start()
    lease.release()
    timer.join()
    assert bucket.read(KEY) is None
