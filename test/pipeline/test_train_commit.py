"""What a training on a runner does with its dvc.lock: real git, with a bare repository as GitLab's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Branch:
    """A clone of a project, on a branch that has a merge request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        self.remote = folder / "project.git"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("CI", "GITLAB"))},
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PYTHONPATH": str(ROOT),
            "CI_PROJECT_URL": str(folder / "project"),
            "CI_JOB_URL": "https://gitlab.example.com/group/project/-/jobs/5",
            "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "deeper",
            "GITLAB_USER_NAME": "A person",
            "GITLAB_USER_EMAIL": "person@example.com",
        }
        subprocess.run(["git", "init", "--quiet", "--bare", self.remote], check=True)
        subprocess.run(["git", "clone", "--quiet", self.remote, self.folder], check=True, capture_output=True)
        (self.folder / "src/models").mkdir(parents=True)
        (self.folder / "src/models/.gitignore").write_text("/model.keras\n")
        (self.folder / ".gitignore").write_text("/build/\n")
        self.write("dvc.lock", "before\n")
        self.git("add", "--all")
        self.git("-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--message", "Begin")
        self.git("push", "--quiet", "origin", "HEAD:deeper")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, check=True, text=True, capture_output=True).stdout

    def pushed(self, format: str) -> str:
        return self.git("-C", str(self.remote), "log", "-1", f"--format={format}", "deeper").strip()

    def run(self, **environment: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "src.train.commit"],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture
def trained(tmp_path: Path) -> Branch:
    """A branch after a training: another dvc.lock, other metrics, a model that git ignores."""
    branch = Branch(tmp_path)
    branch.write("dvc.lock", "after\n")
    branch.write("src/models/metrics.json", "{}\n")
    branch.write("src/models/model.keras", "weights")
    return branch


def test_with_a_token_the_branch_gets_one_commit_with_the_small_files(trained: Branch) -> None:
    trained.run(GITLAB_TOKEN="secret")
    assert trained.pushed("%an %s") == "A person Record a training"
    files = trained.git("-C", str(trained.remote), "diff", "--name-only", "deeper~", "deeper").split()
    assert files == ["dvc.lock", "src/models/metrics.json"]


def test_the_commit_is_marked_so_that_it_is_offered_no_training(trained: Branch) -> None:
    trained.run(GITLAB_TOKEN="secret")
    pipeline = (ROOT / ".gitlab-ci.yml").read_text()
    assert "if: $CI_COMMIT_MESSAGE =~ /Trained-by:/\n      when: never" in pipeline
    assert trained.pushed("%b") == "Trained-by: https://gitlab.example.com/group/project/-/jobs/5"


def test_without_a_token_the_patch_applies_by_the_command_that_is_printed(
    trained: Branch, tmp_path: Path
) -> None:
    printed = trained.run()
    assert "there is no GITLAB_TOKEN" in printed
    assert "git am training.patch" in printed
    assert trained.pushed("%s") == "Begin"
    user = tmp_path / "user"
    subprocess.run(["git", "clone", "--quiet", "--branch=deeper", trained.remote, user], check=True)
    patch = trained.folder / "build/train/training.patch"
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", "-C", user, *identity, "am", "--quiet", patch], check=True)
    assert (user / "dvc.lock").read_text() == "after\n"


def test_a_branch_that_has_moved_on_is_not_overwritten(trained: Branch) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@x")
    other = trained.git(
        *identity, "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "Somebody else's"
    ).strip()
    trained.git("push", "--quiet", "origin", f"{other}:refs/heads/deeper")
    printed = trained.run(GITLAB_TOKEN="secret")
    assert "not pushed: git push" in printed
    assert "git am training.patch" in printed
    assert trained.pushed("%s") == "Somebody else's"


def test_a_training_that_changed_nothing_commits_nothing(trained: Branch) -> None:
    trained.run(GITLAB_TOKEN="secret")
    assert "nothing to commit" in trained.run(GITLAB_TOKEN="secret")
    assert trained.git("rev-list", "--count", "HEAD").strip() == "2"
