"""The doctor through the stages: what is planted is warned of, written and shown; nothing else is."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from src.errors import UserError
from src.evaluate import report, score
from src.train import fit, prepare

MODELS = Path("src/models")


@pytest.fixture
def plant(root, workspace):
    """Writes the breast masses' table as `change` leaves it, and their recipe with other keys in `fit:`."""

    def write(change: Any = lambda table: None, **keys: Any) -> None:
        table = pd.read_csv(root / "datasets/breast-cancer/breast-cancer.csv")
        change(table)
        table.to_csv("table.csv", index=False)
        content = YAML(typ="safe").load(root / "recipes/breast-cancer.yaml")
        content["data"]["path"] = "table.csv"
        content["fit"] |= {"epochs": 8, **keys}
        YAML(typ="safe").dump(content, Path("params.yaml"))

    return write


def shuffle(table: pd.DataFrame) -> None:
    table["label"] = table["label"].sample(frac=1, random_state=1).to_numpy()


def found() -> list[str]:
    return [verdict["name"] for verdict in json.loads((MODELS / "diagnosis.json").read_text())["verdicts"]]


def page() -> str:
    score.main()
    report.main()
    return (MODELS / "report/index.html").read_text()


@pytest.mark.slow
def test_a_healthy_training_has_no_warning_and_a_healthy_page(plant, capsys):
    plant()
    prepare.main()
    capsys.readouterr()
    fit.main()
    assert "warning: " not in capsys.readouterr().out.replace(
        "warning: 280 training examples are 9 steps", ""
    )
    assert found() == []
    assert "Healthy: the training doctor found nothing." in page()


@pytest.mark.slow
def test_shuffled_labels_are_warned_of_once_written_and_shown_with_what_to_do(plant, capsys):
    plant(shuffle)
    prepare.main()
    capsys.readouterr()
    fit.main()
    assert capsys.readouterr().out.count("warning: shuffled labels: ") == 1
    assert found() == ["shuffled_labels"]
    shown = page()
    assert "<b>Shuffled labels</b>, from epoch 1 on: validation loss never got below" in shown
    assert "<b>What to do:</b> check that the labels at data.path" in shown


@pytest.mark.slow
def test_a_training_that_breaks_at_once_leaves_a_diagnosis_and_an_error_that_names_the_layer(plant):
    plant(optimizer={"name": "sgd", "learning_rate": 3e38})
    prepare.main()
    with pytest.raises(
        UserError, match=r"fit\.optimizer\.learning_rate: .*first in the weights of layer dense"
    ):
        fit.main()
    assert found() == ["nan"]
    assert not (MODELS / "model.keras").exists()
