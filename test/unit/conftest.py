"""A small repository with a DVC pipeline of shell scripts shaped as Sluice's own, and its history."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

PIPELINE = """\
stages:
  prepare:
    cmd: sh code/prepare.sh
    params: [data]
    deps: [datasets/d.txt, code/prepare.sh]
    outs: [build/prepared]
  fit:
    cmd: sh code/fit.sh
    params: [fit]
    deps: [build/prepared, code/fit.sh]
    outs: [src/models/model.keras]
    plots:
      - src/models/history.json: {cache: false}
  score:
    cmd: sh code/score.sh
    deps: [build/prepared, src/models/model.keras, code/score.sh]
    metrics:
      - src/models/metrics.json: {cache: false}
    outs:
      - src/models/inference.json: {cache: false}
  export:
    cmd: sh code/export.sh
    deps: [src/models/model.keras, code/export.sh]
    outs: [src/models/model.onnx]
  report:
    cmd: sh code/report.sh
    deps: [src/models/metrics.json, code/report.sh]
    outs: [src/models/report.html]
"""
SCRIPTS = {
    "prepare": "mkdir -p build/prepared; cp datasets/d.txt build/prepared/d.txt",
    "fit": "{ cat build/prepared/d.txt; grep epochs params.yaml; } > src/models/model.keras\n"
    "echo '[1]' > src/models/history.json",
    "score": """echo "{\\"size\\": $(wc -c < src/models/model.keras)}" > src/models/metrics.json\n"""
    """hash=$(cat build/prepared/d.txt)\n"""
    """echo "{\\"data\\": {\\"test_hash\\": \\"$hash\\"}}" > src/models/inference.json""",
    "export": "tr a-z A-Z < src/models/model.keras > src/models/model.onnx",
    "report": "cp src/models/metrics.json src/models/report.html",
}


@dataclass
class Repository:
    """A checkout, and the folder that is its DVC remote if it has one."""

    folder: Path
    remote: Path

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def read(self, path: str) -> str:
        return (self.folder / path).read_text()

    def replace(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text
        self.write(path, text.replace(old, new))

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def repro(self) -> None:
        """Runs the pipeline with DVC."""
        from dvc.repo import Repo

        previous = Path.cwd()
        os.chdir(self.folder)
        try:
            with Repo() as repo:
                repo.reproduce()
        finally:
            os.chdir(previous)

    def train(self, epochs: int) -> str:
        """Changes a parameter, runs the pipeline and commits; returns the commit."""
        self.write("params.yaml", f"data: {{sample: 1.0}}\nfit: {{epochs: {epochs}}}\n")
        self.repro()
        return self.commit(f"train {epochs} epochs")

    def md5(self, path: str) -> str:
        """Returns the md5 that dvc.lock gives an output."""
        from src import lock

        return lock.outputs(lock.read(self.read("dvc.lock")))[path]

    def push(self) -> None:
        """Makes the folder beside this one its remote, and pushes all that is in the cache.

        `dvc push --all-commits` leaves out the commits from before the remote was configured.
        """
        from dvc.repo import Repo
        from dvc_data.hashfile.hash_info import HashInfo

        self.write(
            ".dvc/config", "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../remote\n"
        )
        with Repo(str(self.folder)) as repo:
            repo.cloud.push([HashInfo("md5", oid) for oid in repo.cache.local.all()])

    def forget(self) -> None:
        """Removes the DVC cache, as a fresh clone has none."""
        shutil.rmtree(self.folder / ".dvc/cache")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A repository on `main` whose only commit has a trained model."""
    folder = tmp_path_factory.mktemp("trained") / "clone"
    with pytest.MonkeyPatch.context() as patch:
        _isolate(patch, folder.parent)
        repository = Repository(folder, folder.parent / "remote")
        folder.mkdir()
        repository.git("init", "--quiet", "--initial-branch=main")
        subprocess.run(["dvc", "init", "--quiet"], cwd=folder, check=True)
        repository.write("dvc.yaml", PIPELINE)
        repository.write(".gitignore", "/build/\n")
        repository.write("datasets/d.txt", "tulips")
        repository.write("src/models/.gitkeep", "")
        for name, script in SCRIPTS.items():
            repository.write(f"code/{name}.sh", script + "\n")
        repository.train(1)
    return folder


@pytest.fixture(scope="session")
def grown(trained, tmp_path_factory) -> Path:
    """That repository with `main` at a model of 4 epochs, and `feature`, which left before, at one of 2."""
    folder = tmp_path_factory.mktemp("grown") / "clone"
    shutil.copytree(trained, folder, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        _isolate(patch, folder.parent)
        repository = Repository(folder, folder.parent / "remote")
        repository.git("switch", "--quiet", "--create", "feature")
        repository.train(2)
        repository.git("switch", "--quiet", "main")
        repository.train(4)
        repository.git("switch", "--quiet", "feature")
    return folder


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Callable[[Path], Repository]:
    """Copies a repository and goes there."""

    def copy(template: Path) -> Repository:
        folder = tmp_path / "clone"
        shutil.copytree(template, folder, symlinks=True)
        _isolate(monkeypatch, tmp_path)
        monkeypatch.chdir(folder)
        return Repository(folder, tmp_path / "remote")

    return copy


@pytest.fixture
def repository(trained, checkout) -> Repository:
    """The trained repository."""
    return checkout(trained)


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Callable[..., Repository]:
    """Clones the repository of this test as a runner does, without its DVC cache, and goes there."""

    def make(*options: str) -> Repository:
        folder = tmp_path / "runner"
        url = f"file://{tmp_path}/clone"
        subprocess.run(["git", "clone", "--quiet", *options, url, str(folder)], check=True)
        monkeypatch.chdir(folder)
        return Repository(folder, tmp_path / "remote")

    return make


def _isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Keeps the machine's settings of git, DVC and CI out."""
    for name in [name for name in os.environ if name == "CI" or name.startswith(("CI_", "GIT_", "SLUICE_"))]:
        patch.delenv(name)
    patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        patch.setenv(f"GIT_{role}_NAME", "Ada")
        patch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    patch.setenv("DVC_NO_ANALYTICS", "true")
    patch.setenv("DVC_SITE_CACHE_DIR", str(home / "site"))
    patch.setenv("DVC_GLOBAL_CONFIG_DIR", str(home / "global"))
    patch.setenv("DVC_SYSTEM_CONFIG_DIR", str(home / "system"))
