"""A DVC remote on a real S3 server: set up from the environment, pushed to by one, pulled by another."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo
from s3_server import BUCKET, S3Server  # type: ignore[import-not-found]

from src import remote
from src.s3.bucket import Bucket

PREFIX = "dvc-remote"
PIPELINE = """\
stages:
  fit:
    cmd: mkdir -p build; cp data/photos.txt build/model.bin
    deps: [data]
    outs: [build/model.bin]
"""
ROOT = Path(__file__).parents[2]


class Checkout:
    """A repository whose commands are run as one of the server's identities."""

    def __init__(self, folder: Path, server: S3Server) -> None:
        self.folder = folder
        self.server = server

    def run(self, who: str | None, *command: str) -> tuple[int, str]:
        """Runs a command; returns its exit code and all that it says.

        The store's address comes from .dvc/config alone, as in a project's CI.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        environment |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(self.folder)}
        if who:
            identity = self.server.environment(who)
            environment |= {name: identity[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        result = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert "Traceback" not in result.stderr
        return result.returncode, result.stdout + result.stderr

    def verify(self, who: str | None) -> tuple[int, str]:
        return self.run(who, sys.executable, "-m", "src.lock", "verify", "--remote")

    def done(self, *command: str) -> None:
        code, said = self.run("writer", *command)
        assert code == 0, said


@pytest.fixture(scope="module")
def pushed(s3, tmp_path_factory) -> Iterator[Checkout]:
    """A repository with data and a model, both pushed by the writer."""
    parent = tmp_path_factory.mktemp("dvc")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GLOBAL", "SYSTEM"):
            patch.setenv(f"DVC_{name}_CONFIG_DIR", str(parent / name))
            patch.setenv(f"GIT_CONFIG_{name}", os.devnull)
        patch.setenv("DVC_SITE_CACHE_DIR", str(parent / "site"))
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "Ada")
            patch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
        made = Checkout(parent / "origin", s3)
        (made.folder / "data").mkdir(parents=True)
        (made.folder / "data/photos.txt").write_text("tulips")
        (made.folder / "data/labels.txt").write_text("")
        (made.folder / "dvc.yaml").write_text(PIPELINE)
        made.done("git", "init", "--quiet", "--initial-branch=main")
        with pytest.MonkeyPatch.context() as inner:
            inner.chdir(made.folder)
            with Repo.init() as repo:
                repo.add("data")
                repo.reproduce()
            inner.setenv("DVC_REMOTE_URL", f"s3://{BUCKET}/{PREFIX}")
            inner.setenv("AWS_ENDPOINT_URL", s3.url)
            inner.setattr(sys, "argv", ["remote"])
            remote.main()
        made.done("git", "add", "--all")
        made.done("git", "commit", "--quiet", "--message=Start")
        made.done("dvc", "push")
        yield made


@pytest.fixture
def clone(pushed, tmp_path) -> Checkout:
    """A fresh clone, without data."""
    subprocess.run(["git", "clone", "--quiet", str(pushed.folder), str(tmp_path / "clone")], check=True)
    return Checkout(tmp_path / "clone", pushed.server)


@pytest.fixture
def store(s3, monkeypatch) -> Bucket:
    """The bucket, as the writer sees it."""
    for name, value in s3.environment("writer").items():
        monkeypatch.setenv(name, value)
    return Bucket(BUCKET)


@pytest.fixture
def in_dvc(workspace, monkeypatch) -> Callable[[], str]:
    """A new DVC repository, the current folder; returns its configuration."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "DVC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(workspace / "global"))
    subprocess.run(["git", "init", "--quiet"], check=True)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    analytics = false\n")
    return lambda: Path(".dvc/config").read_text()


def test_what_the_writer_pushed_a_reader_pulls_and_verifies(clone):
    assert clone.run("reader", "dvc", "pull")[0] == 0
    assert (clone.folder / "build/model.bin").read_text() == "tulips"
    assert (clone.folder / "data/labels.txt").read_text() == ""
    code, said = clone.verify("reader")
    assert code == 0, said
    assert "the DVC remote holds everything that dvc.lock names" in said


def test_a_reader_cannot_push_and_is_told(clone):
    (clone.folder / "more.txt").write_text("roses")
    with Repo(str(clone.folder)) as repo:
        repo.add(str(clone.folder / "more.txt"))
    code, said = clone.run("reader", "dvc", "push")
    assert code != 0
    assert "AccessDenied" in said


@pytest.mark.parametrize(
    ("who", "reason"), [("stranger", "Forbidden|SignatureDoesNotMatch"), (None, "credentials")]
)
def test_without_the_right_secret_verify_says_in_one_line_that_it_cannot_ask(clone, who, reason):
    code, said = clone.verify(who)
    assert code == 1
    assert len(said.splitlines()) == 1, said
    assert said.startswith("error: the DVC remote cannot be asked")
    assert any(part in said for part in reason.split("|")), said


def test_a_missing_bucket_lacks_everything_and_pushing_to_it_says_why(clone, pushed):
    config = clone.folder / ".dvc/config"
    config.write_text(config.read_text().replace(BUCKET, "nowhere"))
    code, said = clone.verify("writer")
    assert code == 1
    assert "build/model.bin: the DVC remote 's3' lacks" in said
    assert "run `dvc push`" in said
    shutil.copytree(pushed.folder / ".dvc/cache", clone.folder / ".dvc/cache")
    code, said = clone.run("writer", "dvc", "push")
    assert code != 0
    assert "The specified bucket does not exist" in said


def test_a_damaged_object_does_not_come(clone, store):
    key = next(found.key for found in store.objects(PREFIX) if found.size == len("tulips"))
    store.write(key, b"tulipS", anyway=True)
    code, said = clone.run("reader", "dvc", "pull")
    store.write(key, b"tulips", anyway=True)
    assert code != 0
    assert "data" in said
    assert not (clone.folder / "build/model.bin").exists()


def test_a_lost_object_is_named_with_what_to_do(clone, store):
    key = next(found.key for found in store.objects(PREFIX) if found.size == len("tulips"))
    store.delete(key)
    code, said = clone.verify("reader")
    store.write(key, b"tulips")
    assert code == 1
    assert "build/model.bin: the DVC remote 's3' lacks" in said
    assert "run `dvc push`" in said


def test_the_remote_is_as_the_environment_says_and_holds_no_secret(in_dvc, run_command, monkeypatch, capsys):
    monkeypatch.setenv("DVC_REMOTE_URL", "s3://team/dvc/")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example.com/")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    assert run_command(remote.main) == (0, "")
    assert "git add .dvc/config" in capsys.readouterr().out
    written = in_dvc()
    for line in ("analytics = false", "remote = s3", "url = s3://team/dvc", "verify = true"):
        assert f"    {line}\n" in written
    assert "endpointurl = https://store.example.com\n" in written
    assert "an-id" not in written
    assert "a-secret" not in written
    assert run_command(remote.main) == (0, "")
    assert in_dvc() == written
    assert "is so already" in capsys.readouterr().out


def test_a_changed_environment_changes_the_remote_and_leaves_other_settings(in_dvc, run_command, monkeypatch):
    monkeypatch.setenv("DVC_REMOTE_URL", "s3://team/dvc")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example.com")
    assert run_command(remote.main) == (0, "")
    Path(".dvc/config").write_text(in_dvc() + "    sse = AES256\n")
    monkeypatch.setenv("DVC_REMOTE_URL", "s3://other/dvc")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert run_command(remote.main) == (0, "")
    assert "endpointurl" not in in_dvc()
    assert "team" not in in_dvc()
    assert "url = s3://other/dvc\n" in in_dvc()
    assert "sse = AES256" in in_dvc()


@pytest.mark.parametrize(
    ("url", "endpoint", "reason"),
    [
        ("", "", "DVC_REMOTE_URL: is not set, expected s3://bucket/folder"),
        ("/mnt/store", "", "DVC_REMOTE_URL: found no such address"),
        ("s3:///dvc", "", "DVC_REMOTE_URL: found no such address"),
        ("s3://ada:passphrase@team/dvc", "", "DVC_REMOTE_URL: has credentials"),
        ("s3://ada:passphrase/dvc", "", "DVC_REMOTE_URL: has credentials"),
        ("s3://team/dvc?key=passphrase", "", "DVC_REMOTE_URL: has credentials"),
        ("s3://team/dvc", "store.example.com", "AWS_ENDPOINT_URL: found no such address, expected https"),
        ("s3://team/dvc", "http://[::1", "AWS_ENDPOINT_URL: found no such address"),
        ("s3://team/dvc", "https://ada:passphrase@store", "AWS_ENDPOINT_URL: has credentials"),
    ],
)
def test_what_is_missing_wrong_or_secret_is_refused_and_nothing_is_written(
    in_dvc, run_command, monkeypatch, url, endpoint, reason
):
    before = in_dvc()
    monkeypatch.setenv("DVC_REMOTE_URL", url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    code, error = run_command(remote.main)
    assert code == 1
    assert reason in error
    assert "passphrase" not in error
    assert in_dvc() == before


def test_outside_of_a_repository_one_is_told(workspace, run_command, monkeypatch):
    monkeypatch.setenv("DVC_REMOTE_URL", "s3://team/dvc")
    assert ".dvc/config: not found; run `dvc init`" in run_command(remote.main)[1]
    assert not (workspace / ".dvc").exists()


def test_make_help_lists_the_target(root):
    listed = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    assert "make remote " in listed
