"""Every recipe, on a sample of its data: to a verdict, and on to predictions of raw inputs in sluice.pyz."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from starlette.testclient import TestClient

from src import golden, params
from src.dataset import content
from src.evaluate import export, gate, report, score
from src.files import read_json
from src.plugin import pick
from src.predict.inputs import Item
from src.predict.predictor import Predictor
from src.predict.source import Source
from src.predict.web.app import App
from src.predict.web.reading import Limits
from src.publish import bundle, pyz
from src.train import fit, prepare

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
MODELS = Path("src/models")
NAMES = ("model.keras", "model.onnx", "inference.json", "golden.json", "metrics.json", "tokenizer.json")
# Reads packed inputs, a line each; writes all outputs. Only the archive's own code is on the path.
PROGRAM = """
import json, sys
sys.path[0] = "build/bundle/sluice.pyz"
from src import golden, options
options.trust()
import numpy as np
from pathlib import Path
from src.predict.inputs import Item
from src.predict.predictor import Predictor
from src.predict.source import Source
predictor = Predictor(Source(Path(sys.path[0])))
items = (Item("", lambda line=line: golden.unpack(json.loads(line))) for line in open("raws.jsonl"))
outputs = [output for batch in predictor.stream(items) for _, output in batch]
np.save("outputs.npy", np.stack(outputs))
answers = [predictor.answer(output)["prediction"] for output in outputs]
Path("answers.json").write_text(json.dumps(answers))
assert all(str(module.__file__).startswith(sys.path[0]) for name, module in sys.modules.items()
           if name.startswith("src.") and getattr(module, "__file__", None)), "code of the repository"
print("found", *({"tensorflow", "keras", "pandas", "pydantic", "pyarrow", "dvc"} & set(sys.modules)))
"""


def bundle_up() -> Path:
    """Makes build/bundle and sluice.pyz of src/models, as publishing does for what the gate let through."""
    folder = Path("build/bundle")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in NAMES:
        if (MODELS / name).exists():
            shutil.copyfile(MODELS / name, folder / name)
    bundle.write_sums(folder)
    pyz.main()
    return folder / "sluice.pyz"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def outputs_of_server(source: Source, names: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """Returns what the server answers to the packed inputs: outputs, (examples, units), and predictions."""
    packed = [json.loads(line) for line in Path("raws.jsonl").read_text().splitlines()]
    raws = [value for one in packed for value in one.values()]
    app = App(Predictor(source), Limits(size=1_000_000_000, seconds=300.0))
    rows: list[dict[str, Any]] = []
    with TestClient(app.build()) as client:
        for start in range(0, len(raws), 500):
            response = client.post("/predict", json={"inputs": raws[start : start + 500]})
            assert response.status_code == 200, response.text
            rows += response.json()["predictions"]
    if not names:
        return np.array([[row["prediction"]] for row in rows], np.float32), []
    stated = [row["prediction"] for row in rows]
    outputs = [[row["probabilities"][name] for name in names] for row in rows]
    return np.array(outputs, np.float32), [
        "|".join(each) if isinstance(each, list) else each for each in stated
    ]


@pytest.fixture(scope="module", params=RECIPES, ids=[path.stem for path in RECIPES])
def trained(request, root, tmp_path_factory) -> Path:
    """A folder where a recipe has been trained for an epoch on a sample, scored, exported and reported."""
    folder: Path = tmp_path_factory.mktemp(request.param.stem)
    settings = YAML(typ="safe").load(request.param)
    settings["data"] |= {"sample": 120}
    settings["fit"] |= {"epochs": 1}
    YAML(typ="safe").dump(settings, folder / "params.yaml")
    (folder / "datasets").symlink_to(root / "datasets")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        for stage in (prepare, fit, score, export, report):
            stage.main()
    return folder


@pytest.fixture
def recipe(trained, monkeypatch) -> Path:
    """The same, as the current folder; stages take no arguments."""
    monkeypatch.chdir(trained)
    monkeypatch.setattr("sys.argv", ["stage"])
    return trained


@pytest.fixture
def archive(recipe) -> Path:
    """Its sluice.pyz; and raws.jsonl, the raw inputs of the test split."""
    archive = Path("build/bundle/sluice.pyz")
    if not archive.exists():
        settings = params.load()
        Path("spool").mkdir()
        table = pick("tasks", settings.task).read(settings.data, Path("spool")).set_index("id")
        with open("raws.jsonl", "w") as file:
            for name in pd.read_parquet(MODELS / "predictions.parquet")["id"]:
                file.write(json.dumps(golden.pack(content(table.loc[name, "input"]))) + "\n")
        bundle_up()
    return archive


@dataclass(frozen=True)
class Expected:
    """What Keras predicted in the pipeline: outputs, (examples, units), and what each means."""

    names: list[str] | None
    outputs: np.ndarray
    answers: list[str]

    def has(self, outputs: np.ndarray, answers: list[Any] | None = None) -> bool:
        """Whether other outputs are as good as the same, and other answers exactly."""
        unit = 1.0 if self.names else float(self.outputs.std())
        same = golden.difference(self.outputs, outputs, unit).max() < 1e-4
        return bool(same) and (answers is None or self.names is None or answers == self.answers)


@pytest.fixture
def expected(recipe) -> Expected:
    """What Keras predicted when the model was scored."""
    names = read_json(MODELS / "inference.json")["classes"]
    table = pd.read_parquet(MODELS / "predictions.parquet")
    columns = [f"probability of {name}" for name in names] if names else ["prediction"]
    return Expected(names, table[columns].to_numpy(np.float32), table["prediction"].tolist())


@pytest.mark.slow
def test_a_recipe_goes_from_its_data_to_a_verdict(recipe):
    inference = read_json(MODELS / "inference.json")
    settings = params.load()
    assert inference["task_type"] == settings.task
    for key in ("model_path", "plot_path", "correct_prediction", "incorrect_prediction"):
        assert (MODELS / inference[key]).exists(), key
    if "tokenizer_path" in inference:
        assert (MODELS / inference["tokenizer_path"]).exists()

    with pytest.raises(SystemExit) as exit:  # one epoch on a sample is no model, but it can be judged
        gate.main()
    assert exit.value.code == 1
    verdict = read_json(gate.GATE / "gate.json")
    assert [row["gate"] for row in verdict["gates"]] == list(settings.gates.declared)
    assert not [row["reason"] for row in verdict["gates"] if row["reason"].startswith("gates.")]


@pytest.mark.slow
def test_raw_inputs_predict_in_the_archive_what_keras_predicted_in_the_pipeline(archive, expected):
    result = run("-c", PROGRAM)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "found", result.stdout
    answers = json.loads(Path("answers.json").read_text())
    joined = ["|".join(answer) if isinstance(answer, list) else answer for answer in answers]
    outputs = np.load("outputs.npy")
    assert expected.has(outputs, joined)
    if not expected.names:
        assert answers == pytest.approx(outputs[:, 0].tolist())

    result = run(str(archive), "verify")
    assert result.returncode == 0, result.stderr
    examples = read_json(MODELS / "golden.json")["examples"]
    assert f"{len(examples)} golden examples predict the same" in result.stdout
    assert 1 <= len(examples) <= golden.EXAMPLES


@pytest.mark.slow
def test_raw_inputs_predict_so_with_keras_too(archive, expected):
    predictor = Predictor(Source(archive), keras=True)
    raws = map(json.loads, Path("raws.jsonl").read_text().splitlines())
    items = (Item("", partial(golden.unpack, raw)) for raw in raws)
    assert expected.has(np.stack([output for batch in predictor.stream(items, 1024) for _, output in batch]))


@pytest.mark.slow
def test_raw_inputs_predict_so_on_the_server(archive, expected):
    assert expected.has(*outputs_of_server(Source(archive), expected.names))
