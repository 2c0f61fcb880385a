"""A dataset that means harm, or is damaged, fails its job with the reason; nothing of it is unpacked."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from job_bench import finish, put, start, status  # type: ignore[import-not-found]

PHOTO = "flower/000.png"


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def linked(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        info = tarfile.TarInfo(PHOTO)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return file.getvalue()


def bomb(members: dict[str, bytes]) -> bytes:
    """Ten files of 110 MB of zeros in 1 MB."""
    return zipped(dict.fromkeys((f"flower/{number}.png" for number in range(10)), bytes(110_000_000)))


CASES: dict[str, tuple[str, Callable[[dict[str, bytes]], bytes], str]] = {
    "parent": (
        "a.zip",
        lambda photos: zipped({**photos, "flower/../../x.png": b"x"}),
        "'flower/../../x.png' points outside the archive; refused",
    ),
    "absolute": (
        "a.zip",
        lambda photos: zipped({**photos, "/tmp/x.png": b"x"}),
        "'/tmp/x.png' points outside the archive; refused",
    ),
    "link": ("a.tar.gz", linked, f"'{PHOTO}' is a link or a device; refused"),
    "bomb": ("a.zip", bomb, "unpacks to over 1,000,000,000 bytes; refused as a bomb"),
    "cut": ("a.zip", lambda photos: zipped(photos)[:-100], "expected a whole .zip archive, found: "),
    "text": ("a.zip", lambda photos: b"no archive", "expected a whole .zip archive, found: "),
}


@pytest.fixture
def photos(write_photos, tmp_path) -> dict[str, bytes]:
    folder = write_photos(tmp_path / "loose", 4)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.glob("*/*"))}


@pytest.mark.slow
def test_an_archive_that_means_harm_or_is_damaged_fails_its_job_with_the_reason(bucket, photos, tmp_path):
    folder = tmp_path / "worker"
    folder.mkdir()
    for id, (name, make, _) in CASES.items():
        bucket.write(f"data/{id}/{name}", make(photos))
        put(bucket, id, task="image", dataset=f"data/{id}/{name}")
    code, said = finish(start(folder, "--watch", "s3://team/jobs/", "--until-empty", "--lease", "5"))
    assert code == 0, said
    for id, (name, _, reason) in CASES.items():
        found = status(bucket, id)
        assert found["state"] == "failed", id
        assert found["stage"] == "prepare"
        assert found["reason"].startswith(f"prepare: data/{name}: ")
        assert reason in found["reason"]
        assert reason in bucket.read(f"jobs/{id}.log")[0].decode()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "loose" not in path.parts] == []
    assert not Path("/tmp/x.png").exists()
    assert bucket.read("inference.json") is None
