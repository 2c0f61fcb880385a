"""What was published comes back whole from wherever it is, and nothing else is put in place."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from src.checksums import SUMS
from src.publish import fetch
from src.s3 import entries
from src.stores import folder, gitlab
from src.stores import s3 as bucket_store

FETCHED = Path("build/fetched")


def whole(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture
def from_folder(bundled, tmp_path) -> tuple[list[str], Callable, Callable]:
    """A version in a folder: how it is fetched, and how a file of it is written or deleted there."""
    shelf = tmp_path / "shelf"
    folder.put(bundled, "1.0.0", folder.Options(shelf))
    return (
        ["latest", "--store", f"folder:{shelf}"],
        lambda name, content: (shelf / "1.0.0" / name).write_bytes(content),
        lambda name: (shelf / "1.0.0" / name).unlink(),
    )


@pytest.fixture
def from_s3(bundled, bucket) -> tuple[list[str], Callable, Callable]:
    """A version in a bucket."""
    options = bucket_store.Options(bucket, "shop/")
    bucket_store.put(bundled, "1.0.0", options)
    where = entries.files(entries.read(bucket, "shop/")["1.0.0"])
    return (
        ["1.0.0", "--store", "s3:s3://team/shop"],
        lambda name, content: bucket.write(where + name, content, anyway=True),
        lambda name: bucket.delete(where + name),
    )


@pytest.fixture
def from_entry(bundled, bucket) -> tuple[list[str], Callable, Callable]:
    """A job's entry in a bucket."""
    where = entries.files(entries.publish(bucket, "job-7", bundled, "now"))
    return (
        ["job-7", "--store", "s3:s3://team"],
        lambda name, content: bucket.write(where + name, content, anyway=True),
        lambda name: bucket.delete(where + name),
    )


@pytest.fixture
def from_registry(bundled, server) -> tuple[list[str], Callable, Callable]:
    """A version in GitLab's registry."""
    options = gitlab.options(None, os.environ)
    assert options
    gitlab.put(bundled, "1.0.0", options)
    files = server.visible()["1.0.0"]
    return ["latest", "--store", "gitlab"], files.__setitem__, files.pop


@pytest.fixture
def from_job(bundled, server) -> tuple[list[str], Callable, Callable]:
    """The artifact of a job on GitLab."""
    files = server.artifacts["5417"] = {f"build/bundle/{name}": data for name, data in whole(bundled).items()}
    return (
        ["5417"],
        lambda name, content: files.__setitem__(f"build/bundle/{name}", content),
        lambda name: files.pop(f"build/bundle/{name}"),
    )


SOURCES = ["folder", "s3", "entry", "registry", "job"]


@pytest.fixture(params=SOURCES)
def source(request) -> tuple[list[str], Callable, Callable]:
    """A model published somewhere: the arguments that fetch it; functions that write and delete its files."""
    found: tuple[list[str], Callable, Callable] = request.getfixturevalue(f"from_{request.param}")
    return found


def test_what_was_published_is_fetched_byte_for_byte(source, bundled, run_command):
    arguments, *_ = source
    assert run_command(fetch.main, *arguments) == (0, "")
    assert whole(FETCHED) == whole(bundled)
    assert run_command(fetch.main, *arguments) == (0, "")  # over an earlier one


DAMAGE = {
    "changed": (lambda write, delete: write("model.keras", b"the Weights"), "model.keras"),
    "truncated": (lambda write, delete: write("model.onnx", b"the weights, for"), "model.onnx"),
    "missing": (lambda write, delete: delete("metrics.json"), "metrics.json"),
    "sums missing": (lambda write, delete: delete(SUMS), SUMS),
    "sums cut": (lambda write, delete: write(SUMS, b"0123456789"), SUMS),
    "sums lead out": (lambda write, delete: write(SUMS, f"{'0' * 64}  ../../x\n".encode()), SUMS),
    "sums are noise": (lambda write, delete: write(SUMS, b"\xff\xfe\x00" * 30), SUMS),
}


# What is the same code for all sources is tried on three of them.
@pytest.mark.parametrize(
    ("source", "damage"),
    [(name, kind) for name in SOURCES for kind in DAMAGE if name in SOURCES[::2] or "sums" not in kind],
    indirect=["source"],
)
def test_what_is_damaged_is_a_sentence_and_nothing_is_put_in_place(source, run_command, damage):
    arguments, write, delete = source
    alter, name = DAMAGE[damage]
    alter(write, delete)
    before = sorted(Path("build").iterdir())
    code, message = run_command(fetch.main, *arguments)
    assert code == 1
    assert message.startswith("error: ")
    assert name in message
    assert "\n" not in message
    assert sorted(Path("build").iterdir()) == before


@pytest.mark.parametrize("place", ["from_folder", "from_s3", "from_entry"])
def test_a_file_too_many_is_an_error_where_the_store_can_tell(request, place, run_command):
    arguments, write, _ = request.getfixturevalue(place)
    write("extra.py", b"import os")
    code, message = run_command(fetch.main, *arguments)
    assert code == 1
    assert "extra.py is there, but is not listed in its SHA256SUMS" in message
    assert not FETCHED.exists()


def test_a_fetch_that_fails_leaves_the_earlier_one(from_folder, bundled, run_command):
    arguments, write, _ = from_folder
    assert run_command(fetch.main, *arguments) == (0, "")
    write("model.keras", b"other")
    assert run_command(fetch.main, *arguments)[0] == 1
    assert whole(FETCHED) == whole(bundled)


def test_the_latest_is_the_highest_release(from_folder, bundled, retrain, run_command, tmp_path, capsys):
    shelf = folder.Options(tmp_path / "shelf")
    folder.put(retrain("newer"), "1.10.0", shelf)
    folder.put(retrain("not yet"), "2.0.0-rc.1", shelf)
    assert run_command(fetch.main, "--store", f"folder:{shelf.path}")[0] == 0
    assert "build/fetched: 1.10.0, 11 files, exactly as its SHA256SUMS says" in capsys.readouterr().out
    assert (FETCHED / "model.keras").read_text() == "newer"


def test_the_environment_names_the_store_if_it_names_one(from_folder, run_command, monkeypatch, tmp_path):
    code, message = run_command(fetch.main)
    assert (code, message) == (
        1,
        "error: --store: not given, and the environment names none; expected one store",
    )
    monkeypatch.setenv("PUBLISH_FOLDER", str(tmp_path / "shelf"))
    assert run_command(fetch.main) == (0, "")
    monkeypatch.setenv("PUBLISH_S3", "s3://team/shop")
    assert "the environment names folder and s3; expected one" in run_command(fetch.main)[1]


def test_a_folder_that_holds_something_else_is_not_replaced(from_folder, run_command):
    arguments, *_ = from_folder
    code, message = run_command(fetch.main, *arguments, "--to", "src/models")
    assert (code, message) == (
        1,
        "error: --to: src/models holds something else; expected nothing there, or an earlier fetch",
    )
    assert Path("src/models/model.keras").exists()
    assert "expected a folder or nothing there, found a file" in run_command(
        fetch.main, *arguments, "--to", "params.yaml"
    )[1]  # fmt: skip
    assert run_command(fetch.main, *arguments, "--to", "elsewhere/model") == (0, "")


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("9.9.9", r"shelf/9.9.9/SHA256SUMS: not found"),
        ("../1.0.0", r"found '../1.0.0', expected latest, a version such as 1.2.0, or the id of a job"),
    ],
)
def test_what_is_not_published_is_said(from_folder, run_command, wanted, sentence):
    code, message = run_command(fetch.main, wanted, *from_folder[0][1:])
    assert code == 1
    assert sentence in message


def test_where_nothing_is_published_there_is_no_latest(workspace, run_command):
    code, message = run_command(fetch.main, "--store", "folder:none")
    assert (code, message) == (
        1,
        "error: latest: nothing is published there but, at most, pre-releases",
    )


@pytest.mark.parametrize("wanted", ["3.0.0", "job-8"])
def test_what_is_not_in_the_bucket_is_said(from_s3, run_command, wanted):
    code, message = run_command(fetch.main, wanted, "--store", "s3:s3://team/shop")
    assert (code, message) == (
        1,
        f"error: s3://team/shop/: there is neither a version nor an entry {wanted!r}",
    )


def test_a_job_without_the_artifact_is_said(from_job, run_command, server):
    code, message = run_command(fetch.main, "77", "--store", "gitlab")
    assert code == 1
    assert message.startswith("error: GitLab: cannot download SHA256SUMS: 404, not found")


def test_a_disk_that_is_full_leaves_nothing(from_folder, run_command, monkeypatch):
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    code, message = run_command(fetch.main, *from_folder[0])
    assert (code, message) == (1, "error: build/fetched: cannot be written: No space left on device")
    assert not FETCHED.exists()
