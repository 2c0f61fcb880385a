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
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from pydantic import BaseModel

from src import engine, objectives, params
from src.dataset import content
from src.errors import BadExampleError, UserError
from src.plugin import names, pick

PROMISE = "The promise of every file here"
SRC = Path(__file__).parents[2] / "src"
FOLDERS = sorted(file.parent.name for file in SRC.glob("*/__init__.py") if PROMISE in file.read_text())
PLUGINS = [(folder, name) for folder in FOLDERS for name in names(folder)]
RECIPES = sorted((SRC.parent / "recipes").glob("*.yaml"))
LABELS = {
    name: labels
    for labels in (pd.Series(["a", "b", "c", "b"] * 5), pd.Series(np.linspace(0.0, 1.5, 20)))
    if (name := objectives.infer(labels)) in names("objectives")
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


@pytest.fixture(scope="module", params=names("tasks"))
def task(request, root, tmp_path_factory) -> tuple[ModuleType, params.Params, pd.DataFrame]:
    """A task, a recipe for it, and its data."""
    for recipe in RECIPES:
        settings = params.load(recipe)
        if settings.task == request.param:
            module = pick("tasks", request.param)
            data = settings.data.model_copy(update={"path": str(root / settings.data.path)})
            return module, settings, module.read(data, tmp_path_factory.mktemp("spool"))
    pytest.fail(f"recipes/ has none for the task {request.param!r}")


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


def test_an_encoder_keeps_its_shape_and_dtype_and_comes_back_from_json(task):
    module, settings, table = task
    raws = [content(value) for value in table["input"][:20]]
    encoder = module.Encoder.learn(iter(raws), settings.encode)
    again = module.Encoder.from_json(json.loads(json.dumps(encoder.to_json())))
    for raw in raws:
        array = encoder.encode(raw)
        assert (array.shape, array.dtype) == (encoder.shape, np.dtype(encoder.dtype))
        assert np.array_equal(array, again.encode(raw))
        axes = Figure().subplots()
        module.draw(axes, array)
        assert axes.has_data()


# ── Architectures ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", names("architectures"))
def test_an_architecture_builds_a_keras_model_of_keras_layers_for_some_task(name):
    engine.start()
    module = pick("architectures", name)
    built = 0
    for recipe in RECIPES:
        settings = params.load(recipe)
        encoder = pick("tasks", settings.task).Encoder.learn(iter([]), settings.encode)
        try:
            model = module.build(encoder.shape, str(np.dtype(encoder.dtype)), 7, "softmax", module.Options())
        except UserError:  # not for this kind of input
            continue
        built += 1
        assert all(type(layer).__module__.startswith("keras.") for layer in model._flatten_layers())
        assert not model.compiled
        assert model.input_shape == (None, *encoder.shape)
        assert model.inputs[0].dtype == encoder.dtype
        model.compile("adam", "sparse_categorical_crossentropy")
        outputs = model.predict(np.zeros((3, *encoder.shape), encoder.dtype), verbose=0)
        assert outputs.shape == (3, 7)
        assert outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert built, "no recipe has inputs that it takes"


# ── Objectives ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "labels"), LABELS.items(), ids=LABELS)
def test_the_objective_that_a_label_column_suggests_keeps_its_promise(name, labels):
    module = pick("objectives", name)
    classes = module.classes(labels)
    encoded = module.encode(labels, classes)
    units, activation = module.output(classes)
    assert len(encoded) == len(labels)
    assert isinstance(activation, str)

    outputs = np.random.default_rng(0).dirichlet(np.ones(units), len(labels)).astype(np.float32)
    columns = module.predict(outputs, classes)
    assert len(columns) == len(labels)
    assert columns.columns[0] == "prediction"

    metrics = module.score(encoded, outputs, classes)
    assert isinstance(next(iter(metrics.values())), float)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics

    predictions = pd.DataFrame({"id": labels.index.astype(str), "label": labels}).join(columns)
    for caption, figure in module.pictures(predictions, classes).values():
        assert isinstance(caption, str)
        assert isinstance(figure, Figure)
    chosen = module.showcase(predictions, 3)
    assert list(chosen) == ["correct_predictions", "incorrect_predictions"]
    for rows in chosen.values():
        assert len(rows) <= 3
        assert set(rows.index) <= set(predictions.index)
        assert rows["title"].map(type).eq(str).all()
