"""Tables through every stage: both recipes, quickly, and bad tables as a user meets them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from ruamel.yaml import YAML

from src.errors import UserError
from src.evaluate import export, report, score
from src.prepared import FOLDER, Split
from src.tasks import tabular
from src.train import fit, prepare

MODELS = Path("src/models")
DATA = {"breast-cancer": "breast-cancer.csv", "diabetes": "diabetes.csv"}


@pytest.fixture
def recipe(root, workspace):
    """Writes params.yaml as a recipe has it, with a few epochs; keys of its sections can be replaced."""

    def write(name: str, **changes: dict[str, Any]) -> None:
        content = YAML(typ="safe").load(root / f"recipes/{name}.yaml")
        content["data"]["path"] = str(root / content["data"]["path"])
        content["fit"]["epochs"] = 8
        for section, keys in changes.items():
            content[section].update(keys)
        YAML(typ="safe").dump(content, Path("params.yaml"))

    return write


@pytest.fixture
def patients(root, recipe):
    """Writes the table of diabetes as `change` leaves it to table.csv, and a params.yaml for it."""

    def write(change: Any = lambda table: None, data: Any = (), **changes: dict[str, Any]) -> pd.DataFrame:
        table = pd.read_csv(root / "datasets/diabetes/diabetes.csv").astype(object)
        table.insert(0, "id", [f"patient {number}" for number in range(len(table))])
        change(table)
        table.to_csv("table.csv", index=False)
        recipe("diabetes", data={"path": "table.csv", **dict(data)}, **changes)
        return table

    return write


def set_cells(*cells: tuple[int, str, Any]) -> Any:
    """A change of a table: row, column and new value of each cell."""

    def change(table: pd.DataFrame) -> None:
        for row, column, value in cells:
            table.loc[row, column] = value

    return change


def summary() -> dict[str, Any]:
    return read(FOLDER / "data.json")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def run() -> None:
    """Runs the stages in their order."""
    for stage in (prepare, fit, score, export, report):
        stage.main()


# ── Recipes ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_breast_masses_are_told_apart_and_the_page_shows_their_measures(recipe):
    recipe("breast-cancer")
    run()
    assert read(MODELS / "metrics.json")["accuracy"] > 0.9
    inference = read(MODELS / "inference.json")
    assert inference["classes"] == ["benign", "malignant"]
    assert inference["input"] == {"shape": [30], "dtype": "float32"}
    assert [column["name"] for column in inference["encoder"]["columns"]][:2] == [
        "mean radius",
        "mean texture",
    ]
    page = (MODELS / "report/index.html").read_text()
    for cell in ("<th>mean radius</th>", "<th>…</th>", "<td>18 more</td>"):
        assert cell in page
    # The vectors are raw: the network itself normalises, in Keras as in ONNX.
    test = Split.open("test")
    assert test.inputs[:, 3].mean() > 500  # mean area
    session = onnxruntime.InferenceSession(MODELS / "model.onnx")
    assert [entry.name for entry in session.get_inputs()] == ["input"]


@pytest.mark.slow
def test_the_progression_of_diabetes_is_predicted_in_its_unit_and_training_again_gives_the_same(recipe):
    recipe("diabetes", fit={"epochs": 30})
    run()
    metrics = read(MODELS / "metrics.json")
    assert metrics["root_mean_squared_error"] < 0.9 * metrics["mean_predictor_root_mean_squared_error"]
    test = Split.open("test")
    assert set(test.table["sex"]) == {1, 2}  # any column can slice
    assert "<th>blood_pressure</th>" in (MODELS / "report/index.html").read_text()
    first = read(MODELS / "history.json")
    fit.main()
    assert read(MODELS / "history.json") == first


# ── What tables are like ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_new_names_missing_values_and_dates_go_through_every_stage(patients):
    days = pd.date_range("2021-01-01", periods=442).strftime("%Y-%m-%d")

    def change(table: pd.DataFrame) -> None:
        table["clinic"] = np.array(["north", "south", "west"])[np.arange(442) % 3]
        table["seen"] = days
        table["split"] = np.where(np.arange(442) < 300, "train", "test")
        table.loc[330:340, "clinic"] = "opened later"
        for first, column in enumerate(("clinic", "bmi", "seen")):
            table.loc[first::30, column] = None

    patients(change)
    run()
    assert summary()["warnings"] == []
    test = Split.open("test").table.set_index("id")
    inputs = dict(zip(test.index, Split.open("test").inputs, strict=True))
    encoder = tabular.Encoder.load(FOLDER)

    def shown(number: int) -> dict[str, str]:
        return encoder.describe(inputs[f"patient {number}"])

    assert shown(300)["clinic"] == shown(301)["bmi"] == shown(302)["seen"] == "—"
    assert shown(335)["clinic"] == "other"
    assert shown(335)["seen"] == days[335]
    assert test.loc["patient 335", "clinic"] == "opened later"
    assert np.isfinite(pd.read_parquet(MODELS / "predictions.parquet")["prediction"]).all()


def test_what_is_odd_about_a_column_is_said_and_kept(patients, capsys):
    def change(table: pd.DataFrame) -> None:
        table["hospital"] = "Raleigh"

    patients(change)
    prepare.main()
    said = "column 'hospital' is the same in every training example: it is left out of account"
    assert summary()["warnings"] == [said]
    assert f"warning: {said}" in capsys.readouterr().out


def test_the_order_of_rows_and_columns_moves_no_example_to_another_split(patients):
    patients()
    prepare.main()
    before = {name: set(Split.open(name).table["id"]) for name in ("train", "validation", "test")}
    table = pd.read_csv("table.csv").sample(frac=1, random_state=0)
    table[sorted(table.columns)].to_csv("table.csv", index=False)
    prepare.main()
    assert {name: set(Split.open(name).table["id"]) for name in before} == before


# ── Bad tables ─────────────────────────────────────────────────────────────────────────────────────────


def refused(fails: Any) -> list[str]:
    """What `prepare` says before it ends with status 1, having written nothing."""
    code, message = fails(prepare.main)
    assert code == 1
    assert not FOLDER.exists()
    assert not list(Path("build").glob(".*"))
    return message.splitlines()


def test_every_bad_row_is_listed_with_its_column(patients, fails):
    patients(
        set_cells(
            (4, "bmi", "inf"), (9, "ldl", "high"), (400, "age", "1e99"), (17, "hdl", "?"), (20, "sex", None)
        )
    )
    assert refused(fails) == [
        "error: table.csv: 3 of 442 examples cannot be read:",
        "  patient 4: column 'bmi': found inf, expected a finite number",
        "  patient 400: column 'age': found 1e+99, expected a finite number",
        "  patient 9: column 'ldl': found 'high', expected a finite number",
        "  Mend or remove them, or set data.on_bad: skip.",
    ]


def test_bad_rows_can_be_left_out_and_empty_ones_are_bad(patients):
    table = patients(
        set_cells((4, "bmi", "inf"), (9, "ldl", "high"), (30, "progression", None)), {"on_bad": "skip"}
    )
    with open("table.csv", "a") as file:
        file.write("nobody" + "," * (len(table.columns) - 1) + "100\n")
    prepare.main()
    found = summary()
    assert sorted((each["id"], each["reason"]) for each in found["bad"]) == [
        ("nobody", "no value in any column"),
        ("patient 30", "no label"),
        ("patient 4", "column 'bmi': found inf, expected a finite number"),
        ("patient 9", "column 'ldl': found 'high', expected a finite number"),
    ]
    assert sum(found["examples"].values()) == 439
    for name, count in found["examples"].items():
        split = Split.open(name)
        assert len(split.inputs) == len(split.labels) == len(split.table) == count
        encoder = tabular.Encoder.load(FOLDER)
        ages = [encoder.describe(row)["age"] for row in split.inputs]
        assert ages == split.table["age"].astype(int).astype(str).tolist()


def test_rows_without_any_value_that_is_used_are_listed(patients, fails):
    def change(table: pd.DataFrame) -> None:
        table.loc[50, ["age", "bmi"]] = None

    patients(change, encode={"columns": ["age", "bmi"], "categorical": []})
    assert refused(fails)[1] == "  patient 50: no value in any column that is used"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"data": {"label": "progresion"}},
            "data.label: table.csv has no column 'progresion', only id, age, sex, bmi, blood_pressure, "
            "cholesterol, ldl, hdl, cholesterol_by_hdl, log_triglycerides, glucose, progression; did you "
            "mean 'progression'?",
        ),
        (
            {"encode": {"ignore": ["glucos"]}},
            "encode.ignore: no column 'glucos', only age, sex, bmi, blood_pressure, cholesterol, ldl, hdl, "
            "cholesterol_by_hdl, log_triglycerides, glucose; did you mean 'glucose'?",
        ),
        (
            {"encode": {"columns": ["age"], "ignore": ["age"]}},
            "encode: no column is left as input; the data has age, sex, bmi, blood_pressure, cholesterol, "
            "ldl, hdl, cholesterol_by_hdl, log_triglycerides, glucose",
        ),
        ({"encode": {"columns": "age"}}, "params.yaml: encode.columns: found 'age', expected a valid list"),
    ],
    ids=["label", "ignore", "no column", "no list"],
)
def test_wrong_names_of_columns_are_one_sentence(patients, fails, changes, sentence):
    patients(**changes)
    assert refused(fails) == [f"error: {sentence}"]


def test_a_network_for_other_inputs_says_so(patients):
    patients()
    prepare.main()
    text = Path("params.yaml").read_text()
    content = YAML(typ="safe").load(text)
    content |= {"architecture": "cnn", "model": {}}
    YAML(typ="safe").dump(content, Path("params.yaml"))
    with pytest.raises(
        UserError, match="architecture: cnn takes series, images and volumes, found inputs of 12"
    ):
        fit.main()
