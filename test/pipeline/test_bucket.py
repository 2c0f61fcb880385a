"""Files go into a bucket whole and come back as they were; what the store refuses is one clear sentence."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Timer

import pytest
from cutting_proxy import CuttingProxy  # type: ignore[import-not-found]

from src.errors import UserError
from src.files import sha256
from src.s3.bucket import PART, AwayError, Bucket, ChangedError, Location, Object
from src.s3.download import download, download_all
from src.s3.upload import upload_all


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
        patch.setattr("src.s3.download._verify", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
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


def test_a_large_file_that_is_there_already_does_not_come_again(bucket, large, tmp_path, monkeypatch):
    bucket.upload(large, "photos/large.bin")
    download_all(bucket, "photos", tmp_path / "photos")
    monkeypatch.setattr(Bucket, "read_part", lambda *_: pytest.fail("was downloaded again"))
    download_all(bucket, "photos", tmp_path / "photos")


def test_what_other_programs_put_there_comes_too(bucket, tmp_path, monkeypatch):
    """Markers of folders, empty files, names with any character, more files than one page of a listing."""
    monkeypatch.setattr("src.s3.bucket.PAGE", 3)
    names = {"empty.txt": b"", "of days/line\nbreak \t\"<&>' é.txt": b"x", "a+b %2F?#.txt": b"y"}
    names |= {f"many/{number}.txt": b"z" for number in range(10)}
    for key in ("photos/of days/", "photos2/not here.txt"):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"")
    for name, content in names.items():
        bucket.client.put_object(Bucket=bucket.name, Key=f"photos/{name}", Body=content)
    download_all(bucket, "photos", tmp_path / "photos")
    came = {path.relative_to(tmp_path / "photos").as_posix() for path in (tmp_path / "photos").rglob("*.txt")}
    assert came == set(names)
    assert all((tmp_path / "photos" / name).read_bytes() == content for name, content in names.items())


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["a", "a/b"], "photos/a: is a file, and s3://team/photos/a/b is in it"),
        (["a/b", "a//b"], "photos/a//b: would be the same file as s3://team/photos/a/b"),
    ],
)
def test_keys_that_no_folder_can_hold_are_refused(bucket, tmp_path, monkeypatch, keys, reason):
    # SeaweedFS has folders itself, AWS has none.
    found = [Object(f"photos/{key}", 1, '"e"') for key in keys]
    monkeypatch.setattr(Bucket, "objects", lambda self, prefix: iter(found))
    with pytest.raises(UserError, match=reason):
        download_all(bucket, "photos/", tmp_path / "photos")
    assert not (tmp_path / "photos").exists()


def test_a_place_that_cannot_be_written_is_said(bucket, tmp_path):
    bucket.write("photos/a/b.txt", b"b")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a").write_text("in the way")
    with pytest.raises(UserError, match=r"a/b.txt: cannot be written: (File exists|Not a directory)"):
        download_all(bucket, "photos/", tmp_path / "photos")


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_etag_of_a_file_that_kms_encrypted_is_not_taken_for_its_md5(
    bucket, tmp_path, monkeypatch, encrypted
):
    # SeaweedFS has no KMS; AWS gives such files an ETag of the same form.
    bucket.write("a.txt", b"a")
    found = Object("a.txt", 1, '"00000000000000000000000000000000"', encrypted=encrypted)
    monkeypatch.setattr(Bucket, "find", lambda self, key: found)
    monkeypatch.setattr(Bucket, "read", lambda self, key: (b"a", found))
    if encrypted:
        download(bucket, "a.txt", tmp_path / "a.txt")
        assert (tmp_path / "a.txt").read_bytes() == b"a"
    else:
        with pytest.raises(UserError, match="came with the MD5 0cc175b9c0f1b6a831c399e269772661, expected 0"):
            download(bucket, "a.txt", tmp_path / "a.txt")


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
    monkeypatch.setattr("src.s3.bucket.ATTEMPTS", 1)
    with pytest.raises(AwayError, match="the store does not answer"):
        Bucket("team", "http://127.0.0.1:9").read("a.json")


def test_a_write_whose_answer_was_lost_counts_as_written(bucket):
    first = bucket.write("a.json", b"1")
    assert bucket.write("a.json", b"1") == first


@pytest.fixture
def cut(s3, bucket) -> Iterator[Callable[..., Bucket]]:
    """Returns the bucket behind a proxy that closes its first connections after so many bytes of answers."""
    proxies: list[CuttingProxy] = []

    def reach(*cuts: int) -> Bucket:
        proxies.append(CuttingProxy(s3.ports[3], list(cuts)))
        return Bucket(bucket.name, proxies[-1].url)

    yield reach
    for proxy in proxies:
        proxy.close()


def test_what_was_done_though_its_answer_was_lost_is_done(bucket, cut):
    first = cut(0).write("a.json", b"1")
    second = cut(0, 0).write("a.json", b"2", over=first)
    assert bucket.read("a.json")[1].etag == second
    cut(0).delete("a.json", over=second)
    assert bucket.read("a.json") is None


def test_an_answer_that_is_cut_off_comes_again(bucket, cut, large, tmp_path):
    bucket.upload(large, "large.bin")
    content = os.urandom(100_000)
    bucket.write("small.bin", content)
    assert cut(50_000, 90_000).read("small.bin")[0] == content
    download(cut(100_000, 200, PART), "large.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == large.read_bytes()


def test_an_upload_goes_through_though_connections_are_lost_in_it(bucket, cut, large):
    cut(10_000, 0, 0, 0).upload(large, "large.bin")
    assert bucket.find("large.bin").size == large.stat().st_size


@pytest.mark.parametrize("done", [True, False])
def test_an_upload_whose_last_answer_was_lost_is_whole(bucket, large, monkeypatch, done):
    # SeaweedFS remembers what it has done, AWS answers NoSuchUpload to what is asked again after a while.
    complete = bucket.client.complete_multipart_upload

    def again(**request):
        if done:
            complete(**request)
        return complete(**{**request, "UploadId": "forgotten"})

    monkeypatch.setattr(bucket.client, "complete_multipart_upload", again)
    if done:
        bucket.upload(large, "large.bin")
        assert bucket.find("large.bin").sha256 == sha256(large)
    else:
        with pytest.raises(ChangedError):
            bucket.upload(large, "large.bin")
        assert bucket.find("large.bin") is None


def test_a_bucket_that_keeps_versions_is_like_another(s3, bucket):
    s3.make_bucket("versions")
    kept = Bucket("versions")
    kept.client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    first = kept.write("a.json", b"1")
    second = kept.write("a.json", b"2", over=first)
    with pytest.raises(ChangedError):
        kept.write("a.json", b"3", over=first)
    kept.delete("a.json", over=second)
    assert kept.read("a.json") is None
    assert kept.find("a.json") is None
    assert list(kept.objects()) == []
    kept.write("a.json", b"4")
    assert [found.key for found in kept.objects()] == ["a.json"]


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


def test_a_missing_bucket_is_said(s3, bucket, tmp_path):
    with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
        list(Bucket("nowhere").objects())
    with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
        download(Bucket("nowhere"), "x", tmp_path / "x")
    with pytest.raises(UserError, match="s3://team/x: not found"):
        download(bucket, "x", tmp_path / "x")


def test_an_address_that_is_none_is_said():
    with pytest.raises(UserError, match="found 'team/x', expected s3://bucket/key"):
        Location.parse("team/x")


@pytest.mark.slow
def test_an_upload_goes_through_though_the_server_dies_in_it(own_s3, large, tmp_path):
    bucket = Bucket("team")
    large.write_bytes(os.urandom(6 * PART))
    sent = []

    def kill(count: int) -> None:
        sent.append(count)
        if sum(sent) >= 2 * PART and own_s3.process is not None and not restarts:
            own_s3.kill()
            restarts.append(Timer(0.1, own_s3.start))
            restarts[0].start()

    restarts: list[Timer] = []
    bucket.upload(large, "large.bin", kill)
    restarts[0].join()
    download(bucket, "large.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == large.read_bytes()
