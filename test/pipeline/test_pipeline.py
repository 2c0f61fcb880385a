"""The whole pipeline in a copy of the repository, on class folders of photographs of mixed sizes and formats.

Each test leaves the copy as the pipeline made it: `dvc repro` has nothing to do.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from src.files import sha256

pytestmark = pytest.mark.slow

SETTINGS = """
task: image
architecture: cnn
objective: classification
data: {path: datasets/photos, validation: 0.25, test: 0.25}
encode: {size: [24, 24]}
model: {filters: [8, 16]}
fit: {epochs: 12, batch_size: 8, optimizer: {learning_rate: 0.01}}
report: {title: Photographs}
"""
OUTPUTS = [
    "model.keras",
    "history.json",
    "diagnosis.json",
    "metrics.json",
    "inference.json",
    "predictions.parquet",
]
PICTURES = ["curves.png", "predictions.png", "correct_predictions.png", "incorrect_predictions.png"]


def run(folder: Path, *command: str, succeeds: bool = True) -> str:
    """Runs a command as a user would, with this Python first on the path; returns what it prints."""
    own = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{own}:{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "dvc-cache"),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (result.returncode == 0) == succeeds, result.stdout
    return result.stdout


def stages_run(output: str) -> list[str]:
    """Returns the stages that `dvc repro` says it runs."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage ")]


@pytest.fixture(scope="module")
def repository(root, tmp_path_factory, write_photos) -> Path:
    """A clone with all that git would take, photographs instead of its data, and the pipeline run once."""
    folder = tmp_path_factory.mktemp("clone") / "sluice"
    listed = run(root, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (root / name).exists() and not name.startswith(("datasets/fashion", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)
    write_photos(folder / "datasets/photos", 16)
    (folder / "params.yaml").write_text(SETTINGS)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "-c", "user.name=Test", "-c", "user.email=t@t", "commit", "--quiet", "--message=Start")
    output = run(folder, "dvc", "repro")
    assert stages_run(output) == list(YAML(typ="safe").load(folder / "dvc.yaml")["stages"])
    return folder


@pytest.fixture
def changed(repository):
    """Writes files for the length of a test; what was there before comes back."""
    before: dict[Path, bytes | None] = {}

    def write(name: str, text: str) -> None:
        path = repository / name
        before.setdefault(path, path.read_bytes() if path.exists() else None)
        path.write_text(text)

    yield write
    for path, content in before.items():
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)


def read(path: Path):
    return json.loads(path.read_text())


def test_everything_that_describes_the_model_is_there(repository):
    models = repository / "src/models"
    for name in [*OUTPUTS, "report/index.html", *(f"report/{picture}" for picture in PICTURES)]:
        assert (models / name).stat().st_size > 0, name
    inference = read(models / "inference.json")
    assert inference["classes"] == ["flower", "portrait", "temple"]
    assert inference["input"] == {"shape": [24, 24, 3], "dtype": "uint8"}
    for key in ("model_path", "plot_path", "correct_prediction", "incorrect_prediction"):
        assert (models / inference[key]).exists(), key
    assert inference["data"]["hash"] == read(repository / "build/prepared/data.json")["hash"]
    assert inference["accuracy"] == read(models / "metrics.json")["accuracy"]


def test_the_model_has_learned_something(repository):
    metrics = read(repository / "src/models/metrics.json")
    assert metrics["accuracy"] > 0.5  # of three classes
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    history = read(repository / "src/models/history.json")
    assert history[-1]["loss"] < history[0]["loss"]


def test_predictions_are_one_row_for_each_test_example(repository):
    predictions = pd.read_parquet(repository / "src/models/predictions.parquet")
    test = pd.read_parquet(repository / "build/prepared/test/table.parquet")
    assert predictions[["id", "label"]].equals(test[["id", "label"]])
    accuracy = (predictions["label"] == predictions["prediction"]).mean()
    assert accuracy == pytest.approx(read(repository / "src/models/metrics.json")["accuracy"])
    shares = predictions.filter(like="probability of ")
    assert shares.shape == (len(test), 3)
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)


def test_the_page_is_whole_and_needs_nothing_from_outside(repository):
    page = (repository / "src/models/report/index.html").read_text()
    assert "<title>Photographs</title>" in page
    assert page.rstrip().endswith("</html>")
    for word in ("flower", "portrait", "temple", "data:image/png;base64,", "<h2>Diagnosis</h2>"):
        assert word in page
    assert 'src="http' not in page
    assert "<link" not in page
    assert "@import" not in page


def test_times_and_machine_stand_beside_the_outputs_alone(repository):
    record = read(repository / "build/run.json")
    assert {"prepare", "fit", "score", "report"} <= set(record)
    for stage in record.values():
        assert set(stage) == {"finished", "seconds", "commit", "machine"}
        assert len(stage["commit"].removesuffix("-dirty")) == 40
    for name in ("inference.json", "metrics.json", "history.json", "diagnosis.json"):
        assert record["fit"]["commit"] not in (repository / "src/models" / name).read_text()


def test_a_second_run_does_nothing(repository):
    output = run(repository, "dvc", "repro")
    assert stages_run(output) == []
    assert "Data and pipelines are up to date." in output


def test_an_architecture_that_is_not_in_use_reruns_nothing(repository, changed):
    changed("src/architectures/unused.py", '"""Not in use."""\n')
    assert stages_run(run(repository, "dvc", "repro")) == []


def test_the_architecture_in_use_reruns_from_fit_on(repository, changed):
    path = repository / "src/architectures/cnn.py"
    changed("src/architectures/cnn.py", path.read_text() + "# changed\n")
    stages = stages_run(run(repository, "dvc", "repro", "--dry"))
    assert "fit" in stages
    assert "prepare" not in stages


def test_a_changed_title_reruns_the_report_alone(repository, changed):
    page = repository / "src/models/report/index.html"
    before = sha256(page)
    changed("params.yaml", SETTINGS.replace("Photographs", "Another title"))
    assert stages_run(run(repository, "dvc", "repro")) == ["report"]
    assert "<title>Another title</title>" in page.read_text()
    # And back again: the earlier page comes out of DVC's cache.
    changed("params.yaml", SETTINGS)
    assert stages_run(run(repository, "dvc", "repro")) == []
    assert sha256(page) == before


def test_a_changed_gate_reruns_nothing(repository, changed):
    changed("params.yaml", SETTINGS + "gates: {minimum: {metric: accuracy, limit: 0.5}}\n")
    assert stages_run(run(repository, "dvc", "repro", "--dry")) == []


def test_sections_that_are_left_out_are_named(repository, changed):
    # DVC wants every section that a stage lists, though each may be empty: {} takes the defaults.
    changed("params.yaml", "task: image\narchitecture: cnn\ndata: {path: datasets/photos}\n")
    output = run(repository, "dvc", "repro", "--dry", succeeds=False)
    assert re.search("'(encode, objective|objective, encode)' are missing from 'params.yaml'", output)
    assert len(output.splitlines()) <= 2


def test_training_again_gives_the_same_bytes(repository):
    names = ("model.keras", "history.json", "diagnosis.json")
    files = [repository / "src/models" / name for name in names]
    before = [sha256(file) for file in files]
    output = run(repository, "dvc", "repro", "--force", "--single-item", "fit")
    assert stages_run(output) == ["fit"]
    assert [sha256(file) for file in files] == before
    assert "Data and pipelines are up to date." in run(repository, "dvc", "status")


def test_dvc_shows_metrics_parameters_plots_and_the_path(repository, tmp_path):
    shown = json.loads(run(repository, "dvc", "metrics", "show", "--json"))
    metrics = shown[""]["data"]["src/models/metrics.json"]["data"]
    assert metrics == read(repository / "src/models/metrics.json")
    assert "fit.epochs" in run(repository, "dvc", "params", "diff", "--all")
    assert "score" in run(repository, "dvc", "dag")
    run(repository, "dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots/index.html").read_text()
    assert "val_loss" in page
    for picture in ("curves", "predictions", "incorrect_predictions"):
        assert f"{picture}.png" in page
