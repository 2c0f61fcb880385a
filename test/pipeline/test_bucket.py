"""Files go into a bucket whole and come back as they were; what the store refuses is one clear sentence."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Timer

import pytest

from src.bucket import PART, AwayError, Bucket, ChangedError, Location, Object
from src.download import download, download_all
from src.errors import UserError
from src.files import sha256
from src.upload import upload_all


@pytest.fixture
def large(tmp_path):
    """A file of several parts."""
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(3 * PART + 17))
    return path


def test_a_large_file_comes_back_as_it_went(bucket, large, tmp_path):
    bucket.upload(large, "data/large.bin")
    download(bucket, "data/large.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == large.read_bytes()
    assert bucket.find("data/large.bin").sha256 == hashlib.sha256(large.read_bytes()).hexdigest()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_download_that_was_cut_off_goes_on(bucket, large, tmp_path, monkeypatch):
    bucket.upload(large, "large.bin")
    read, asked = Bucket.read_part, []

    def cut(self, found, start, end):
        if start == 2 * PART:
            raise UserError("cut off")
        return read(self, found, start, end)

    monkeypatch.setattr(Bucket, "read_part", cut)
    with pytest.raises(UserError, match="cut off"):
        download(bucket, "large.bin", tmp_path / "back.bin")
    assert not (tmp_path / "back.bin").exists()

    def count(self, found, start, end):
        asked.append(start)
        return read(self, found, start, end)

    monkeypatch.setattr(Bucket, "read_part", count)
    download(bucket, "large.bin", tmp_path / "back.bin")
    assert 0 not in asked
    assert (tmp_path / "back.bin").read_bytes() == large.read_bytes()


def test_a_file_that_changes_between_two_attempts_is_downloaded_anew(bucket, large, tmp_path, monkeypatch):
    bucket.upload(large, "large.bin")
    with monkeypatch.context() as patch:
        patch.setattr("src.download._verify", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            download(bucket, "large.bin", tmp_path / "back.bin")
    large.write_bytes(os.urandom(3 * PART + 17))
    bucket.upload(large, "large.bin")
    download(bucket, "large.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == large.read_bytes()


def test_a_file_that_is_not_what_it_should_be_is_refused(bucket, tmp_path):
    bucket.write("small.txt", b"hello")
    with pytest.raises(
        UserError, match=r"s3://team/.*small.txt: came with the SHA-256 2cf24d.*, expected 000"
    ):
        download(bucket, "small.txt", tmp_path / "small.txt", expected="000")
    assert not (tmp_path / "small.txt").exists()


def test_a_folder_comes_whole_and_only_what_is_missing_comes_again(bucket, tmp_path, monkeypatch):
    for number in range(20):
        bucket.write(f"photos/{number % 3}/{number}.txt", f"number {number}".encode())
    download_all(bucket, "photos/", tmp_path / "photos")
    assert (tmp_path / "photos/1/19.txt").read_text() == "number 19"
    (tmp_path / "photos/1/19.txt").write_text("another")
    asked, read = [], Bucket.read

    def count(self, key):
        asked.append(key)
        return read(self, key)

    monkeypatch.setattr(Bucket, "read", count)
    download_all(bucket, "photos/", tmp_path / "photos")
    assert asked == ["photos/1/19.txt"]
    assert (tmp_path / "photos/1/19.txt").read_text() == "number 19"


def test_a_folder_goes_whole(bucket, large, tmp_path):
    folder = tmp_path / "run"
    (folder / "empty folder").mkdir(parents=True)
    (folder / "plots/of days").mkdir(parents=True)
    names = ["a.txt", "plots/empty", "plots/of days/é + %41 & '\u4e2d'.png", "plots/large.bin"]
    for name in names[:3]:
        (folder / name).write_bytes(name.encode() if name != "plots/empty" else b"")
    large.rename(folder / "plots/large.bin")
    assert upload_all(bucket, folder, "results/7/") == sorted(f"results/7/{name}" for name in names)
    download_all(bucket, "results/7/", tmp_path / "back")
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
        assert bucket.find(f"results/7/{name}").sha256 == sha256(folder / name)
    assert bucket.find("results/7/plots/large.bin").size == 3 * PART + 17


def test_a_folder_without_files_is_not_uploaded(bucket, tmp_path):
    with pytest.raises(UserError, match="there are no files to upload"):
        upload_all(bucket, tmp_path, "results/7/")


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "a\\..\\evil.txt"])
def test_a_key_that_leads_out_of_its_folder_is_refused(bucket, tmp_path, monkeypatch, name):
    # SeaweedFS does not take such keys, AWS does.
    monkeypatch.setattr(Bucket, "objects", lambda self, prefix: iter([Object(prefix + name, 4, '"e"')]))
    with pytest.raises(UserError, match="leads out of its folder"):
        download_all(bucket, "photos/", tmp_path / "photos")
    assert not (tmp_path / "photos").exists()


def test_of_two_writers_who_saw_the_same_one_is_told(bucket):
    first = bucket.write("a.json", b"1")
    with pytest.raises(ChangedError):
        bucket.write("a.json", b"2")
    second = bucket.write("a.json", b"2", over=first)
    with pytest.raises(ChangedError, match=r"a.json: was changed meanwhile"):
        bucket.write("a.json", b"3", over=first)
    assert bucket.read("a.json")[0] == b"2"
    with pytest.raises(ChangedError):
        bucket.delete("a.json", over=first)
    bucket.delete("a.json", over=second)
    assert bucket.read("a.json") is None


def test_what_was_to_be_replaced_and_is_gone_has_changed(bucket):
    first = bucket.write("a.json", b"1")
    bucket.delete("a.json")
    with pytest.raises(ChangedError):
        bucket.write("a.json", b"2", over=first)
    assert bucket.read("a.json") is None


def test_a_store_that_does_not_answer_is_away(bucket, monkeypatch):
    monkeypatch.setattr("src.bucket.ATTEMPTS", 1)
    with pytest.raises(AwayError, match="the store does not answer"):
        Bucket("team", "http://127.0.0.1:9").read("a.json")


def test_a_write_whose_answer_was_lost_counts_as_written(bucket):
    first = bucket.write("a.json", b"1")
    assert bucket.write("a.json", b"1") == first


def test_one_of_sixteen_wins(bucket):
    def take(number: int) -> bool:
        try:
            bucket.write("lease", str(number).encode())
        except ChangedError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(take, range(16))) == 1


def test_a_wrong_secret_is_said(s3, monkeypatch):
    for name, value in s3.environment("stranger").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"s3://team/x: cannot read: the store does not accept these cred"):
        Bucket("team").read("x")


def test_what_one_may_only_read_cannot_be_written(s3, bucket, monkeypatch):
    bucket.write("x", b"there")
    for name, value in s3.environment("reader").items():
        monkeypatch.setenv(name, value)
    reader = Bucket(bucket.name)
    assert [found.key for found in reader.objects()] == ["x"]
    with pytest.raises(UserError, match=r"cannot write: these credentials may not \(403 AccessDenied\)"):
        reader.write("y", b"")


def test_no_credentials_are_said(s3, monkeypatch):
    for name, value in s3.environment("reader").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(UserError, match="no credentials; expected AWS_ACCESS_KEY_ID"):
        Bucket("team").read("x")


def test_a_missing_bucket_is_said(s3, bucket):
    with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
        list(Bucket("nowhere").objects())


def test_an_address_that_is_none_is_said():
    with pytest.raises(UserError, match="found 'team/x', expected s3://bucket/key"):
        Location.parse("team/x")


def test_an_upload_goes_through_though_the_server_dies_in_it(own_s3, large, tmp_path):
    bucket = Bucket("team")
    large.write_bytes(os.urandom(20 * PART))
    sent = []

    def kill(count: int) -> None:
        sent.append(count)
        if len(sent) == 40:
            own_s3.kill()
            Timer(1, own_s3.start).start()

    bucket.upload(large, "large.bin", kill)
    download(bucket, "large.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == large.read_bytes()
