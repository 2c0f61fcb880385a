"""Photographs with a number, and with several labels, from a table through every stage to the verdict."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src import command, engine
from src.evaluate import export, gate, report, score
from src.files import read_json
from src.prepared import Split
from src.train import fit, prepare

PICTURES = ("curves", "predictions", "correct_predictions", "incorrect_predictions")
ANY = {"budget": {"megabytes": 1, "latency": 20.0}, "data": {"near_duplicates": 0.3}, "looks": {}}
GATES: dict[str, dict[str, Any]] = {
    "regression": {
        "minimum": {"metric": "r2", "limit": 0.3},
        "maximum": {"metric": "mean_absolute_error", "limit": 30.0},
        "no_regression": {"metric": "root_mean_squared_error", "margin": 5.0},
        "slices": {"by": "light", "metric": "mean_absolute_error", "maximum": 60.0},
        **ANY,
    },
    "multilabel": {
        "minimum": {"metric": "micro_f1", "limit": 0.6},
        "maximum": {"metric": "hamming_loss", "limit": 0.4},
        "no_regression": {"metric": "subset_accuracy", "margin": 0.1},
        "slices": {"metric": "subset_accuracy", "limit": 0.05},
        "flips": {"metric": "subset_accuracy", "limit": 0.3},
        "calibration": {"limit": 0.6},
        **ANY,
    },
}


@pytest.fixture(scope="module")
def table(tmp_path_factory, write_photos) -> pd.DataFrame:
    """600 photographs: how bright each is, and what it shows; an odd temple that is dark shows nothing."""
    folder = write_photos(tmp_path_factory.mktemp("photos"), 200, suffixes=("png",))
    rows = []
    for path in sorted(folder.glob("*/*")):
        light = float(np.asarray(Image.open(path).convert("L")).mean())
        kind = [] if path.parent.name == "temple" else [path.parent.name]
        tags = kind + ["bright"] * (light > 110)
        halves = "light" if light > 110 else "dark"
        rows.append({"path": str(path), "brightness": light, "light": halves, "tags": "|".join(tags)})
    return pd.DataFrame(rows)


def write_table(table: pd.DataFrame, column: str, **changes: Any) -> None:
    table.rename(columns={column: "label"})[["path", "label", "light"]].assign(**changes).to_csv(
        "photos.csv", index=False
    )


@pytest.fixture(scope="module", params=["regression", "multilabel"])
def project(request, table, tmp_path_factory, write_params) -> Iterator[str]:
    """A model of each kind, trained, scored, exported and reported; its objective's name."""
    label = "brightness" if request.param == "regression" else "tags"
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp(request.param))
    try:
        write_table(table, label)
        said = {} if request.param == "regression" else {"objective": "multilabel"}
        write_params(
            **said,
            data={"path": "photos.csv", "test": 0.4, "validation": 0.2},
            fit={"epochs": 12, "batch_size": 16},
            gates=GATES[request.param],
        )
        for stage in (prepare, fit, score, export, report):
            stage.main()
        yield request.param
    finally:
        os.chdir(before)


@pytest.fixture
def run_gate(monkeypatch) -> Callable[[], dict[str, Any]]:
    """Runs the gate with `baseline/` and returns gate.json."""

    def run() -> dict[str, Any]:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path.cwd().parent))
        for name in ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "CI_DEFAULT_BRANCH", "CI"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(sys, "argv", ["gate", "--baseline", "baseline"])
        with pytest.raises(SystemExit):
            command.run(gate.main)
        result: dict[str, Any] = read_json(gate.GATE / "gate.json")
        return result

    return run


@pytest.mark.slow
def test_a_model_learns_and_its_metrics_and_predictions_fit_together(project):
    metrics, inference = (read_json(f"src/models/{name}.json") for name in ("metrics", "inference"))
    predictions = pd.read_parquet("src/models/predictions.parquet")
    assert len(predictions) == metrics["examples"] == len(Split.open("test"))
    assert inference["objective"] == project
    headline = next(iter(metrics))
    assert inference[headline] == metrics[headline]
    assert metrics[f"{headline}_low"] < metrics[headline] < metrics[f"{headline}_high"]
    if project == "regression":
        assert list(predictions) == ["id", "label", "prediction"]
        assert inference["classes"] is None
        error = (predictions["label"] - predictions["prediction"]).abs()
        assert metrics["mean_absolute_error"] == pytest.approx(error.mean(), rel=1e-5)
        assert metrics["mean_absolute_error"] < 0.6 * metrics["mean_predictor_mean_absolute_error"]
    else:
        assert inference["classes"] == ["bright", "flower", "portrait"]
        right = predictions["label"] == predictions["prediction"]
        assert metrics["subset_accuracy"] == right.mean() > 0.4
        assert "" in set(predictions["label"])
        assert read_json("build/prepared/data.json")["classes"]["bright"]["test"] > 50


@pytest.mark.slow
def test_the_report_says_what_it_shows(project):
    page = Path("src/models/report/index.html").read_text()
    for name in PICTURES:
        assert (Path("src/models/report") / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    said = {
        "regression": (
            "The largest errors",
            "The nearest predictions",
            "Predicted against true",
            "Residuals",
        ),
        "multilabel": ("Some class wrong, the most confident first", "All classes right", 'id="classes"'),
    }
    for words in said[project]:
        assert words in page
    assert ('href="#classes"' in page) == (project == "multilabel")
    assert ("from the smallest number to the largest" in page) == (project == "regression")


@pytest.mark.slow
def test_the_gate_lets_it_through_against_a_baseline_and_stops_a_worse_one(project, run_gate):
    shutil.copytree("src/models", "baseline", dirs_exist_ok=True)
    spoil(Path("baseline/model.keras"), 0.02)
    result = run_gate()
    answers = {entry["gate"]: entry["verdict"] for entry in result["gates"]}
    expected = dict.fromkeys(GATES[project], "pass")
    if project == "regression":  # a bootstrap takes 200 examples in every slice
        expected["slices"] = "not enough data"
    assert answers == expected, result["gates"]
    assert result["contradictions"] == []
    assert all(row["candidate_lower"] <= row["candidate"] for row in result["metrics"])

    shutil.copytree("src/models", "good", dirs_exist_ok=True)
    spoil(Path("src/models/model.keras"), 1.0)
    try:
        result = run_gate()
    finally:
        shutil.rmtree("src/models")
        shutil.move("good", "src/models")
    answers = {entry["gate"]: entry["verdict"] for entry in result["gates"]}
    assert answers["minimum"] == answers["no_regression"] == "fail"
    if project == "multilabel":
        assert answers["flips"] == "fail"
        assert (gate.GATE / "newly_broken.png").exists()


def spoil(path: Path, amount: float) -> None:
    """Replaces a model's weights, as far as `amount` says, by noise of the same size."""
    model = engine.load(path)
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        values = weight.numpy()
        noise = random.normal(0, values.std() + 1e-3, values.shape)
        weight.assign((1 - amount) * values + amount * noise)
    engine.save(model, path)


# ── Labels ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def labelled(workspace, table, write_params) -> Callable[..., None]:
    """Writes the table here, a label column of it as the label, and params.yaml."""

    def write(column: str, objective: str | None = None, **changes: Any) -> None:
        write_table(table, column, **changes)
        said = {"objective": objective} if objective else {}
        write_params(**said, data={"path": "photos.csv"})

    return write


def test_prepare_says_which_objective_it_took_unless_it_was_told(labelled, capsys):
    labelled("brightness")
    prepare.main()
    assert "objective: regression, as the labels suggest" in capsys.readouterr().out
    labelled("brightness", "regression")
    prepare.main()
    assert "objective:" not in capsys.readouterr().out
    assert Split.open("train").labels.dtype == np.float32


@pytest.mark.parametrize("objective", [None, "regression"])
def test_text_and_infinity_among_numbers_are_named_by_row(labelled, table, fails, objective):
    labels = table["brightness"].astype(object)
    labels[7], labels[9], labels[11] = "n/a", "inf", None
    labelled("brightness", objective, label=labels)
    code, message = fails(prepare.main)
    assert code == 1
    assert message.splitlines()[:4] == [
        "error: photos.csv: 3 of 600 examples cannot be read:",
        "  photos.csv:7: expected a number as the label, found 'n/a'",
        "  photos.csv:9: expected a finite number as the label, found inf",
        "  photos.csv:11: no label",
    ]
    assert not Path("build/prepared").exists()


def test_bad_labels_can_be_skipped(labelled, table, write_params):
    labels = table["brightness"].astype(object)
    labels[7] = "n/a"
    labelled("brightness", "regression", label=labels)
    write_params(objective="regression", data={"path": "photos.csv", "on_bad": "skip"})
    prepare.main()
    summary = read_json("build/prepared/data.json")
    assert summary["bad"] == [{"id": "photos.csv:7", "reason": "expected a number as the label, found 'n/a'"}]
    assert sum(summary["examples"].values()) == 599
    assert "classes" not in summary


def test_whole_numbers_stay_classes_where_a_cell_is_empty(labelled, table, write_params):
    labels = (np.arange(len(table)) % 3).astype(object)
    labels[4] = None
    labelled("brightness", label=labels)
    write_params(data={"path": "photos.csv", "on_bad": "skip"})
    prepare.main()
    assert read_json("build/prepared/data.json")["names"] == ["0", "1", "2"]


def test_labels_that_are_all_the_same_are_one_sentence(labelled, fails):
    labelled("brightness", "regression", label=3.5)
    code, message = fails(prepare.main)
    assert (code, len(message.splitlines())) == (1, 1)
    assert "data.label: each training example has 3.5; expected different numbers" in message
    assert not Path("build/prepared").exists()


def test_lists_in_parquet_are_the_same_labels_as_text_with_bars(labelled, table, write_params):
    labelled("tags", "multilabel")
    prepare.main()
    text = {name: Split.open(name) for name in ("train", "validation", "test")}
    arrays = {name: np.array(split.labels) for name, split in text.items()}
    lists = table["tags"].map(lambda tags: [name for name in reversed(tags.split("|")) if name])
    pd.DataFrame({"path": table["path"], "label": lists}).to_parquet("photos.parquet")
    write_params(data={"path": "photos.parquet"})  # lists suggest the objective by themselves
    prepare.main()
    for name, split in text.items():
        again = Split.open(name)
        assert np.array_equal(again.labels, arrays[name])
        assert again.table["label"].tolist() == split.table["label"].tolist()
    assert read_json("build/prepared/data.json")["objective"] == "multilabel"


def test_a_list_that_is_null_is_a_missing_label_and_an_empty_one_is_none(
    labelled, table, write_params, fails
):
    lists = table["tags"].map(lambda tags: [name for name in tags.split("|") if name]).astype(object)
    assert [] in lists.tolist()
    lists[5] = None
    pd.DataFrame({"path": table["path"], "label": lists}).to_parquet("photos.parquet")
    write_params(data={"path": "photos.parquet"})
    code, message = fails(prepare.main)
    assert code == 1
    assert message.splitlines()[:2] == [
        "error: photos.parquet: 1 of 600 examples cannot be read:",
        "  photos.parquet:5: no label",
    ]
