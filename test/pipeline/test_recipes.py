"""Every recipe goes through the whole pipeline on a sample of its data, and its gates can answer."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from src import params
from src.evaluate import export, gate, report, score
from src.files import read_json
from src.plugin import names, pick
from src.train import fit, prepare

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SAMPLE = 120  # training examples


@pytest.fixture
def recipe(request, root, workspace) -> str:
    """A recipe on a sample of its data, for one epoch, in a folder of its own."""
    content = YAML(typ="safe").load(request.param)
    Path("datasets").symlink_to(root / "datasets")
    content["data"] |= {"sample": SAMPLE}
    content["fit"] |= {"epochs": 1}
    YAML(typ="safe").dump(content, Path("params.yaml"))
    return str(request.param.stem)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, indirect=True, ids=[path.stem for path in RECIPES])
def test_a_recipe_goes_from_its_data_to_a_verdict(recipe, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["stage"])
    for stage in (prepare, fit, score, export, report):
        stage.main()
    inference = read_json("src/models/inference.json")
    settings = params.load()
    assert inference["task_type"] == settings.task
    for key in ("model_path", "plot_path", "correct_prediction", "incorrect_prediction"):
        assert (Path("src/models") / inference[key]).exists(), key
    if "tokenizer_path" in inference:
        assert (Path("src/models") / inference["tokenizer_path"]).exists()

    with pytest.raises(SystemExit) as exit:  # one epoch on a sample is no model, but it can be judged
        gate.main()
    assert exit.value.code == 1
    verdict = json.loads((gate.GATE / "gate.json").read_text())
    assert [row["gate"] for row in verdict["gates"]] == list(settings.gates.declared)
    assert not [row["reason"] for row in verdict["gates"] if row["reason"].startswith("gates.")]


def test_every_task_and_architecture_has_a_recipe():
    settings = [params.load(path) for path in RECIPES]
    assert {each.task for each in settings} == set(names("tasks"))
    assert {each.architecture for each in settings} == set(names("architectures"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_comes_with_data_and_a_card_that_names_licence_and_source(path, root):
    folder = root / params.load(path).data.path
    card = (folder / "README.md" if folder.is_dir() else folder.parent / "README.md").read_text().lower()
    assert "licen" in card
    assert "source" in card


def test_all_data_that_come_along_are_small(root):
    sizes = [file.stat().st_size for file in (root / "datasets").rglob("*") if file.is_file()]
    full = [file.stat().st_size for file in (root / "datasets/fashion-full").rglob("*") if file.is_file()]
    assert sum(sizes) - sum(full) < 25_000_000


def test_the_metrics_of_a_recipe_s_gates_are_those_of_its_objective(root):
    for path in RECIPES:
        settings = params.load(path)
        known = pick("objectives", settings.objective or "classification").MEASURES
        for name, options in settings.gates.declared.items():
            assert getattr(options, "metric", None) in {None, *known}, f"{path.stem}: {name}"
