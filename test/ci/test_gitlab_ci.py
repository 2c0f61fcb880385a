"""The pipeline for real: gitlab-ci-local runs this checkout's .gitlab-ci.yml on a small project's changes.

    make ci             logs in build/ci/, one for each pipeline; the project stays in build/ci/project

The project is this checkout with a smaller network and fewer images, its own history, a bare git remote and
a DVC remote that is a folder. Its changes are made as a user makes them: edit params.yaml, `dvc repro`,
commit, push. GitLab itself is not there: what only it does (protected branches, tokens, the merge request)
is given as its CI_* variables.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from src.files import sha256

pytestmark = pytest.mark.ci

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build/ci"
STATE = ".gitlab-ci-local"
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")},
    "PATH": f"{Path(sys.prefix, 'bin')}:{os.environ['PATH']}",
    "VENV": sys.prefix,  # the jobs' make targets find their environment made
    "MYPY_CACHE_DIR": str(LOGS / "cache/mypy"),
    "RUFF_CACHE_DIR": str(LOGS / "cache/ruff"),
    "GIT_CONFIG_GLOBAL": os.devnull,
    "DVC_NO_ANALYTICS": "true",
}
SMALL: dict[str, Any] = {
    "data.path": "datasets/some",
    "model.filters": [16, 32],
    "model.dropout": 0.0,
    "fit.epochs": 4,
    "fit.batch_size": 32,
    "fit.optimizer": {"name": "adam", "learning_rate": 0.003},
    "gates": {
        "minimum": {"metric": "accuracy", "limit": 0.65, "confidence": 0.95},
        "no_regression": {"metric": "accuracy", "margin": 0.01, "confidence": 0.95},
        "budget": {"megabytes": 2},
        "data": {"near_duplicates": 0.01},
        "looks": {"limit": 100},
    },
}
BRANCH = {"CI_COMMIT_REF_PROTECTED": "true"}
MERGE_REQUEST = {
    "CI_PIPELINE_SOURCE": "merge_request_event",
    "CI_MERGE_REQUEST_IID": "7",
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
}
PUBLISHED = {"check": True, "model": True, "gate": True, "publish": True}
TRAIN, TEST = 300, 200  # examples of each class
# `make check` has run all of them before: one pipeline runs those of networks, the others those of images.
TESTS_OF_NETWORKS = {"PYTEST_ADDOPTS": "--ignore-glob=*/unit/test_[!c]*"}
FEW_TESTS = {"PYTEST_ADDOPTS": "--ignore-glob=*/unit/test_[!i]*"}


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that has ended.

    Args:
        jobs: job → whether it passed; one that was not run is not there.
        artifacts: job → folder of its artifacts.
        log: all that was printed.
    """

    jobs: dict[str, bool]
    artifacts: Path
    log: str

    @property
    def verdict(self) -> dict[str, Any]:
        return json.loads((self.artifacts / "gate/build/gate/gate.json").read_text())

    def answers(self) -> dict[str, str]:
        return {gate["gate"]: gate["verdict"] for gate in self.verdict["gates"]}

    def published(self) -> Path:
        return self.artifacts / "publish/build/bundle"


class Project:
    """A project on GitLab, as far as one can be had without GitLab."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remote = folder.with_name("project.git")
        listed = self.run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
        for name in listed.split("\0"):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "A person")
        self.git("config", "user.email", "person@example.com")
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.remote))
        self.git("remote", "add", "origin", str(self.remote))
        self.git("remote", "add", "gcl-origin", "git@gitlab.example.com:group/project.git")

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def dvc(self, *arguments: str) -> str:
        return self.run("dvc", *arguments)

    def run(self, *command: str, cwd: Path | None = None) -> str:
        result = subprocess.run(
            command, cwd=cwd or self.folder, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
        return result.stdout

    def edit(self, changes: dict[str, Any]) -> None:
        """Changes keys of params.yaml."""
        yaml = YAML()
        path = self.folder / "params.yaml"
        content = yaml.load(path)
        for key, value in changes.items():
            *sections, last = key.split(".")
            section = content
            for name in sections:
                section = section[name]
            section[last] = value
        yaml.dump(content, path)

    def commit(self, message: str) -> None:
        """Commits everything, and pushes it and the files that DVC keeps."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "HEAD")
        if self.dvc("remote", "list"):
            self.dvc("push", "--quiet")

    def branch(self, name: str, changes: dict[str, Any], start: str = "main") -> None:
        """Makes a branch as a user does: edit, `dvc repro`, commit, push."""
        self.git("switch", "--quiet", "--create", name, start)
        self.edit(changes)
        self.dvc("repro", "--quiet")
        self.commit(name)

    def pipeline(self, name: str, given: dict[str, str], without: tuple[str, ...] = ()) -> Pipeline:
        """Runs the pipeline of the commit that is checked out.

        Args:
            name: of the log.
            given: the CI_* variables that GitLab would set.
            without: those that it would not.
        """
        variables = [word for key, value in given.items() for word in ("--variable", f"{key}={value}")]
        unset = [word for key in without for word in ("--unset-variable", key)]
        command = [Path(sys.prefix, "node/node_modules/.bin/gitlab-ci-local")]
        options = ["--shell-isolation", "--no-artifacts-to-source", "--force-shell-executor"]
        options += ["--ignore-predefined-vars", ",".join(given)]  # no warning: setting them is the point
        shutil.rmtree(self.folder / STATE / "artifacts", ignore_errors=True)
        result = subprocess.run(
            [*command, *options, *variables, *unset],
            cwd=self.folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        log = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
        (LOGS / f"{name}.log").write_text(log)
        ended = re.findall(r"^ (PASS|FAIL)  (\S+)", log, re.MULTILINE)
        return Pipeline({job: word == "PASS" for word, job in ended}, self.folder / STATE / "artifacts", log)

    def merge_request(self, name: str, variables: dict[str, str] = FEW_TESTS) -> Pipeline:
        """Runs the merge request pipeline of the branch that is checked out, into main."""
        source = {"CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": self.git("branch", "--show-current").strip()}
        return self.pipeline(name, {**MERGE_REQUEST, **source, **variables}, without=("CI_COMMIT_BRANCH",))


@pytest.fixture(autouse=True)
def timed(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Says how long each scenario took, the user's training included."""
    started = time.monotonic()
    yield
    with capsys.disabled():
        print(f" {time.monotonic() - started:.0f} s", end="", flush=True)


def write_images(folder: Path, **counts: int) -> None:
    """Writes a part of the images that come along: so many of each class of a split."""
    folder.mkdir()
    shutil.copyfile(ROOT / "datasets/fashion/README.md", folder / "README.md")
    for split, count in counts.items():
        images = pd.read_parquet(ROOT / f"datasets/fashion/{split}.parquet")
        images.groupby("label").head(count).to_parquet(folder / f"{split}.parquet")


@pytest.fixture(scope="module")
def fork() -> Project:
    """A fresh fork: one commit, no model, no remote for DVC."""
    shutil.rmtree(LOGS, ignore_errors=True)
    (LOGS / "project").mkdir(parents=True)
    project = Project(LOGS / "project")
    (project.folder / "dvc.lock").unlink(missing_ok=True)
    for file in (project.folder / "src/models").glob("*.json"):
        file.unlink()
    write_images(project.folder / "datasets/some", train=TRAIN, test=TEST)
    project.edit(SMALL)
    project.commit("Begin")
    project.git("remote", "set-head", "origin", "main")
    return project


@pytest.fixture(scope="module")
def project(fork: Project) -> Project:
    """The fork once it has a model in main and a DVC remote."""
    for cache in (fork.folder / STATE / "cache").glob("dvc-*/.dvc/cache"):  # what the runner trained already
        shutil.copytree(cache, fork.folder / ".dvc/cache", dirs_exist_ok=True)
    fork.dvc("remote", "add", "--default", "storage", str(LOGS / "dvc-remote"))
    fork.dvc("repro", "--quiet")
    fork.commit("The first model")
    return fork


@pytest.fixture
def start(project: Project) -> Callable[..., Project]:
    """Returns how to begin a branch with some changed parameters."""

    def begin(name: str, **changes: Any) -> Project:
        project.branch(name, {key.replace("__", "."): value for key, value in changes.items()})
        return project

    return begin


def test_a_fresh_fork_trains_on_the_runner_and_publishes(fork: Project) -> None:
    pipeline = fork.pipeline("fork", {**BRANCH, **FEW_TESTS})
    assert pipeline.jobs == {**PUBLISHED, "pages": True}, pipeline.log
    assert pipeline.verdict["baseline"]["source"] == "none"
    assert (pipeline.published() / "model.keras").exists()
    page = pipeline.artifacts / "pages/build/site"
    assert sha256(page / "model.onnx") == sha256(pipeline.published() / "model.onnx")
    assert (page / "index.html").exists()


def test_a_better_model_passes(start: Callable[..., Project]) -> None:
    pipeline = start("better", fit__epochs=10).merge_request("better", TESTS_OF_NETWORKS)
    assert pipeline.jobs == {"check": True, "model": True, "gate": True}, pipeline.log
    assert pipeline.verdict["verdict"] == "pass"
    assert pipeline.verdict["baseline"]["source"] == "merge base"
    assert {"gate.md", "gates.xml"} <= {
        file.name for file in (pipeline.artifacts / "gate/build/gate").iterdir()
    }


def test_a_worse_model_that_is_merged_all_the_same_is_not_published(start: Callable[..., Project]) -> None:
    project = start("worse", fit__epochs=1)
    project.git("switch", "--quiet", "--create", "careless", "main")
    project.git("merge", "--quiet", "--no-ff", "--no-edit", "worse")
    pipeline = project.pipeline("worse-merged", {**BRANCH, **FEW_TESTS, "CI_COMMIT_BRANCH": "main"})
    assert pipeline.jobs == {"check": True, "model": True, "gate": False}, pipeline.log
    assert pipeline.answers()["no_regression"] == "fail"
    assert not pipeline.published().exists()


def test_a_merge_request_cannot_lower_its_own_limit(start: Callable[..., Project]) -> None:
    pipeline = start("lower-limit", gates__minimum__limit=0.1, fit__epochs=10).merge_request("lower-limit")
    assert pipeline.jobs == {"check": True, "model": True, "gate": False}, pipeline.log
    assert [entry["key"] for entry in pipeline.verdict["limits"]["loosened"]] == ["gates.minimum.limit"]


def test_forged_results_of_a_worse_model_do_not_pass(start: Callable[..., Project]) -> None:
    project = start("forged", fit__epochs=1)
    for name in ("metrics.json", "inference.json"):
        path = project.folder / "src/models" / name
        path.write_text(re.sub(r'"accuracy": [0-9.]+', '"accuracy": 0.99', path.read_text(), count=1))
    project.dvc("commit", "--force", "--quiet")  # dvc.lock vouches for the forged files
    project.commit("Better than ever")
    pipeline = project.merge_request("forged")
    assert pipeline.jobs == {"check": True, "model": True, "gate": False}, pipeline.log
    assert pipeline.verdict["contradictions"][0].startswith("src/models/metrics.json claims accuracy 0.99")
    assert pipeline.answers()["no_regression"] == "fail"  # the gate measured the model itself


def test_a_small_test_set_is_not_enough(project: Project, start: Callable[..., Project]) -> None:
    write_images(project.folder / "datasets/few", train=TRAIN, test=3)
    pipeline = start("few", data__path="datasets/few").merge_request("few")
    assert pipeline.jobs == {"check": True, "model": True, "gate": False}, pipeline.log
    assert pipeline.verdict["verdict"] == "not enough data"


def test_the_default_branch_publishes_what_the_gate_judged(project: Project) -> None:
    project.git("switch", "--quiet", "main")
    project.git("merge", "--quiet", "--no-ff", "--no-edit", "better")
    project.git("push", "--quiet", "origin", "main")
    store = {"PUBLISH_FOLDER": str(LOGS / "published")}
    pipeline = project.pipeline("default-branch", {**BRANCH, **FEW_TESTS, **store})
    assert pipeline.jobs == {**PUBLISHED, "pages": True}, pipeline.log
    judged = pipeline.verdict["files"]["src/models/model.keras"]
    assert sha256(pipeline.published() / "model.keras") == judged
    assert sha256(LOGS / "published/0.0.1/model.keras") == judged


def test_a_tag_publishes_a_signed_model(project: Project) -> None:
    key = LOGS / "key.pem"
    project.run(sys.executable, "-m", "src.publish.key", str(key))
    project.commit("The public key")
    project.git("tag", "v1.0.0", "main")
    tag = {"CI_COMMIT_TAG": "v1.0.0", "CI_COMMIT_REF_NAME": "v1.0.0", **BRANCH}
    store = {"PUBLISH_FOLDER": str(LOGS / "published"), "SLUICE_SIGNING_KEY": str(key)}
    pipeline = project.pipeline("tag", {**tag, **FEW_TESTS, **store}, without=("CI_COMMIT_BRANCH",))
    assert pipeline.jobs == PUBLISHED, pipeline.log
    inference = json.loads((LOGS / "published/1.0.0/inference.json").read_text())
    assert inference["commit"] == project.git("rev-parse", "main").strip()
    fetch = (sys.executable, "-m", "src.publish.fetch", "1.0.0", "--store", f"folder:{LOGS / 'published'}")
    assert "signed" in project.run(*fetch, "--to", str(LOGS / "fetched"))
    with pytest.raises(AssertionError, match="is not signed"):  # the model that went out before
        project.run(*fetch[:3], "0.0.1", *fetch[4:], "--to", str(LOGS / "fetched"))
