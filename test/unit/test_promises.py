"""Every file of a plug-in folder keeps the promise in the docstring of its folder's __init__.py.

New files are found by themselves. What a task and an architecture are tried on comes from recipes/, so a new
task needs a recipe with real data.
"""

import importlib
import inspect
import json
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from pydantic import BaseModel

from src import engine, objectives, params
from src.dataset import content
from src.errors import BadExampleError, UserError
from src.judgement import measures
from src.network import Frame, Input, Output
from src.plugin import names, pick

PROMISE = "The promise of every file here"
SRC = Path(__file__).parents[2] / "src"
FOLDERS = sorted(file.parent.name for file in SRC.glob("*/__init__.py") if PROMISE in file.read_text())
PLUGINS = [(folder, name) for folder in FOLDERS for name in names(folder)]
RECIPES = sorted((SRC.parent / "recipes").glob("*.yaml"))
SPOOL = tempfile.TemporaryDirectory()
# What a network is built with here where its defaults would download something.
OFFLINE = {"transfer": {"backbone": str(SRC.parent / "datasets/backbones/fashion-8.keras")}}
LABELS = {
    objectives.infer(labels): labels
    for labels in (
        pd.Series(["a", "b", "c", "b"] * 5),
        pd.Series([["a"], ["c", "b"], [], ["b", "a"]] * 5),
        pd.Series(np.linspace(0.0, 1.5, 20)),
    )
}


def promised(folder: str) -> dict[str, list[str] | None]:
    """Reads a folder's docstring: each promised name, and its arguments if it is a function."""
    docstring = importlib.import_module(f"src.{folder}").__doc__ or ""
    lines = re.findall(r"^ {4}(\w+(?:, \w+)*)(?:\(([\w, ]*)\)|  )", docstring, re.MULTILINE)
    return {
        name: arguments.split(", ") if arguments else None
        for both, arguments in lines
        for name in both.split(", ")
    }


# ── What is there ──────────────────────────────────────────────────────────────────────────────────────


def test_the_folders_that_promise_something_are_found():
    assert {"tasks", "architectures", "objectives"} <= set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_promises_something_and_has_a_file(folder):
    assert len(promised(folder)) > 1
    assert names(folder)


@pytest.mark.parametrize(("folder", "name"), PLUGINS)
def test_every_file_has_the_promised_names_and_arguments(folder, name):
    module = pick(folder, name)
    for promise, arguments in promised(folder).items():
        assert hasattr(module, promise), f"src/{folder}/{name}.py has no {promise}"
        if arguments is not None:
            assert list(inspect.signature(getattr(module, promise)).parameters) == arguments


@pytest.mark.parametrize(("folder", "name"), PLUGINS)
def test_every_file_says_what_it_is(folder, name):
    module = pick(folder, name)
    assert module.__doc__
    for promise in promised(folder):
        if inspect.isfunction(getattr(module, promise)) or inspect.isclass(getattr(module, promise)):
            assert getattr(module, promise).__doc__, f"src/{folder}/{name}.py: {promise} has no docstring"


@pytest.mark.parametrize(("folder", "name"), [each for each in PLUGINS if "Options" in promised(each[0])])
def test_options_have_a_default_for_every_key_and_refuse_unknown_ones(folder, name):
    options = pick(folder, name).Options
    assert issubclass(options, BaseModel)
    again = options.model_validate(json.loads(options().model_dump_json()))
    assert again == options()
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        options.model_validate({"no such key": 1})


def test_nothing_that_prepare_uses_imports_keras(workspace, write_photos, write_params, root):
    write_photos(workspace / "photos", 6)
    write_params()
    plugins = [f"src.{folder}.{name}" for folder, name in PLUGINS]
    program = f"""
import importlib, sys
sys.path.insert(0, {str(root)!r})
for name in {plugins}:
    importlib.import_module(name)
import src.train.prepare
src.train.prepare.main()
print("found", *({{"keras", "tensorflow", "torch", "jax"}} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "found"


# ── Tasks ──────────────────────────────────────────────────────────────────────────────────────────────


@cache
def recipe_of(task: str) -> tuple[ModuleType, params.Params, pd.DataFrame]:
    """A task, a recipe for it, and its data."""
    for recipe in RECIPES:
        settings = params.load(recipe)
        if settings.task == task:
            module = pick("tasks", task)
            data = settings.data.model_copy(update={"path": str(SRC.parent / settings.data.path)})
            return module, settings, module.read(data, Path(tempfile.mkdtemp(dir=SPOOL.name)))
    pytest.fail(f"recipes/ has none for the task {task!r}")


@cache
def encoder_of(task: str) -> Any:
    """A task's encoder, learned from the first examples of its recipe."""
    module, settings, table = recipe_of(task)
    return module.Encoder.learn([content(value) for value in table["input"][:200]], settings.encode)


@pytest.fixture(params=names("tasks"))
def task(request) -> tuple[ModuleType, params.Params, pd.DataFrame]:
    """Each task, a recipe for it, and its data."""
    return recipe_of(request.param)


def test_a_task_reads_a_table_of_examples(task):
    _, _, table = task
    assert {"id", "input", "label"} <= set(table.columns)
    assert table["id"].is_unique
    assert isinstance(table.attrs["ignored"], list)
    assert set(table.get("split", pd.Series(dtype=object)).dropna()) <= {"train", "validation", "test"}


def test_a_task_tells_examples_apart_by_content(task):
    module, _, table = task
    raws = [content(value) for value in table["input"][:20]]
    digests = [module.digest(raw) for raw in raws]
    assert digests == [module.digest(raw) for raw in raws]
    assert len(set(digests)) > 15
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)


def test_a_task_refuses_nothing_at_all(task):
    module, _, _ = task
    for raw in (None, b"", float("nan")):
        with pytest.raises(BadExampleError):
            module.digest(raw)


@pytest.mark.parametrize("name", names("tasks"))
def test_an_encoder_keeps_its_shape_and_dtype_and_comes_back_from_its_files(name, tmp_path):
    module, _, table = recipe_of(name)
    encoder = encoder_of(name)
    encoder.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} <= {"encoder.json", "tokenizer.json"}
    again = module.Encoder.load(tmp_path)
    assert again.layers == encoder.layers
    assert again.vocabulary == encoder.vocabulary
    for value in table["input"][:20]:
        array = encoder.encode(content(value))
        assert (array.shape, array.dtype) == (encoder.shape, np.dtype(encoder.dtype))
        assert np.array_equal(array, again.encode(content(value)))


@pytest.mark.parametrize("name", names("tasks"))
def test_what_an_encoder_made_can_be_shown_to_people(name):
    module, _, table = recipe_of(name)
    encoder = encoder_of(name)
    for value in table["input"][:5]:
        array = encoder.encode(content(value))
        axes = Figure(figsize=module.CELL).subplots()
        empty = len(axes.get_children())
        encoder.draw(axes, array)
        assert len(axes.get_children()) > empty or axes.has_data()
        words = encoder.describe(array)
        assert all(isinstance(word, str) for pair in words.items() for word in pair)


# ── Architectures ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", names("architectures"))
def test_an_architecture_builds_a_keras_model_of_keras_layers_for_some_task(name):
    engine.start()
    module = pick("architectures", name)
    options = module.Options(**OFFLINE.get(name, {}))
    built = 0
    for task in names("tasks"):
        encoder = encoder_of(task)
        dtype = str(np.dtype(encoder.dtype))
        inputs = Input(encoder.shape, dtype, encoder.layers, encoder.vocabulary)
        frame = Frame(inputs, Output(7, "softmax"))
        assert Frame.from_json(json.loads(json.dumps(frame.to_json()))) == frame
        try:
            model = module.build(frame, options)
        except UserError:  # not for this kind of input
            continue
        built += 1
        assert all(type(layer).__module__.startswith("keras.") for layer in model._flatten_layers())
        assert not model.compiled
        assert model.input_shape == (None, *encoder.shape)
        assert model.inputs[0].dtype == dtype
        model.compile("adam", "sparse_categorical_crossentropy")
        raws = recipe_of(task)[2]["input"][:3]
        outputs = model.predict(np.stack([encoder.encode(content(raw)) for raw in raws]), verbose=0)
        assert outputs.shape == (3, 7)
        assert outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)
        if hasattr(module, "describe"):
            json.dumps(module.describe(frame, options), allow_nan=False)
    assert built, "no recipe has inputs that it takes"


# ── Objectives ─────────────────────────────────────────────────────────────────────────────────────────


def test_every_objective_is_suggested_by_some_labels():
    assert sorted(LABELS) == names("objectives")


@pytest.mark.parametrize(("name", "labels"), LABELS.items(), ids=LABELS)
def test_the_objective_that_a_label_column_suggests_keeps_its_promise(name, labels):
    module = pick("objectives", name)
    with pytest.raises(BadExampleError, match="no label"):
        module.read(None)
    labels = labels.map(module.read)
    assert labels.map(module.read).equals(labels)
    classes = module.classes(labels)
    encoded = module.encode(labels, classes)
    output = module.output(encoded, classes)
    assert len(encoded) == len(labels)
    groups = module.groups(encoded, classes)
    assert all(isinstance(group, str) for group in groups)
    assert classes is None or list(groups) == classes
    assert set(np.concatenate(list(groups.values()))) <= set(range(len(labels)))

    outputs = np.random.default_rng(0).dirichlet(np.ones(output.units), len(labels)).astype(np.float32)
    columns = module.predict(outputs, classes)
    assert len(columns) == len(labels)
    assert columns.columns[0] == "prediction"

    metrics = module.score(encoded, outputs, classes)
    assert isinstance(next(iter(metrics.values())), float)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert module.score(encoded, outputs, classes) == metrics
    for metric, entry in module.MEASURES.items():
        value = measures.build(**entry).measure(encoded, outputs, 0.95).interval.estimate
        assert value == pytest.approx(metrics[metric]), metric

    predictions = pd.DataFrame({"id": labels.index.astype(str), "label": labels}).join(columns)
    for caption, figure in module.pictures(predictions, classes).values():
        assert isinstance(caption, str)
        assert isinstance(figure, Figure)
    chosen = module.showcase(predictions, 3)
    assert list(chosen) == ["correct_predictions", "incorrect_predictions"]
    for rows in chosen.values():
        assert len(rows) <= 3
        assert set(rows.attrs) == {"heading", "caption"}
        assert set(rows.index) <= set(predictions.index)
        assert rows["title"].map(type).eq(str).all()
