"""Archives: read whatever their kind, and refused when they are damaged or mean harm."""

import io
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from src import dataset
from src.dataset import content
from src.errors import UserError
from src.params import Data
from src.tasks import image

KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]


@pytest.fixture
def read(workspace):
    """Reads an archive of images."""

    def run(path):
        spool = workspace / "spool"
        shutil.rmtree(spool, ignore_errors=True)
        spool.mkdir()
        return image.read(Data(path=str(path)), spool)

    return run


def pack(path: Path, members: dict[str, bytes]) -> Path:
    """Packs files by name and content, in the kind of archive that the path's ending says."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path
    kind = {"gz": "gz", "tgz": "gz", "bz2": "bz2", "xz": "xz"}.get(path.name.split(".")[-1], "")
    with tarfile.open(path, f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def photos(write_photos, tmp_path) -> dict[str, bytes]:
    """Twelve photographs by their names in class folders."""
    folder = write_photos(tmp_path / "loose", 4)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.glob("*/*"))}


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_gives_the_same_table_as_the_folder(read, photos, workspace, kind):
    table = read(pack(workspace / f"photos.{kind}", photos))
    folder = image.read(Data(path="loose"), workspace)
    assert table["id"].tolist() == folder["id"].tolist()
    assert table["label"].tolist() == folder["label"].tolist()
    assert [content(cell) for cell in table["input"]] == [content(cell) for cell in folder["input"]]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_one_folder_around_everything_is_seen_through(read, photos, workspace, kind):
    members = {f"my photos/{name}": data for name, data in photos.items()}
    members["my photos/README.md"] = b"about"
    members["__MACOSX/my photos/flower/._000.png"] = b"what macOS adds"
    table = read(pack(workspace / f"photos.{kind}", members))
    assert Counter(table["label"]) == {"flower": 4, "portrait": 4, "temple": 4}


def test_split_folders_in_an_archive_declare_the_split(read, photos, workspace):
    members = {f"all/{split}/{name}": data for split in ("train", "test") for name, data in photos.items()}
    table = read(pack(workspace / "photos.zip", members))
    assert Counter(table["split"]) == {"train": 12, "test": 12}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    "name",
    ["../escaped.png", "flower/../../escaped.png", "/escaped.png", "..\\escaped.png", "C:\\escaped.png"],
)
def test_a_member_that_points_outside_is_refused_and_nothing_is_written(read, photos, tmp_path, kind, name):
    archive = pack(tmp_path / f"evil.{kind}", {**photos, name: b"x"})
    with pytest.raises(UserError) as error:
        read(archive)
    assert str(error.value) == f"{archive}: member {name!r} points outside the archive; refused"
    assert not list(tmp_path.parent.glob("escaped*"))
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_in_a_tar_is_refused(read, workspace, kind):
    path = workspace / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("flower/secret.png")
        info.type = kind
        info.linkname = "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UserError, match=r"member 'flower/secret\.png' is a link or a device; refused"):
        read(path)


def test_a_link_in_a_zip_is_not_followed(read, photos, workspace):
    path = pack(workspace / "evil.zip", photos)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("flower/secret.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    table = read(path)
    assert content(table.loc[table["id"] == "flower/secret.png", "input"].item()) == b"/etc/passwd"


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_unpacks_to_far_too_much_is_refused(read, workspace, monkeypatch, kind):
    monkeypatch.setattr(dataset, "LEAST", 1_000_000)
    path = workspace / f"bomb.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("flower/0.png", bytes(20_000_000))
    else:
        pack(path, {"flower/0.png": bytes(20_000_000)})
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"unpacks to over [\d,]+ bytes; refused as a bomb"):
        read(path)
    assert sum(file.stat().st_size for file in (workspace / "spool").rglob("*")) < 10_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_is_cut_short_anywhere_is_refused(read, photos, workspace, kind):
    # What tar pads its end with is zeros that nobody misses: the cuts stay clear of it.
    path = pack(workspace / f"photos.{kind}", photos)
    whole = path.read_bytes()
    end = sum(len(data) for data in photos.values()) if kind == "tar" else len(whole) - 100
    for cut in [*np.linspace(0, end, 25, dtype=int), 512, 1024 + len(next(iter(photos.values())))]:
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: expected a whole {path.suffix} archive, found: ")


def test_a_tar_cut_between_two_members_is_refused(read, photos, workspace):
    path = pack(workspace / "photos.tar", photos)
    with tarfile.open(path) as archive:
        starts = [member.offset for member in archive]
    path.write_bytes(path.read_bytes()[: starts[6]])
    with pytest.raises(UserError, match="ends early or is damaged"):
        read(path)


def test_something_else_called_zip_is_refused(read, workspace):
    (workspace / "photos.zip").write_text("not an archive")
    with pytest.raises(
        UserError, match=r"photos\.zip: expected a whole \.zip archive, found: File is not a zip"
    ):
        read(workspace / "photos.zip")
