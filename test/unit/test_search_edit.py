"""Values in the text of params.yaml are replaced alone: every other byte stays."""

import difflib
from pathlib import Path

import pytest

from src import params
from src.errors import UserError
from src.search import edit

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=[path.stem for path in RECIPES])
def test_only_the_lines_of_changed_values_change_in_a_recipe(recipe):
    text = edit.read_text(recipe)
    values = {
        "fit.epochs": 77,
        "fit.batch_size": 4,
        "fit.optimizer.learning_rate": 0.00123,
        "model.dropout": 0.45,
    }
    values = {
        key: value for key, value in values.items() if edit.get(params.parse(text, ""), key) is not None
    }
    changed = edit.rewrite(text, values, recipe.name)
    lines = list(difflib.unified_diff(text.splitlines(True), changed.splitlines(True), n=0))[2:]
    removed = [line for line in lines if line.startswith("-")]
    added = [line for line in lines if line.startswith("+")]
    assert len(removed) == len(added) == len(values)
    for old, new in zip(sorted(removed), sorted(added), strict=True):
        comment = old.partition("  #")[2]
        assert new.endswith("  #" + comment if comment else "\n")
    assert params.parse(changed, "") == edit.put(params.parse(text, ""), values)


def test_what_is_there_already_leaves_every_byte(root):
    text = edit.read_text(root / "recipes/fashion.yaml")
    assert edit.rewrite(text, {"model.filters": [32, 64, 128], "fit.seed": 0}, "") == text


EDITS = [
    ("a:\n  b: 1  # why\n", {"a.b": 25}, "a:\n  b: 25 # why\n"),
    ("a:\n  b: 0.25      # why\n", {"a.b": 3}, "a:\n  b: 3         # why\n"),
    ("a:\r\n  b: 1\r\nc: 2\r\n", {"a.b": [1, 2], "a.d": "x"}, "a:\r\n  b: [1, 2]\r\n  d: x\r\nc: 2\r\n"),
    ("a: {b: 1, c: 'x'}  # why\n", {"a.b": 2, "a.d": None}, "a: {b: 2, c: 'x', d: null}  # why\n"),
    ("a:           # why\n  {b: 1,\n   c: 2}\n", {"a.c": 0.5}, "a:           # why\n  {b: 1,\n   c: 0.5}\n"),
    (
        "a:\n  b:\n    - 1\n    - 2  # two\n  # end\nc: 1\n",
        {"a.b": [3]},
        "a:\n  b:\n    [3]  # two\n  # end\nc: 1\n",
    ),
    ("a:\n  b:\n  c: 2", {"a.b": 1, "a.d.e": True}, "a:\n  b: 1\n  c: 2\n  d: {e: true}\n"),
    ("a:\n\nc: 1\n", {"a.b": 1}, "a: {b: 1}\n\nc: 1\n"),
    ("a: 1\n", {"b.c": 0.00001}, "a: 1\nb: {c: 1e-05}\n"),
    ('# 😀 é\na: {b: "x"}\n', {"a.b": "y: z"}, "# 😀 é\na: {b: 'y: z'}\n"),
]


@pytest.mark.parametrize(("text", "values", "expected"), EDITS)
def test_a_value_is_replaced_or_added_in_the_style_of_its_section(text, values, expected):
    assert edit.rewrite(text, values, "params.yaml") == expected


def test_a_value_that_others_share_by_an_anchor_is_left_to_the_user():
    with pytest.raises(UserError, match=r"params.yaml: is written so .* set a.b: 2 there"):
        edit.rewrite("a: &x {b: 1}\nc: *x\n", {"a.b": 2}, "params.yaml")
