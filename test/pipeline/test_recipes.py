"""Recipes: one for every task and architecture, with data whose licence is named.

test_predict_pipeline.py runs them.
"""

from pathlib import Path

import pytest

from src import params
from src.plugin import names, pick

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


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
