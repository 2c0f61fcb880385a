"""Publishing to a folder: whole versions or none, twice is harmless, and which version comes next."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src import stores
from src.errors import UserError
from src.files import sha256
from src.publish import publish
from src.stores import folder


@pytest.fixture
def shelf(tmp_path_factory) -> folder.Options:
    """An empty store."""
    return folder.Options(tmp_path_factory.mktemp("store") / "models")


def same(left: Path, right: Path) -> bool:
    return {path.relative_to(left): sha256(path) for path in left.rglob("*") if path.is_file()} == {
        path.relative_to(right): sha256(path) for path in right.rglob("*") if path.is_file()
    }


def test_a_published_version_is_the_bundle_and_latest_leads_to_it(bundled, shelf, run_command, capsys):
    assert run_command(publish.main, "--store", f"folder:{shelf.path}", "--version", "1.0.0") == (0, "")
    assert f"1.0.0: published at {shelf.path}/1.0.0" in capsys.readouterr().out
    assert same(shelf.path / "1.0.0", bundled)
    assert (shelf.path / "latest").resolve() == shelf.path / "1.0.0"
    assert sorted(os.listdir(shelf.path)) == ["1.0.0", "latest"]


def test_a_version_can_be_fetched_whole_and_a_damaged_one_cannot(bundled, shelf, tmp_path):
    folder.put(bundled, "1.0.0", shelf)
    stores.get(folder, "1.0.0", tmp_path / "fetched", shelf)
    assert same(tmp_path / "fetched", bundled)
    (shelf.path / "1.0.0/model.onnx").write_text("damaged")
    with pytest.raises(UserError, match=r"model.onnx: was changed"):
        stores.get(folder, "1.0.0", tmp_path / "damaged", shelf)
    assert not (tmp_path / "damaged").exists()
    with pytest.raises(UserError, match="not found"):
        stores.get(folder, "2.0.0", tmp_path / "none", shelf)


def test_publishing_the_same_model_twice_changes_nothing_though_it_was_bundled_twice(bundled, shelf, retrain):
    folder.put(bundled, "1.0.0", shelf)
    before = (shelf.path / "1.0.0/SHA256SUMS").read_bytes()
    time.sleep(1.1)  # the time of bundling is in whole seconds
    again = retrain("the weights")
    assert (again / "SHA256SUMS").read_bytes() != before
    folder.put(again, "1.0.0", shelf)
    assert (shelf.path / "1.0.0/SHA256SUMS").read_bytes() == before


def test_another_model_under_a_version_is_refused(bundled, shelf, retrain):
    folder.put(bundled, "1.0.0", shelf)
    with pytest.raises(UserError, match="is another model already; expected a new version"):
        folder.put(retrain("other weights"), "1.0.0", shelf)
    assert (shelf.path / "1.0.0/model.keras").read_text() == "the weights"


def test_a_new_model_gets_the_next_patch_and_the_same_one_keeps_its_version(
    bundled, shelf, retrain, run_command
):
    where = f"folder:{shelf.path}"
    for weights, expected in (("a", ["0.0.1"]), ("a", ["0.0.1"]), ("b", ["0.0.1", "0.0.2"])):
        retrain(weights)
        assert run_command(publish.main, "--store", where) == (0, "")
        assert sorted(folder.versions(shelf)) == expected
    assert run_command(publish.main, "--store", where, "--version", "1.2.0")[0] == 0
    retrain("c")
    assert run_command(publish.main, "--store", where)[0] == 0
    assert "1.2.1" in folder.versions(shelf)
    assert (shelf.path / "latest").resolve().name == "1.2.1"


def test_the_tag_names_the_version_and_must_be_a_semantic_one(bundled, shelf, run_command, monkeypatch):
    monkeypatch.setenv("PUBLISH_FOLDER", str(shelf.path))
    monkeypatch.setenv("CI_COMMIT_TAG", "v2.0.0-rc.1")
    assert run_command(publish.main) == (0, "")
    assert folder.versions(shelf) == ["2.0.0-rc.1"]
    assert not (shelf.path / "latest").exists()  # a candidate for a release is no release
    monkeypatch.setenv("CI_COMMIT_TAG", "release-7")
    code, message = run_command(publish.main)
    assert (code, message) == (
        1,
        "error: the tag: found 'release-7', expected a semantic version such as 1.2.0",
    )


def test_a_changed_bundle_is_not_published(bundled, shelf, run_command):
    (bundled / "model.keras").write_text("other weights")
    code, message = run_command(publish.main, "--store", f"folder:{shelf.path}")
    assert code == 1
    assert "model.keras: was changed since it was bundled" in message
    assert not shelf.path.exists()


def test_without_a_store_the_artifact_is_the_publication(bundled, run_command, capsys):
    assert run_command(publish.main) == (0, "")
    assert "none of GITLAB_TOKEN, PUBLISH_S3 and PUBLISH_FOLDER is set" in capsys.readouterr().out


def test_a_store_that_is_unknown_or_not_said_where_is_an_error(bundled, run_command):
    assert "there is no 'folde', expected one of" in run_command(publish.main, "--store", "folde:x")[1]
    assert (
        "expected `--store folder:PATH`, or PUBLISH_FOLDER"
        in run_command(publish.main, "--store", "folder")[1]
    )
    assert "with GITLAB_TOKEN" in run_command(publish.main, "--store", "gitlab")[1]


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(bundled, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/1\.0\.0: cannot be published: "):
        folder.put(bundled, "1.0.0", folder.Options(tmp_path / "file"))


SLOW = """
import sys, time
from pathlib import Path
from src.stores import folder
check = folder.check
def slowly(bundle):
    check(bundle)
    print("copied", flush=True)
    time.sleep(60)
folder.check = slowly
folder.put(Path(sys.argv[1]), "1.0.0", folder.Options(Path(sys.argv[2])))
"""


def test_a_publish_that_is_killed_midway_leaves_no_version_and_its_litter_goes_later(bundled, shelf, root):
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(bundled), str(shelf.path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "copied\n"
        child.send_signal(signal.SIGKILL)
    assert folder.versions(shelf) == []
    (litter,) = shelf.path.iterdir()
    assert litter.name.startswith(".publishing-")

    folder.put(bundled, "1.0.0", shelf)
    assert same(shelf.path / "1.0.0", bundled)
    assert litter.exists()  # it might belong to a publish that still runs
    os.utime(litter, (0, 0))
    folder.put(bundled, "1.0.0", shelf)
    assert sorted(os.listdir(shelf.path)) == ["1.0.0", "latest"]


def test_a_reader_never_sees_half_a_version(bundled, shelf, monkeypatch):
    seen = []
    copy = shutil.copyfile

    def watch(*arguments, **options):
        seen.append(folder.versions(shelf))
        return copy(*arguments, **options)

    monkeypatch.setattr(shutil, "copyfile", watch)
    folder.put(bundled, "1.0.0", shelf)
    assert len(seen) >= 12
    assert not any(seen)
    assert folder.versions(shelf) == ["1.0.0"]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([], "0.0.1"),
        (["0.0.9", "0.0.10"], "0.0.11"),
        (["1.0.0", "2.0.0-rc.1"], "1.0.1"),
        (["2.0.0-alpha"], "0.0.1"),
    ],
)
def test_the_next_patch_is_behind_the_highest_release(before, expected):
    assert stores.next_patch(before) == expected


def test_versions_are_ordered_as_semantic_versioning_says():
    ordered = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
    ]
    ordered += ["1.0.0-rc.1", "1.0.0", "1.0.1", "1.1.0", "2.0.0"]
    mixed = [*ordered[1::2], *ordered[::2]]
    assert sorted(mixed, key=stores.order) == ordered
