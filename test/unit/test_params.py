"""params.yaml: what is right loads, what is wrong is named, and all of it at once."""

from pathlib import Path

import pytest

from src import params
from src.errors import UserError

WRONG = [
    ({"fit": {"epoch": 3}}, "fit.epoch: unknown key; did you mean 'epochs'?"),
    ({"fits": {}}, "fits: unknown key; did you mean 'fit'?"),
    ({"fit": {"early_stopping": {"patiense": 3}}}, "fit.early_stopping.patiense: unknown key; did you mean"),
    ({"fit": {"zzz": 3}}, "fit.zzz: unknown key; expected one of seed, epochs, batch_size"),
    ({"encode": {"sizes": [8, 8]}}, "encode.sizes: unknown key; did you mean 'size'?"),
    ({"model": {"filter": [8]}}, "model.filter: unknown key; did you mean 'filters'?"),
    ({"fit": {"epochs": "ten"}}, "fit.epochs: found 'ten', expected a valid integer"),
    ({"fit": {"epochs": "10"}}, "fit.epochs: found '10', expected a valid integer"),
    ({"fit": {"epochs": 0}}, "fit.epochs: found 0, expected greater than or equal to 1"),
    ({"fit": {"seed": -1}}, "fit.seed: found -1"),
    ({"fit": {"batch_size": 0}}, "fit.batch_size: found 0, expected a number of examples from 1 up, or auto"),
    ({"fit": {"class_weight": {"cat": -1}}}, "fit.class_weight: found {'cat': -1}, expected balanced, or"),
    ({"fit": {"device": "tpu"}}, "fit.device: found 'tpu', expected one of auto, cpu, gpu, gpus"),
    ({"fit": {"augment": [3]}}, "fit.augment.0: found 3, expected a valid dictionary"),
    ({"fit": {"loss": 3}}, "fit.loss: found 3, expected a section of keys"),
    (
        {"fit": {"optimizer": {"learning_rate": -0.1}}},
        "fit.optimizer.learning_rate: found -0.1, expected a number",
    ),
    (
        {"fit": {"optimizer": {"learning_rate": {"rate": 1}}}},
        "fit.optimizer.learning_rate: found {'rate': 1}",
    ),
    ({"fit": {"optimizer": "adam"}}, "fit.optimizer: found 'adam', expected a section of keys"),
    ({"data": {"test": 1.5}}, "data.test: found 1.5, expected less than 1"),
    ({"data": {"sample": 0}}, "data.sample: found 0, expected a share above 0.0"),
    ({"data": {"sample": True}}, "data.sample: found True, expected a share above 0.0"),
    ({"data": {"on_bad": "ignore"}}, "data.on_bad: found 'ignore', expected 'fail' or 'skip'"),
    ({"encode": {"size": [28]}}, "encode.size: found [28]"),
    ({"encode": {"size": [28, 0]}}, "encode.size.1: found 0"),
    ({"encode": {"channels": 2}}, "encode.channels: found 2, expected 1 or 3"),
    ({"encode": 5}, "encode: found 5, expected a section of keys"),
    ({"model": {"filters": []}}, "model.filters: found []"),
    ({"task": "imagee"}, "task: src/tasks: there is no 'imagee', expected one of"),
    ({"task": 3}, "task: found 3, expected a valid string"),
    ({"architecture": "cnm"}, "did you mean 'cnn'?"),
    ({"objective": "clasification"}, "did you mean 'classification'?"),
    ({"data": None}, "data: found None, expected a section of keys"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=[sentence[:40] for _, sentence in WRONG])
def test_what_is_wrong_is_said_with_key_found_and_expected(workspace, write_params, changes, sentence):
    write_params(**changes)
    with pytest.raises(UserError) as error:
        params.load()
    assert str(error.value).startswith("params.yaml: ")
    assert sentence in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_everything_that_is_wrong_is_said_at_once(workspace, write_params):
    write_params(
        task="imagee", architecture="cnm", objective="x", data={"test": 2.0}, fit={"epochs": "ten"}, report=3
    )
    with pytest.raises(UserError) as error:
        params.load()
    lines = str(error.value).splitlines()
    assert len(lines) == 6
    for key in ("task", "architecture", "objective", "data.test", "fit.epochs", "report"):
        assert sum(f" {key}: " in line for line in lines) == 1


def test_a_missing_section_is_said(workspace):
    Path("params.yaml").write_text("task: image\narchitecture: cnn\n")
    with pytest.raises(UserError, match=r"params\.yaml: data: missing; this key is required"):
        params.load()


@pytest.mark.parametrize(
    "text",
    ["fit: [1, 2", "fit:\n\tepochs: 3", "task: image\ntask: image", "a: b: c", b"task: \xff\xfe"],
    ids=["open bracket", "tab", "same key twice", "two colons", "not UTF-8"],
)
def test_yaml_that_does_not_parse_is_one_sentence_with_the_file(workspace, text):
    Path("params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        params.load()
    assert str(error.value).startswith("params.yaml: expected YAML, found what cannot be parsed: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b"])
def test_yaml_without_sections_is_refused(workspace, text):
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml: expected sections such as `task:`"):
        params.load()


def test_a_missing_file_names_the_recipes(workspace):
    with pytest.raises(UserError, match=r"params\.yaml: not found; copy one from recipes/"):
        params.load()


def test_exponents_are_numbers(workspace, write_params):
    # YAML 1.1, which PyYAML reads, takes 1e-3 for text.
    write_params()
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("0.01", "1e-3"))
    assert params.load().fit.optimizer.learning_rate == 0.001


def test_defaults_follow_the_rules_of_thumb(workspace):
    Path("params.yaml").write_text("task: image\narchitecture: cnn\ndata: {path: photos}\n")
    settings = params.load()
    assert (settings.fit.optimizer.name, settings.fit.optimizer.learning_rate) == ("adam", 0.001)
    assert settings.fit.early_stopping is not None
    assert settings.fit.deterministic
    assert settings.model.filters == [32, 64, 128]
    assert settings.encode.channels == 3


def test_every_recipe_and_the_params_in_use_are_valid(root):
    recipes = sorted((root / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in [*recipes, root / "params.yaml"]:
        settings = params.load(recipe)
        assert (root / settings.data.path).exists(), recipe


def test_the_command_says_what_params_choose(workspace, write_params, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["params"])
    write_params(data={"path": "."})
    params.main()
    assert capsys.readouterr().out == "params.yaml is valid: cnn on image from .\n"


def test_the_command_notices_that_the_data_is_not_there(workspace, write_params, monkeypatch, fails):
    monkeypatch.setattr("sys.argv", ["params"])
    write_params()
    code, message = fails(params.main)
    assert code == 1
    assert message == "error: params.yaml: data.path: found 'photos', expected a file or folder there"
